"""The classifier as Detectron2 sees it: losses, outputs, logs, and a state dict like any classifier's."""

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from labelled_folders import noise_image
from small_networks import randomize
from tiny_classifier import CONFIGS, config

from sact_det import build_classifier
from sact_det.detection.checkpoint import DetectorCheckpointer
from sact_det.engine.reference import Reference
from sact_det.network.norm import BatchNorm2d, FrozenBatchNorm2d, MovingBatchNorm2d
from sact_det.tasks import load_config
from sact_det.weights.weight_file import save_weights

FAMILIES = ("imagenet", "cifar")


def make_model(*overrides, family="imagenet"):
    torch.manual_seed(0)
    return build_model(config(None, *overrides, family=family))


def batch(size=48, count=4):
    """Inputs as the loader makes them."""
    pixels = [torch.from_numpy(noise_image(n % 3, n, (size, size))).permute(2, 0, 1) for n in range(count)]
    return [{"image": image, "label": n % 3, "image_id": n, "file_name": str(n)} for n, image in enumerate(pixels)]


def losses_of(model, inputs):
    with EventStorage() as storage:
        losses = model(inputs)
        storage.step()
    return losses, storage


def twin(model):
    """The plain classifier with the same weights."""
    spec = model.spec
    other = build_classifier(
        spec.units, None, spec.halting, model.logits.out_channels, spec.base_channels, spec.tile, spec.family
    )
    other.load_state_dict(model.state_dict())
    return other.train(model.training)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("halting", ["none", "act", "sact"])
def test_its_state_dict_is_the_classifiers(family, halting):
    model = make_model("MODEL.SACT.HALTING", halting, family=family)
    units = model.spec.units
    classifier = build_classifier(units, halting=halting, num_classes=3, base_channels=4, family=family)
    assert [(name, value.shape) for name, value in model.state_dict().items()] == [
        (name, value.shape) for name, value in classifier.state_dict().items()
    ]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("halting", ["none", "act", "sact"])
