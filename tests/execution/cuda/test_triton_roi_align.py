"""RoIAlign in Triton gives torchvision's regions: interpreted on the CPU where there is no GPU."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from sact_det.execution.cuda.roi_align import pool_by_triton, why_not_pooled_by_triton

pytest.importorskip("triton", reason="Triton is not installed: there is none for this platform")
pytestmark = pytest.mark.usefixtures("no_overflow_checks")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass
class Pooler:
    """What a plan sees of one."""

    bins: tuple[int, int] = (2, 3)
    max_pool: bool = False
    step: int = 1
    spatial_scale: float = 1 / 16
    sampling_ratio: int = 0
    aligned: bool = True

    @property
    def output_size(self) -> tuple[int, int]:
        height, width = self.bins
        divisor = 2 if self.max_pool else self.step
        return (height // 2, width // 2) if self.max_pool else (-(-height // divisor), -(-width // divisor))

    def expected(self, x: Tensor, boxes: Tensor) -> Tensor:
        regions = roi_align(x, boxes, self.bins, self.spatial_scale, self.sampling_ratio, self.aligned)
        return F.max_pool2d(regions, 2) if self.max_pool else regions[..., :: self.step, :: self.step]


def features_and_boxes(channels: int = 6) -> tuple[Tensor, Tensor]:
    """Boxes within the map, over its border, around it, beside it, of no size and turned round."""
    x = torch.randn(2, channels, 5, 7, generator=torch.Generator().manual_seed(0))
    boxes = [[0, 3, 4, 60, 70], [1, 0, 0, 111, 79], [0, 50, 30, 52, 33], [1, -9, 20, 200, 66], [0, -90, -90, -40, -30]]
    boxes += [[1, 20, 20, 20, 20], [0, 60, 50, 30, 20], [0, 100, 70, 140, 100]]
    return x.to(DEVICE), torch.tensor(boxes, dtype=torch.float32, device=DEVICE)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"aligned": False},
        {"sampling_ratio": 2},
        {"max_pool": True, "bins": (2, 5)},
        {"step": 2, "bins": (3, 3), "aligned": False},
    ],
)
def test_regions_are_torchvisions(fields: dict):
    pooler, (x, boxes) = Pooler(**fields), features_and_boxes()
    found = pool_by_triton(pooler, x, boxes)
    torch.testing.assert_close(found, pooler.expected(x, boxes), rtol=1e-5, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_features_of_16_bits_are_summed_in_float32():
    pooler, (x, boxes) = Pooler(), features_and_boxes()
    found = pool_by_triton(pooler, x.half(), boxes)
    assert found.dtype == torch.float16
    torch.testing.assert_close(found, pooler.expected(x.half().float(), boxes).half(), rtol=1e-3, atol=1e-3)


def test_what_it_cannot_pool_is_named():
    x, boxes = features_and_boxes()
    assert why_not_pooled_by_triton(x, boxes) is None
    assert "float64" in why_not_pooled_by_triton(x.double(), boxes)
    assert "no gradients" in why_not_pooled_by_triton(x.requires_grad_(), boxes)
    assert pool_by_triton(Pooler(), x.detach(), boxes[:0]).shape == (0, 6, 2, 3)
