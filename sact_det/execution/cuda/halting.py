"""The halting process of SACT on a GPU: all of a unit's arithmetic, and the counts of what comes next, in one kernel.

Shape shorthand in this module:
    N: images; H, W: feature map, padding included; P = N * H * W; L: residual units of the block.
"""

from typing import Optional

import torch
import triton
import triton.language as tl
from torch import Tensor
from typing_extensions import override

from sact_det.execution.cuda.position_lists import PositionLists
from sact_det.rule.process import HaltingOutcome, HaltingProcess


@triton.jit
def _sums_of(scores, cumulative, position, active, mask, LAST: tl.constexpr):
    """h^l and c behind the unit."""
    before = tl.load(cumulative + position, mask=mask, other=0.0)
    own = tl.full(before.shape, 1.0, tl.float32)
    if not LAST:
        own = tl.load(scores + position, mask=mask, other=0.0)
    return own, tl.where(active, before + own, before)


@triton.jit(do_not_specialize=["height", "width", "tiles_per_image", "tiles", "image_stride"])
def halting_kernel(
    scores,  # float32 [P]; not used if LAST
    cumulative,  # float32 [P], before
    active,  # uint8 [P], before
    exists,  # uint8 [P], or None
    next_cumulative,  # float32 [P], after
    next_active,  # uint8 [P], after
    remainder,  # float32 [P]
    ponder_cost,  # float32 [P]
    num_units,  # int64 [P]
    distribution,  # float32, p^l; images lie image_stride apart
    tile_counts,  # int32 [2, tiles], of next_active; not used if LAST
    threshold,
    image_stride,
    height,
    width,
    tiles_per_image,
    tiles,
    LAST: tl.constexpr,  # h^L = 1, and no unit comes after it
    BLOCK: tl.constexpr,
):
    """Lines 18-34 of algorithm 2 for one unit, operation by operation those of sact_det/rule/halting.py.

    What comes next is counted here, where a neighbour's flag may not have been written yet: it is computed again.
    """
    tile = tl.program_id(0)
    image = tile // tiles_per_image
    within = (tile % tiles_per_image) * BLOCK + tl.arange(0, BLOCK)
    on_map = within < height * width
    position = image * height * width + within
    evaluated = tl.load(active + position, mask=on_map, other=0) != 0
    own, after = _sums_of(scores, cumulative, position, evaluated, on_map, LAST)
    halts = evaluated & (after >= threshold)
    goes_on = evaluated & ~halts
    rest = tl.load(remainder + position, mask=on_map, other=0.0)
    spent = tl.where(halts, rest, 0.0)
    p = distribution + image.to(tl.int64) * image_stride + within
    tl.store(p, tl.where(goes_on, own, spent), mask=on_map)
    tl.store(remainder + position, tl.where(goes_on, rest - own, rest), mask=on_map)
    cost = tl.load(ponder_cost + position, mask=on_map, other=0.0)
    tl.store(ponder_cost + position, cost + evaluated.to(tl.float32) + spent, mask=on_map)
    units = tl.load(num_units + position, mask=on_map, other=0)
    tl.store(num_units + position, units + evaluated.to(tl.int64), mask=on_map)
    if not LAST:
        tl.store(next_cumulative + position, after, mask=on_map)
        tl.store(next_active + position, goes_on.to(tl.uint8), mask=on_map)
        y, x = within // width, within % width
        near = goes_on
        for tap in tl.static_range(9):
            if tap != 4:
                dy, dx = tap // 3 - 1, tap % 3 - 1
                inside = on_map & (y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width)
                beside = position + dy * width + dx
                there = tl.load(active + beside, mask=inside, other=0) != 0
                _, sums = _sums_of(scores, cumulative, beside, there, inside, False)
                near = near | (there & ~(sums >= threshold))
        if exists is not None:
            near = near & (tl.load(exists + position, mask=on_map, other=0) != 0)
        tl.store(tile_counts + tile, tl.sum(goes_on.to(tl.int32), 0))
        tl.store(tile_counts + tiles + tile, tl.sum((on_map & near).to(tl.int32), 0))


class TritonHalting(HaltingProcess):
    """The process of TensorHalting for SACT in float32, without gradients; the bits are the same.

    A step is two launches, the second of which lists what comes next. All memory is taken at the start.

    Args:
        lists: are kept filled with what evaluates the next unit.
        exists, num_units, eps: as of TensorHalting.

    Attributes:
        remainder: R so far, float32 [N, H, W]; where a position goes on, the share of its output that is open.
    """

    def __init__(self, lists: PositionLists, exists: Tensor, num_units: int, eps: float):
        number, height, width = shape = exists.shape
        self._lists = lists
        self._threshold = 1.0 - eps
        real = torch.zeros(number * (3 + num_units), height, width, device=exists.device)
        *self._cumulative, self._ponder_cost = real[: 3 * number].view(3, *shape)
        self._distribution = real[3 * number :].view(number, num_units, height, width)
        self.remainder = torch.ones_like(self._ponder_cost)
        self._units = torch.zeros_like(exists, dtype=torch.int64)
        first = exists.clone(memory_format=torch.contiguous_format)
        self._active = [first, torch.empty_like(first)]
        self._masks = [mask.view(torch.uint8) for mask in self._active]
        self._counts = lists.new_counts(num_units).zero_()
        # Views are made here: they cost the host as much as a launch.
        self._weights, self._counts_of = self._distribution.unbind(1), self._counts.unbind(0)
        self._image_stride = num_units * height * width
        self._unit = 0
        lists.fill(first, self._counts_of[0])

    @property
    @override
    def active(self) -> Tensor:
        return self._active[self._unit % 2]

    @override
    def any_active(self) -> bool:
        return bool(self.active.any())

    @override
    def step(self, h: Optional[Tensor]) -> Tensor:
        lists, unit = self._lists, self._unit
        now, then, last = unit % 2, (unit + 1) % 2, h is None
        h = self.remainder if h is None else h.contiguous()
        counts = self._counts_of[unit if last else unit + 1]
        with torch.cuda.device_of(h):  # Triton launches on the current device
            halting_kernel[(lists.tiles,)](
                *(h, self._cumulative[now], self._masks[now], lists.exists),
                *(self._cumulative[then], self._masks[then]),
                *(self.remainder, self._ponder_cost, self._units, self._weights[unit], counts),
                *(self._threshold, self._image_stride, *lists.sizes),
                **{"LAST": last, "BLOCK": lists.block},
            )
            if not last:
                lists.fill_counted(self._masks[then], counts)
        self._unit += 1
        return self._weights[unit]

    @override
    def outcome(self) -> HaltingOutcome:
        tiles = self._counts.view(len(self._weights), 2, len(self.remainder), -1)
        evaluated, dilated = tiles.sum(-1).permute(1, 2, 0)
        return HaltingOutcome(self._ponder_cost, self._units, self._distribution, evaluated, dilated)
