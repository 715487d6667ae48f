"""Models without the weights that the kernels hold packed: the same results, and nothing else to be had."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from random_detector import write_random_detector
from small_networks import images, randomize
from torch import nn

from sact_det import build_classifier
from sact_det.detection.predictor import Predictor
from sact_det.execution.cpu import library
from sact_det.execution.release import release_weights
from sact_det.tasks import load_config

pytestmark = pytest.mark.skipif(library.why_unavailable() is not None, reason=str(library.why_unavailable()))

TINY = str(Path(__file__).parents[2] / "configs/tests/tiny.yaml")
GONE = "weights that release_weights let go of are needed"


def classifier(halting="sact", execution="auto", **fields):
    fields = {"units": (2, 3, 2, 2), "base_channels": 8, "num_classes": 5, **fields}
    model = randomize(build_classifier(halting=halting, **fields), images(4, 64, 64), halting_bias=-1.0)
    model.set_execution(execution)
    return model


def numbers_kept(model):
    return sum(weight.numel() for weight in model.state_dict().values() if not weight.is_meta)


@torch.no_grad()
@pytest.mark.parametrize("halting", ["sact", "act", "none"])
def test_outputs_are_the_same_bit_for_bit(halting):
    model, x = classifier(halting), images(2, 70, 90)
    before = model(x)
    release_weights(model)
    for _ in range(2):
        after = model(x)
        torch.testing.assert_close(after.logits, before.logits, rtol=0, atol=0)
        assert torch.equal(after.ponder.flops, before.ponder.flops)
        for name, block in before.ponder.blocks.items():
            torch.testing.assert_close(after.ponder.blocks[name].ponder_cost, block.ponder_cost, rtol=0, atol=0)


def test_no_matrix_of_stem_and_units_is_left_in_memory():
    model = classifier()
    blocks = [model.block1, model.block4]
    parts = [part for block in blocks for unit in block.units for part in unit.children()]
    matrices = [part for part in parts if isinstance(part, nn.Conv2d)]
    assert not any(weight.is_meta for weight in model.parameters())
    release_weights(model)
    assert len(matrices) == 3 * 2 * 2 + 2 and all(conv.weight.is_meta for conv in matrices)
    assert all(weight.is_meta for weight in model.stem.parameters())
    assert not any(weight.is_meta for weight in model.logits.parameters())
    assert not any(norm.running_mean.is_meta for norm in model.modules() if isinstance(norm, nn.BatchNorm2d))


def test_a_detector_is_released_with_its_box_head(tmp_path):
    weights = write_random_detector(tmp_path / "detector.pth", TINY)
    predictor = Predictor(load_config(TINY, ["MODEL.WEIGHTS", weights, "MODEL.SACT.EXECUTION", "auto"]))
    image = (images(1, 90, 120).permute(0, 2, 3, 1)[0] * 40 + 128).clamp(0, 255).byte().numpy()
    before = predictor(image)
    release_weights(predictor.model)
    after = predictor(image)
    assert len(before.instances) > 0 and after.numbers == before.numbers
    for name, value in before.instances.get_fields().items():
        known, now = (getattr(field, "tensor", field) for field in (value, after.instances.get(name)))
        assert torch.equal(known, now), name
    assert all(unit.conv1.weight.is_meta for unit in predictor.model.roi_heads.res5.block4.units)


@torch.no_grad()
@pytest.mark.parametrize(
    ("use", "reason"),
    [
        (lambda model, x: model.train(), "for training"),
        (lambda model, x: model.set_execution("dense"), 'for execution "dense"'),
        (lambda model, x: model.state_dict(), "for a state dict"),
        (lambda model, x: model.load_state_dict({}, strict=False), "for a state dict"),
        (lambda model, x: model(x.double()), "where the kernels for inference cannot serve"),
        (lambda model, x: copy.deepcopy(model)(x), "to pack them"),
        (lambda model, x: pickle.loads(pickle.dumps(model))(x), "to pack them"),
        (lambda model, x: torch.enable_grad()(model)(x), "cannot serve (they carry no gradients)"),
    ],
    ids=["train", "dense", "state_dict", "load_state_dict", "double", "deepcopy", "pickle", "gradients"],
)
def test_what_needs_the_weights_is_refused(use, reason):
    model, x = classifier(), images(1, 64, 64)
    release_weights(model)
    with pytest.raises(RuntimeError) as error:
        use(model, x)
    assert str(error.value).startswith(GONE) and reason in str(error.value)


def test_weights_are_released_once():
    model = classifier()
    release_weights(model)
    with pytest.raises(ValueError, match="the weights cannot be released: they have been released"):
        release_weights(model)


@torch.no_grad()
def test_what_is_harmless_changes_nothing():
    model, x = classifier(), images(1, 64, 64)
    before = model(x).logits
    release_weights(model)
    model.eval().set_execution("perforated")
    assert torch.equal(model(x).logits, before)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: classifier(execution="dense"), 'execution "dense" needs them'),
        (lambda: classifier().train(), "the model is in training"),
        (lambda: classifier().double(), "cannot serve (they compute in float32 and in 16 bits)"),
        (lambda: classifier(family="cifar", units=(2, 2, 2)), "the kernels for CPUs cannot serve (there are none"),
        (lambda: nn.Sequential(classifier(), classifier(execution="dense")), 'execution "dense" needs them'),
        (lambda: nn.Conv2d(1, 1, 1), "there is neither a stem nor a block"),
    ],
    ids=["dense", "training", "double", "cifar", "one part of two", "nothing"],
)
def test_a_model_that_the_kernels_cannot_evaluate_keeps_its_weights(model, reason):
    model = model()
    before = numbers_kept(model)
    with pytest.raises(ValueError) as error:
        release_weights(model)
    assert str(error.value).startswith("the weights cannot be released: ") and reason in str(error.value)
    assert numbers_kept(model) == before
