"""Regions are those of Detectron2's ROIPooler; the execution chooses who crops them, and in which memory format."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torch import Tensor
from torchvision.ops import roi_align

from sact_det import add_sact_config
from sact_det.base.errors import InputError
from sact_det.detection.pooler import RegionPooler
from sact_det.execution import EXECUTIONS, set_execution
from sact_det.execution.cpu import library
from sact_det.network.norm import TF_EPSILON
from sact_det.tasks import load_config

CONFIG = Path(__file__).parents[2] / "configs/tests/tiny.yaml"
BY_ROWS = ("perforated", "auto", "graphs") if library.why_unavailable() is None else ()


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
def test_poolers_and_convolutions_read_the_rows_that_a_block_leaves(execution: str):
    model = model_with("MODEL.SACT.EXECUTION", execution)
    features = model.backbone(torch.rand(1, 3, 64, 96))
    for name in ("res4", "res4_relu"):
        assert features[name].is_contiguous(memory_format=torch.channels_last) == (execution in BY_ROWS)
        assert execution in BY_ROWS or features[name].is_contiguous()


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


def test_max_pooling_needs_something_that_it_can_halve():
    pool = ("MODEL.SACT.BOX_HEAD_MAX_POOL", "True", "MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIPool")
    cfg = get_cfg()
    add_sact_config(cfg)
    cfg.merge_from_file(str(CONFIG))
    cfg.merge_from_list([*pool])
    for build in (lambda: load_config(str(CONFIG), [*pool]), lambda: build_model(cfg)):
        with pytest.raises(InputError, match=r"BOX_HEAD_MAX_POOL True needs MODEL\.ROI_BOX_HEAD\.POOLER_TYPE ROIAlign"):
            build()
    with pytest.raises(InputError, match=r"BOX_HEAD_MAX_POOL True needs .*POOLER_RESOLUTION 2 or more; got 1"):
        load_config(str(CONFIG), [*pool[:2], "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", "1"])


def literal_unit(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    """A pre-activation unit without stride, layer by layer; norms by moving statistics, with TensorFlow's epsilon."""

    def norm(x: Tensor, layer: str) -> Tensor:
        own = {end: weights[f"{name}.{layer}.{end}"] for end in ("running_mean", "running_var", "weight", "bias")}
        return F.relu(F.batch_norm(x, *own.values(), eps=TF_EPSILON))

    def conv(x: Tensor, layer: str, padding: int = 0) -> Tensor:
        return F.conv2d(x, weights[f"{name}.{layer}.weight"], weights.get(f"{name}.{layer}.bias"), padding=padding)

    preact = norm(x, "preact")
    residual = conv(norm(conv(norm(conv(preact, "conv1"), "norm1"), "conv2", 1), "norm2"), "conv3")
    return residual + (conv(preact, "shortcut") if f"{name}.shortcut.weight" in weights else x)


@torch.no_grad()
@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("kind, aligned", [("ROIAlign", False), ("ROIAlignV2", True)])
def test_max_pooling_before_block_4_is_that_of_the_detection_zoo(kind: str, aligned: bool, execution: str):
    """Crops of 14x14, 2x2 max pooling, block 4 without stride."""
    torch.manual_seed(0)
    keys = ("HALTING", "none", "BOX_HEAD_MAX_POOL", "True", "EXECUTION", execution)
    overrides = [key if index % 2 else f"MODEL.SACT.{key}" for index, key in enumerate(keys)]
    heads = model_with(*overrides, "MODEL.ROI_BOX_HEAD.POOLER_TYPE", kind).roi_heads
    for name, value in heads.res5.state_dict().items():
        if name.endswith(("running_var", "weight")) and value.dim() == 1:
            value.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bias")):
            value.normal_()
    (x,), boxes = [torch.randn(2, 8 * 16, 5, 7)], inputs()[1]
    found = heads._shared_roi_transform([x], boxes)
    regions = F.max_pool2d(roi_align(x, [own.tensor for own in boxes], 14, 1 / 16, 0, aligned), 2)
    weights = heads.res5.state_dict()
    for unit in ("block4.units.0", "block4.units.1"):
        regions = literal_unit(regions, weights, unit)
    norm = [weights[f"postnorm.{end}"] for end in ("running_mean", "running_var", "weight", "bias")]
    expected = F.relu(F.batch_norm(regions, *norm, eps=TF_EPSILON))
    assert found.shape == (4, 8 * 32, 7, 7)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.max()))
