"""The RPN's head is Detectron2's, whatever computes it."""

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead

import sact_det.detection  # noqa: F401
from sact_det.detection.reference import DetectorReference
from sact_det.detection.rpn_head import SACTRPNHead
from sact_det.execution import EXECUTIONS
from sact_det.execution.cpu import library
from sact_det.tasks import load_config

TINY = str(Path(__file__).parents[2] / "configs/tests/tiny.yaml")
BY_ROWS = ("perforated", "auto", "graphs") if library.why_unavailable() is None else ()


def head(*overrides: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(load_config(TINY, overrides)).proposal_generator.rpn_head


def features() -> list[torch.Tensor]:
    return [torch.randn(2, 128, 6, 9, generator=torch.Generator().manual_seed(1))]


@pytest.mark.parametrize("widths", ["[-1]", "[24]", "[24, 16]"])
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_its_outputs_and_weights_are_detectron2_s(execution: str, widths: str, monkeypatch):
    keys = ("MODEL.RPN.CONV_DIMS", widths, "MODEL.SACT.EXECUTION", execution)
    ours, theirs = head(*keys), head(*keys, "MODEL.RPN.HEAD_NAME", "StandardRPNHead")
    assert type(ours) is SACTRPNHead and type(theirs) is StandardRPNHead
    theirs.load_state_dict(ours.state_dict())  # strict: the names are the same
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            for own, other in zip(ours(features()), theirs(features())):
                torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6)
    by_pytorch = []
    first = ours.conv[0] if isinstance(ours.conv, torch.nn.Sequential) else ours.conv
    first.register_forward_hook(lambda *call: by_pytorch.append(call))
    with torch.no_grad():
        ours.eval()(features())
    assert len(by_pytorch) == (execution not in BY_ROWS)


@pytest.mark.parametrize(("widths", "layers"), [("[24]", [(128, 24)]), ("[24, 16]", [(128, 24), (24, 16)])])
def test_the_width_of_its_convolutions_counts(widths: str, layers: list[tuple[int, int]]):
    cfg = load_config(TINY, ["MODEL.RPN.CONV_DIMS", widths])
    anchors = 3 * 3  # sizes, aspect ratios
    expected = sum(2 * 9 * before * after for before, after in layers) + 2 * layers[-1][1] * anchors * (1 + 4)
    assert DetectorReference.from_config(cfg).by_stride["proposal_generator"] == {16: expected}


def test_what_a_narrow_head_saves():
    """The numbers of docs/TRAINING.md."""
    coco = str(Path(TINY).parents[1] / "COCO/sact_R_101_C4_tau_0.005.yaml")
    found = []
    for widths in ("[-1]", "[256]"):
        cfg = load_config(coco, ["DATASETS.COCO_FORMAT", "[]", "MODEL.DEVICE", "cpu", "MODEL.RPN.CONV_DIMS", widths])
        flops = DetectorReference.from_config(cfg).flops((600, 800), 300)
        found.append([round(flops[part] / 1e9, 1) for part in ("proposal_generator", "total")])
    assert found == [[36.2, 657.2], [9.0, 630.1]]
