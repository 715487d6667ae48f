"""RoIAlign on rows beside torchvision's, which samples point by point."""

import math

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import ROIAlign
from torch import Tensor
from torchvision.ops import roi_align

from sact_det.detection.pooler import RegionPooler
from sact_det.execution.cpu import library
from sact_det.execution.cpu.roi_align import pool_regions, why_not_pooled

pytestmark = [
    pytest.mark.skipif(library.why_unavailable() is not None, reason=str(library.why_unavailable())),
    pytest.mark.usefixtures("threads"),
]

SIZE = 9, 14  # of the map; an image of 144 x 224 pixels at stride 16
SCALE = 1 / 16
ODD_BOXES = {
    "of zero area": (50.0, 40.0, 50.0, 40.0),
    "of zero width": (50.0, 40.0, 50.0, 90.0),
    "beyond the image": (500.0, 300.0, 700.0, 420.0),
    "before the image": (-200.0, -100.0, -40.0, -50.0),
    "across every border": (-100.0, -100.0, 400.0, 300.0),
    "along the borders": (0.0, 0.0, 224.0, 144.0),
    "on the last pixels": (208.0, 128.0, 232.0, 152.0),
    "a pixel wide": (33.0, 35.0, 34.0, 36.0),
    "huge": (-3000.0, -2000.0, 3000.0, 2500.0),
    "of whole bins": (8.0, 8.0, 8.0 + 16 * 7, 8.0 + 16 * 14),
    "reversed": (150.0, 100.0, 20.0, 30.0),
}


def boxes_at_random(number: int, images: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(number, 2, 2, generator=generator) * torch.tensor([260.0, 180.0]) - 18
    low, high = corners.amin(1), corners.amax(1)
    return torch.cat([torch.randint(images, (number, 1), generator=generator).float(), low, high], 1)


def features_at_random(images: int = 2, channels: int = 20, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.randn(images, channels, *size, generator=torch.Generator().manual_seed(1))


def pooler(
    bins: tuple[int, int] = (7, 7),
    scale: float = SCALE,
    ratio: int = 0,
    aligned: bool = True,
    max_pool: bool = False,
    step: int = 1,
) -> RegionPooler:
    return RegionPooler(ROIAlign(bins, scale, ratio, aligned), max_pool, step)


def check(pooler: RegionPooler, x: Tensor, boxes: Tensor, exact: torch.dtype = torch.float64) -> None:
    """Compares regions, and the gradient of a random weighting of them.

    torchvision's gradients are computed in the type `exact`: it adds samples up one by one, too many for float32.
    """
    leaf, exact_leaf = (y.detach().requires_grad_() for y in (x, x.to(exact)))
    assert why_not_pooled(leaf, boxes) is None
    pooled = pool_regions(pooler, leaf, boxes)
    assert pooled.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(pooled, pooler.compute(x, boxes), rtol=1e-5, atol=1e-5)
    weights = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(2))
    (gradient,) = torch.autograd.grad(pooled, leaf, weights)
    (expected,) = torch.autograd.grad(pooler.compute(exact_leaf, boxes), exact_leaf, weights.to(exact))
    torch.testing.assert_close(gradient, expected.float(), rtol=1e-5, atol=1e-5 * max(1.0, float(expected.abs().max())))


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 1, 2, 3, 20])
@pytest.mark.parametrize("output", [(14, 14), (7, 5), (1, 1)])
def test_regions_and_gradients_are_those_of_torchvision(output: tuple[int, int], ratio: int, aligned: bool):
    check(pooler(output, ratio=ratio, aligned=aligned), features_at_random(), boxes_at_random(20, 2))


