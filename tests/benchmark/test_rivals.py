"""Rivals are the plain network; what computes something else is neither timed nor shown."""

import copy
import sys

import pytest
import torch
from small_networks import images, randomize
from test_masks import build

from sact_det.benchmark import rivals as rivals_module
from sact_det.benchmark.networks import AdaptivePart, dense_part, folded
from sact_det.benchmark.parts import Disagreement, measure_part
from sact_det.benchmark.setting import Setting, relative_difference
from sact_det.budget.statistics import budgeted_norms
from sact_det.execution.cuda.graphs import Recording
from sact_det.network.halting_rule import HALTING_RULES
from sact_det.network.resnet_v2 import ResNetV2Spec


@pytest.mark.parametrize("statistics", ["of the training", "of a budget"])
def test_the_plain_network_of_the_same_weights_folded_or_not_is_the_adaptive_one_at_full_depth(statistics):
    part, x = build(), images(1, 75, 99)
    for norm in budgeted_norms(part).values() if statistics == "of a budget" else ():
        norm.substitute(norm.running_mean + 0.1, norm.running_var * 1.5)
    dense = dense_part(part)
    for block in part.blocks:
        block.units[-1].halting, block.rule = None, HALTING_RULES["none"]
    with torch.no_grad():
        features = part(x)[0]
        assert relative_difference(dense(x), features) < 1e-6
        assert relative_difference(folded(dense)(x), features) < 1e-5
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in folded(dense).modules()) == 16


def test_an_execution_that_computes_something_else_is_not_timed(monkeypatch):
    part, x = build(), images(1, 48, 64)
    forward = AdaptivePart.forward

    def off(self, x):
        features, ponders = forward(self, x)
        return features * (1.01 if getattr(self.blocks[0].plan, "auto", False) else 1), ponders

    monkeypatch.setattr(AdaptivePart, "forward", off)
    with pytest.raises(Disagreement, match=r"SACT 1, auto: features are off by 1\.0e-02"):
        measure_part("", part, [x], [1.0], Setting(rounds=1, warmup=0))


def test_a_rival_that_computes_something_else_or_is_not_installed_is_named(monkeypatch):
    def wrong(part, x, setting):
        part = copy.deepcopy(part)
        part.stem.conv.bias.data += 0.1
        return rivals_module.RIVALS["eager"](part, x, setting)

    monkeypatch.setitem(rivals_module.RIVALS, "folded", wrong)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    names = ["eager", "folded", "onnxruntime"]
    part, x = dense_part(build()), images(1, 48, 64)
    found, differences, absent = rivals_module.build_rivals(part, x, Setting(), names)
    assert [rival.name for rival in found] == ["eager"] == list(differences)
    assert absent["folded"].startswith("computes something else") and absent["onnxruntime"].startswith("not installed")


def test_a_rival_that_fails_is_absent_and_the_others_are_measured(monkeypatch):
    def broken(part, x, setting):
        raise RuntimeError("no kernel image\nis available")

    monkeypatch.setitem(rivals_module.RIVALS, "folded", broken)
    part, x = dense_part(build()), images(1, 48, 64)
    found, _, absent = rivals_module.build_rivals(part, x, Setting(), ["folded", "eager", "cuda-graph"])
    assert [rival.name for rival in found] == ["eager"]
    assert absent == {
        "folded": "failed: RuntimeError: no kernel image is available",
        "cuda-graph": "for CUDA only",
    }


def test_a_cuda_graph_of_a_network_reads_every_input_anew(monkeypatch):
    """A recording that calls again stands for a graph."""

    def capture(function, inputs, device):
        outputs = function(*inputs)
        return Recording(lambda: outputs[0].copy_(function(*inputs)[0]), outputs, 0)

    monkeypatch.setattr(rivals_module, "capture_graph", capture)
    part = dense_part(build())
    rival = rivals_module.TorchRival("cuda-graph", graph=True)(part, images(1, 48, 64), Setting())
    with torch.no_grad():
        for seed in (1, 2):
            x = images(1, 48, 64, seed=seed)
            assert relative_difference(rival.forward(rival.convert(x)), part(x)) < 1e-5
    assert not rival.any_shape


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_installed_rivals_agree_with_pytorch(name):
    pytest.importorskip("onnx")
    pytest.importorskip(name)
    found, differences, absent = rivals_module.build_rivals(dense_part(build()), images(1, 75, 99), Setting(), [name])
    assert [rival.name for rival in found] == [name] and differences[name] < 1e-4 and not absent


@pytest.mark.parametrize("name", ["folded, NCHW", "folded", "onnxruntime", "openvino"])
def test_the_box_head_of_rivals_is_the_plain_one_whatever_runs_it(name, monkeypatch):
    pytest.importorskip("detectron2")
    if name in ("onnxruntime", "openvino"):
        pytest.importorskip("onnx")
        pytest.importorskip(name)
    from sact_det.benchmark import dense_head
    from sact_det.detection.roi_heads import Block4Head

    head = Block4Head(ResNetV2Spec(units=(1, 1, 1, 3), base_channels=8, halting="none")).eval()
    regions = images(6, 14, 14, channels=8 * 16)
    randomize(head, regions)
    monkeypatch.setattr(dense_head, "HEADS", {name: dense_head.HEADS[name]})
    rival = dense_head.DenseHead(head, Setting())
    with torch.no_grad():
        for number in (6, 6, 5, 0):  # the first call with so many chooses
            torch.testing.assert_close(rival(regions[:number]), head(regions[:number]), rtol=1e-4, atol=1e-5)
    assert [remark.split(": ")[1].split(" (")[0] for remark in rival.remarks] == [name] * 2
