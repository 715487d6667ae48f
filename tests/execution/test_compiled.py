"""Execution "compile" gives what dense execution gives, and a model of it compiles without a break."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from random_detector import write_random_detector
from small_networks import images, randomize

from sact_det import build_classifier
from sact_det.detection.predictor import load_detector
from sact_det.execution import compiled
from sact_det.network.norm import freeze_norms
from sact_det.tasks import load_config

CONFIGS = Path(__file__).parents[2] / "configs/tests"

compile_ = torch.compile


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch: pytest.MonkeyPatch):
    """The graph is made, and its gradients; code for it takes too long."""
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    torch._dynamo.reset()


def network():
    model = build_classifier(units=(1, 3), base_channels=4, num_classes=5, halting="sact")
    return randomize(model, images(2, 40, 40), halting_bias=-1.0)


def test_a_shape_that_comes_again_is_compiled_and_its_output_is_that_of_dense(monkeypatch):
    made = []
    monkeypatch.setattr(torch, "compile", lambda *args, **options: made.append(args) or compile_(*args, **options))
    model = network()
    x = images(2, 40, 40, seed=1)
    with torch.no_grad():
        expected = model(x)
        model.set_execution("compile")
        outputs = [model(x) for _ in range(3)]
    assert len(made) == 2  # one a block
    for output in outputs:
        torch.testing.assert_close(output.logits, expected.logits)
        assert torch.equal(output.ponder.flops, expected.ponder.flops)
    again = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert not again.block1.plan._programs and len(model.block1.plan._programs) == 1
    with torch.no_grad():
        torch.testing.assert_close(again(x).logits, expected.logits)


def test_a_step_has_the_gradients_of_dense_execution():
    model = network()
    freeze_norms(model)
    model.train()
    x = images(2, 24, 24, seed=1)
    gradients = []
    for execution, steps in (("dense", 1), ("compile", 2)):
        model.set_execution(execution)
        for _ in range(steps):
            model.zero_grad()
            output = model(x)
            (output.logits.square().mean() + 0.1 * output.ponder.blocks["block2"].ponder_cost.mean()).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert len(model.block2.plan._programs) == 1 and gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_nothing_of_a_model_breaks_the_graph():
    """In evaluation blocks end early as soon as all positions have halted; what is compiled does not."""
    model = network()
    explained = torch._dynamo.explain(model)(images(2, 40, 40, seed=1))
    assert explained.graph_break_count == 0 and explained.graph_count == 1, explained.break_reasons


@pytest.mark.parametrize("config", ["tiny", "tiny_retinanet"])
def test_a_whole_detector_compiles_and_finds_the_same(config, tmp_path):
    path = str(CONFIGS / f"{config}.yaml")
    cfg = load_config(path, ["MODEL.WEIGHTS", write_random_detector(tmp_path / "model.pth", path)])
    model = load_detector(cfg)
    model.set_execution("dense")
    inputs = [{"image": 255 * torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(0))}]
    with torch.no_grad():
        (expected,), (found,) = model(inputs), compile_(model, backend="eager")(inputs)
    assert len(found["instances"]) == len(expected["instances"]) > 0
    for name, value in expected["instances"].get_fields().items():
        other = found["instances"].get(name)
        torch.testing.assert_close(getattr(other, "tensor", other), getattr(value, "tensor", value))
    assert torch.equal(found["ponder"].flops, expected["ponder"].flops)