@pytest.mark.parametrize("channels", [20, 300])
@pytest.mark.parametrize("bins", [(14, 14), (7, 5), (2, 3)])
def test_regions_halved_by_max_pooling(bins: tuple[int, int], channels: int):
    """The last row and column of an odd number of bins are in no window."""
    halves, x, boxes = pooler(bins, max_pool=True), features_at_random(2, channels), boxes_at_random(20, 2)
    check(halves, x, boxes)
    expected = F.max_pool2d(roi_align(x, boxes, bins, SCALE, 0, True), 2)
    with torch.no_grad():
        pooled = pool_regions(halves, x, boxes)
    assert pooled.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(pooled, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(halves.compute(x, boxes), expected)


@pytest.mark.parametrize("step", [2, 3])
@pytest.mark.parametrize("bins", [(14, 14), (7, 5), (1, 2)])
def test_every_other_bin_alone(bins: tuple[int, int], step: int):
    """What a strided 1x1 convolution reads of regions, with its gradient."""
    some, x, boxes = pooler(bins, step=step), features_at_random(2, 300), boxes_at_random(20, 2)
    check(some, x, boxes)
    expected = roi_align(x, boxes, bins, SCALE, 0, True)[..., ::step, ::step]
    with torch.no_grad():
        pooled = pool_regions(some, x, boxes)
        assert torch.equal(pooled[:3], pool_regions(some, x, boxes[:3]))
    assert pooled.shape[2:] == expected.shape[2:] == some.output_size
    torch.testing.assert_close(pooled, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(some.compute(x, boxes), expected)
    with pytest.raises(ValueError, match="`max_pool` needs at least 2x2 bins and `step` 1"):
        pooler((4, 4), max_pool=True, step=step)


@torch.no_grad()
def test_max_pooling_of_few_regions_and_of_16_bits_is_that_of_many():
    halves, x, boxes = pooler((6, 6), max_pool=True), features_at_random().bfloat16(), boxes_at_random(40, 2)
    every = pool_regions(halves, x, boxes)
    assert every.dtype == torch.bfloat16
    assert torch.equal(every, F.max_pool2d(pool_regions(pooler((6, 6)), x, boxes), 2))
    assert torch.equal(every[:3], pool_regions(halves, x, boxes[:3]))
    x[0, :, 0, 0] = float("nan")
    assert pool_regions(halves, x, torch.tensor([[0.0, 0, 0, 60, 60]]))[0, :, 0, 0].isnan().all()


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("box", ODD_BOXES.values(), ids=ODD_BOXES)
def test_odd_boxes(box: tuple[float, ...], ratio: int, aligned: bool):
    check(pooler(ratio=ratio, aligned=aligned), features_at_random(1), torch.tensor([[0.0, *box]]))


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize(
    "box", [(20.0, 100.0, 150.0, 30.0), (0.0, 0.0, math.inf, math.inf), (math.nan,) * 4, (1e30,) * 4]
)
def test_boxes_that_torchvision_cannot_pool_have_finite_regions(box: tuple[float, ...], ratio: int):
    pooled = pool_regions(pooler(ratio=ratio), features_at_random(1), torch.tensor([[0.0, *box]]))
    assert pooled.shape == (1, 20, 7, 7) and pooled.isfinite().all()


@pytest.mark.parametrize("scale", [1 / 16, 0.07, 1 / 3])
def test_bins_of_a_whole_number_of_samples_keep_it_at_any_scale(scale: float):
    """How many samples a bin has jumps where a bin spans whole pixels."""
    sides = torch.arange(1, 13) * 7 / scale
    boxes = torch.stack([torch.zeros(12), torch.full((12,), 3.0), torch.full((12,), 5.0), 3 + sides, 5 + sides], 1)
    check(pooler(scale=scale), features_at_random(1, 8, (60, 80)), boxes, torch.float32)


@pytest.mark.parametrize("channels", [1, 3, 17, 64, 259])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), SIZE])
def test_any_map(channels: int, size: tuple[int, int]):
    check(pooler(), features_at_random(2, channels, size), boxes_at_random(5, 2))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: torch.cat([x, x], 1)[:, ::2],
        lambda x: x[:1].expand(2, -1, -1, -1),
    ],
)
def test_any_memory_format(change):
    check(pooler(), change(features_at_random()), boxes_at_random(6, 2))


@pytest.mark.parametrize("images", [1, 2])
def test_no_regions(images: int):
    x = features_at_random(images).requires_grad_()
    pooled = pool_regions(pooler(), x, torch.zeros(0, 5))
    assert pooled.shape == (0, 20, 7, 7)
    assert not torch.autograd.grad(pooled.sum(), x)[0].any()


def test_threads_do_not_change_a_bit():
    x, boxes = features_at_random(3, 150), boxes_at_random(30, 3)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        leaf = x.clone().requires_grad_()
        pooled = pool_regions(pooler(), leaf, boxes)
        found.append((pooled, *torch.autograd.grad(pooled.square().sum(), leaf)))
    for other in found[1:]:
        assert all(map(torch.equal, other, found[0]))


def test_the_gradient_is_the_derivative():
    """The regions are linear in the features: <pooled(v), g> = <v, gradient of g>, for any v."""
    x, boxes = features_at_random().requires_grad_(), boxes_at_random(20, 2)
    pooled = pool_regions(pooler(), x, boxes)
    g, v = torch.randn_like(pooled), torch.randn_like(x)
    (gradient,) = torch.autograd.grad(pooled, x, g)
    with torch.no_grad():
        along = pool_regions(pooler(), v, boxes)
    torch.testing.assert_close((along.double() * g).sum(), (v.double() * gradient).sum(), rtol=1e-5, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels", [16, 37])
def test_features_of_16_bits_are_summed_in_32_and_rounded_once(dtype: torch.dtype, channels: int):
    x, boxes = features_at_random(channels=channels).to(dtype), boxes_at_random(20, 2)
    pooled = pool_regions(pooler(), x, boxes)
    assert pooled.dtype == dtype
    expected = roi_align(x.float(), boxes, (7, 7), SCALE, 0, True)
    half_a_step = torch.finfo(dtype).eps / 2
    torch.testing.assert_close(pooled.float(), expected, rtol=1.01 * half_a_step, atol=1e-6)
    torch.testing.assert_close(pooler().compute(x, boxes).float(), expected, rtol=1.01 * half_a_step, atol=1e-6)


@pytest.mark.parametrize(
    "x, why",
    [
        (torch.ones(1, 2, 3, 4, dtype=torch.float64), "float32"),
        (torch.ones(1, 2, 3, 4, dtype=torch.bfloat16, requires_grad=True), "gradients in float32 only"),
        (torch.ones(1, 2, 3), r"maps \[N, C, H, W\]"),
        (torch.ones(1, 2, 0, 4), r"maps \[N, C, H, W\]"),
        (torch.ones(1, 2, 3, 4, device="meta"), "not for meta"),
        (torch.ones(1, 2, 3, 4).to_sparse(), "plain tensors"),
    ],
)
def test_what_kernels_cannot_pool_is_left_to_torchvision(x: Tensor, why: str):
    with pytest.raises(AssertionError, match=why):
        reason = why_not_pooled(x, torch.zeros(1, 5))
        raise AssertionError(reason)
