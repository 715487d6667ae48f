"""RoIAlign on a CPU, from rows to rows, in inference and in training (roi_align.cpp)."""

from typing import Any, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sact_det.execution.cpu.buffers import Buffers, lend_rows
from sact_det.execution.cpu.calls import Regions, kernels
from sact_det.execution.cpu.conditions import why_not_plain
from sact_det.execution.cpu.memory import address, empty, plain
from sact_det.network.plan import PlannedPooler

_TYPES = (torch.float32, torch.bfloat16, torch.float16)


def why_not_pooled(x: Tensor, boxes: Tensor) -> Optional[str]:
    """Why the kernels cannot pool regions of the feature map x, or None if they can."""
    if x.device.type != "cpu" or boxes.device.type != "cpu":
        return f"they are for CPUs, not for {x.device.type}"
    if x.dtype not in _TYPES or (x.dtype != torch.float32 and x.requires_grad and torch.is_grad_enabled()):
        return "they pool in float32 and in 16 bits, with gradients in float32 only"
    if x.dim() != 4 or 0 in x.shape:
        return f"they read maps [N, C, H, W], not {list(x.shape)}"
    return why_not_plain(x) or why_not_plain(boxes)


def pool_regions(pooler: PlannedPooler, x: Tensor, boxes: Tensor) -> Tensor:
    """The regions of PlannedPooler.compute, channels last; for x and boxes for which why_not_pooled is None."""
    narrow = x.dtype == torch.float16 or (x.dtype == torch.bfloat16 and not kernels().has_bfloat16())
    features, boxes = x.float() if narrow else x, plain(boxes.float())
    if torch.is_grad_enabled() and x.requires_grad:
        pooled: Tensor = _Pool.apply(features, boxes, pooler)
        return F.max_pool2d(pooled, 2) if pooler.max_pool else pooled
    return _pool(pooler, features, boxes, pooler.max_pool).to(x.dtype)


def why_not_pooled_by_level(maps: Sequence[Tensor], boxes: Tensor) -> Optional[str]:
    """Why the kernels cannot pool regions of several maps into one tensor, or None if they can."""
    if any(x.dtype != torch.float32 or (x.requires_grad and torch.is_grad_enabled()) for x in maps):
        return "they pool several maps in float32, without gradients"
    return next(filter(None, (why_not_pooled(x, boxes) for x in maps)), None)


def pool_regions_by_level(
    poolers: Sequence[PlannedPooler], maps: Sequence[Tensor], boxes: Tensor, levels: Tensor
) -> Tensor:
    """The regions of Plan.pool_levels, channels last; for what why_not_pooled_by_level is None for."""
    boxes = plain(boxes.float())
    pooled = lend_rows(len(boxes), *poolers[0].output_size, maps[0].shape[1])
    members = [(levels == level).nonzero()[:, 0] for level in range(len(maps))]
    if sum(map(len, members)) < len(boxes):
        pooled.zero_()
    for pooler, x, own in zip(poolers, maps, members):
        _pool_into(pooled, pooler, x, boxes[own], pooler.max_pool, own)
    return pooled


def _pool(pooler: PlannedPooler, x: Tensor, boxes: Tensor, max_pool: bool) -> Tensor:
    """The regions, halved or not; x is float32 or, where the processor multiplies it, bfloat16."""
    size = pooler.output_size if max_pool or not pooler.max_pool else pooler.bins
    pooled = lend_rows(len(boxes), *size, x.shape[1], dtype=x.dtype)
    _pool_into(pooled, pooler, x, boxes, max_pool)
    return pooled


def _pool_into(
    pooled: Tensor,
    pooler: PlannedPooler,
    x: Tensor,
    boxes: Tensor,
    max_pool: bool,
    targets: Optional[Tensor] = None,
) -> None:
    """Writes the regions, one behind the other or, int64 [R], at their targets."""
    rows = plain(x.permute(0, 2, 3, 1))
    with Buffers() as buffers:
        regions = _regions(pooler, x.shape, boxes, buffers, max_pool)
        regions.targets = address(targets, torch.int64)
        kernels().roi_align(
            regions,
            address(rows, x.dtype),
            address(pooled, x.dtype, strided=True),
            x.dtype == torch.bfloat16,
            torch.get_num_threads(),
        )


class _Pool(torch.autograd.Function):
    """RoIAlign without max pooling; only the features have a gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, boxes: Tensor, pooler: PlannedPooler) -> Tensor:
        ctx.save_for_backward(boxes)
        ctx.pooler, ctx.shape = pooler, x.shape
        return _pool(pooler, x, boxes, max_pool=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_pooled: Tensor) -> tuple[Optional[Tensor], ...]:
        (boxes,) = ctx.saved_tensors
        grad_rows = plain(grad_pooled.permute(0, 2, 3, 1))
        grad_x = empty(*ctx.shape, memory_format=torch.channels_last)
        with Buffers() as buffers:
            kernels().roi_align_backward(
                _regions(ctx.pooler, ctx.shape, boxes, buffers),
                address(grad_rows),
                address(grad_x, strided=True),
                torch.get_num_threads(),
            )
        return grad_x, None, None


def _regions(
    pooler: PlannedPooler, shape: torch.Size, boxes: Tensor, buffers: Buffers, max_pool: bool = False
) -> Regions:
    images, channels, height, width = shape
    regions = Regions(
        *(images, height, width, channels),
        *(len(boxes), *pooler.bins, max_pool, pooler.step),
        *(max(pooler.sampling_ratio, 0), pooler.aligned, pooler.spatial_scale),
        address(boxes),
    )
    size = kernels().roi_align_scratch_size(regions)
    regions.scratch = buffers.room("regions", torch.get_num_threads(), size)
    return regions
