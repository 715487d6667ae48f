"""Regions are those of Detectron2's ROIPooler; the execution chooses who crops them, and in which memory format."""

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torch import Tensor

from sact_det.detection.pooler import RegionPooler
from sact_det.execution import EXECUTIONS, set_execution
from sact_det.execution.cpu import library
from sact_det.tasks import load_config

CONFIG = Path(__file__).parents[2] / "configs/tests/tiny.yaml"
BY_ROWS = ("perforated", "auto") if library.why_unavailable() is None else ()


def model_with(*overrides: str) -> torch.nn.Module:
    return build_model(load_config(str(CONFIG), ["MODEL.DEVICE", "cpu", *overrides])).eval()


def inputs() -> tuple[list[Tensor], list[Boxes]]:
    """A map with 12 channels of two images, and three boxes and one."""
    features = torch.randn(2, 12, 5, 7, generator=torch.Generator().manual_seed(0))
    boxes = [[[3, 4, 60, 70], [0, 0, 111, 79], [50, 30, 52, 33]], [[-9, 20, 200, 66]]]
    return [features], [Boxes(torch.tensor(own, dtype=torch.float32)) for own in boxes]


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("kind", ["ROIAlign", "ROIAlignV2", "ROIPool"])
@pytest.mark.parametrize("ratio", ["0", "2"])
def test_regions_of_a_box_head(kind: str, ratio: str, execution: str):
    keys = ("TYPE", kind, "SAMPLING_RATIO", ratio, "RESOLUTION", "6")
    pairs = [key if index % 2 else f"MODEL.ROI_BOX_HEAD.POOLER_{key}" for index, key in enumerate(keys)]
    pooler = model_with(*pairs, "MODEL.SACT.EXECUTION", execution).roi_heads.pooler
    regions = pooler(*inputs())
    torch.testing.assert_close(regions, ROIPooler(6, (1 / 16,), int(ratio), kind)(*inputs()), rtol=1e-5, atol=1e-5)
    by_rows = execution in BY_ROWS and kind != "ROIPool"
    assert regions.is_contiguous(memory_format=torch.channels_last if by_rows else torch.contiguous_format)


@torch.no_grad()
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_pooler_reads_the_rows_that_a_block_leaves(execution: str):
    """What convolutions read is a plain map."""
    model = model_with("MODEL.SACT.EXECUTION", execution)
    features = model.backbone(torch.rand(1, 3, 64, 96))
    assert features["res4_relu"].is_contiguous()
    assert features["res4"].is_contiguous(memory_format=torch.channels_last) == (execution in BY_ROWS)


def test_boxes_of_a_pixel_stay_apart_beside_features_of_16_bits():
    """bfloat16 knows no number between 1000 and 1004."""
    pooler = model_with().roi_heads.pooler
    x = torch.arange(64.0).expand(1, 1, 64, 64).bfloat16()
    boxes = [Boxes(torch.tensor([[900.0, 900, 1000, 1000], [902.0, 900, 1002, 1000]]))]
    for execution in ("dense", "auto"):
        set_execution(pooler, execution)
        one, other = pooler([x], boxes).float().mean((1, 2, 3))
        assert other - one == pytest.approx(2 / 16, rel=0.05)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_no_boxes(execution: str):
    pooler = model_with("MODEL.SACT.EXECUTION", execution).roi_heads.pooler
    assert isinstance(pooler, RegionPooler)
    regions = pooler(inputs()[0], [Boxes(torch.zeros(0, 4)), Boxes(torch.zeros(0, 4))])
    assert regions.shape == (0, 12, *pooler.output_size)