def test_the_losses_are_smoothed_cross_entropy_and_tau_times_the_mean_cost(family, halting):
    smoothing = 0.1 if family == "imagenet" else 0.0
    model = make_model("MODEL.SACT.HALTING", halting, "MODEL.SACT.TAU", "0.3", family=family)
    inputs = batch(48)
    x = torch.stack([item["image"] for item in inputs]) / 127.5 - 1
    output = twin(model)(x)
    losses, _ = losses_of(model, inputs)

    log_p = output.logits.double().log_softmax(1)
    targets = np.full((4, 3), smoothing / 3)
    targets[np.arange(4), [item["label"] for item in inputs]] += 1 - smoothing
    assert losses["loss_cls"].item() == pytest.approx(
        -(torch.from_numpy(targets) * log_p).sum(1).mean().item(), rel=1e-5
    )
    if halting == "none":
        assert losses.keys() == {"loss_cls"}
    else:
        cost = sum(block.ponder_cost.mean((1, 2)) for block in output.ponder.blocks.values()).mean().item()
        assert len(output.ponder.blocks) == len(model.spec.units)
        assert losses["loss_ponder"].item() == pytest.approx(0.3 * cost, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_learns(family):
    model = make_model(family=family)
    sum(losses_of(model, batch(48))[0].values()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_are_the_classifiers_image_by_image(family):
    model = make_model(family=family)
    model.set_execution("dense")  # as the twin, to the last bits
    inputs = batch(48)
    x = torch.stack([item["image"] for item in inputs]) / 127.5 - 1
    other = randomize(twin(model), x)
    model.load_state_dict(other.state_dict())
    with torch.no_grad():
        expected, outputs = other(x), model.eval()(inputs)
    assert len(outputs) == 4
    for index, output in enumerate(outputs):
        torch.testing.assert_close(output["logits"], expected.logits[index])
        record, own = expected.ponder.image(index), output["ponder"]
        assert own.flops.tolist() == record.flops.tolist() and own.flops.shape == (1,)
        for name, block in record.blocks.items():
            assert torch.equal(own.blocks[name].num_units, block.num_units)
            torch.testing.assert_close(own.blocks[name].ponder_cost, block.ponder_cost)
            assert not own.blocks[name].ponder_cost.requires_grad
    assert len({output["ponder"].flops.item() for output in outputs}) > 1


def test_images_may_have_any_size_in_evaluation():
    model = make_model().eval()
    with torch.no_grad():
        (output,) = model([{"image": torch.zeros(3, 37, 90, dtype=torch.uint8)}])
    assert output["logits"].shape == (3,) and output["ponder"].map((37, 90)).shape == (1, 37, 90)


def test_freeze_at_fixes_stem_and_blocks_but_not_their_halting_branches():
    model = make_model("MODEL.BACKBONE.FREEZE_AT", "3")
    for name, parameter in model.named_parameters():
        fixed = name.startswith(("stem.", "block1.", "block2.")) and ".halting." not in name
        assert parameter.requires_grad != fixed, name
    for name, module in model.named_modules():
        if isinstance(module, (BatchNorm2d, FrozenBatchNorm2d)):
            fixed = name.startswith(("block1.", "block2.")) and ".halting." not in name
            assert isinstance(module, FrozenBatchNorm2d) == fixed, name


def test_every_part_has_the_norm_its_key_says():
    keys = ("MODEL.SACT.NORM", "FrozenBN", "MODEL.SACT.BOX_HEAD_NORM", "BN", "MODEL.SACT.HALTING_NORM", "MovingBN")
    for name, module in make_model(*keys).named_modules():
        if isinstance(module, (BatchNorm2d, FrozenBatchNorm2d)):
            if ".halting." in name:
                expected = MovingBatchNorm2d
            else:
                expected = BatchNorm2d if name.startswith(("block4.", "postnorm")) else FrozenBatchNorm2d
            assert type(module) is expected, name


@pytest.mark.parametrize("family", FAMILIES)
def test_training_logs_accuracy_flops_units_and_costs(family):
    model = make_model(family=family)
    inputs = batch(48)
    x = torch.stack([item["image"] for item in inputs]) / 127.5 - 1
    output = twin(model)(x)
    losses, storage = losses_of(model, inputs)
    sum(losses.values()).backward()  # nothing is read before
    logged = {name: value for name, (value, _) in storage.latest().items()}
    labels = torch.tensor([item["label"] for item in inputs])
    assert logged["classifier/accuracy"] == (output.logits.argmax(1) == labels).float().mean().item()
    plain = Reference.of(model.spec, model.spec.units, 3).flops((48, 48))
    assert logged["sact/flops_percent"] == pytest.approx(100 * output.ponder.flops.double().mean().item() / plain)
    for name, block in output.ponder.blocks.items():
        assert logged[f"sact/{name}_cost"] == pytest.approx(block.ponder_cost.mean().item(), rel=1e-5)
        assert logged[f"sact/{name}_units"] == pytest.approx(block.num_units.float().mean().item(), rel=1e-5)
    assert not storage._vis_data


def test_the_ponder_map_of_an_image_is_drawn_every_vis_period():
    model = make_model("VIS_PERIOD", "2")
    with EventStorage() as storage:
        for _ in range(3):
            model(batch(48))
            storage.step()
    pictures = [(name, step) for name, _, step in storage._vis_data]
    assert [step for _, step in pictures] == [0, 2] and all("ponder map" in name for name, _ in pictures)


def test_its_weights_start_a_detector(tmp_path):
    model = make_model()
    save_weights(
        tmp_path / "a.pth", model.state_dict(), {"units": [1, 2, 3, 2], "base_channels": 4, "dilation": [1] * 4}
    )
    detector = build_model(load_config(str(CONFIGS / "tiny.yaml"), ["MODEL.SACT.BASE_CHANNELS", "4"]))
    DetectorCheckpointer(detector).load(str(tmp_path / "a.pth"))
    assert torch.equal(detector.backbone.stem.conv.weight, model.stem.conv.weight)
    assert torch.equal(detector.roi_heads.res5.postnorm.weight, model.postnorm.weight)
