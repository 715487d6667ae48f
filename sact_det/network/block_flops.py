"""FLOPs of a block by the paper's rule (sact_det/rule/flops.py): sums of prices times numbers of positions.

What units and halting branches say of themselves is linear in these numbers. Asked for each unit of every image, they
would take longer to answer on a GPU than the units to be evaluated; a block asks them once.
"""

from itertools import groupby
from typing import NamedTuple, Sequence

import torch
from torch import Tensor

from sact_det.network.unit import ResidualUnit, SplitUnit
from sact_det.rule.process import HaltingOutcome


class _Dense(NamedTuple):
    """FLOPs by position of an image at input and output resolution, and by image."""

    dense_in: int
    dense_out: int
    image: int = 0

    def plus(self, other: "_Dense", times: int = 1) -> "_Dense":
        return _Dense(*(own + times * more for own, more in zip(self, other)))

    def of(self, dense_in: Tensor, dense_out: Tensor) -> Tensor:
        """Of images with so many positions, int64 [N]."""
        total = self.dense_in * dense_in + self.dense_out * dense_out
        return total + self.image if self.image else total


class _Active(NamedTuple):
    """FLOPs by active position, by position of their dilation, and by image that has an active one."""

    evaluated: int
    dilated: int
    images: int

    def of(self, evaluated: Tensor, dilated: Tensor) -> Tensor:
        """Of images with so many positions, int64 [N]."""
        return self.evaluated * evaluated + self.dilated * dilated + self.images * (evaluated > 0)


class BlockFlops:
    """What the units of a block and their halting branches cost.

    Args:
        units: of the block.

    Shape shorthand:
        dense_in, dense_out: int64 [N], positions of each image at input and output resolution.
        reads_products: as of PlannedBlock.
    """

    def __init__(self, units: Sequence[ResidualUnit]):
        first = units[0]
        self._first = _Dense(first.flops(1, 0), first.flops(0, 1))
        self._products = _Dense(0, 0)
        if isinstance(first, SplitUnit):
            self._products = _Dense(first.product_flops(1, 0), first.product_flops(0, 1))
        self._plain = _Dense(0, sum(unit.flops(1, 1) for unit in units[1:]))
        self._idle = _Dense(0, 0)  # units behind the first, and branches, that nothing evaluates
        self._active: list[_Active] = []
        for index, unit in enumerate(units):
            evaluated = dilated = images = 0
            if index > 0:
                self._idle = self._idle.plus(_Dense(0, unit.flops(1, 1, 0, 0)))
                evaluated, dilated = unit.flops(0, 0, 1, 0), unit.flops(0, 0, 0, 1)
            if unit.halting is not None:
                idle = unit.halting.flops(0, 0)
                self._idle = self._idle.plus(_Dense(0, 0, idle))
                evaluated += unit.halting.flops(1, 0) - idle
                images = unit.halting.flops(0, 1) - idle
            self._active.append(_Active(evaluated, dilated, images))
        self._evaluated, self._dilated, self._images = map(_spans, zip(*self._active))

    def _dense(self, reads_products: bool) -> _Dense:
        return self._first.plus(self._products, -1) if reads_products else self._first

    def of(self, dense_in: Tensor, dense_out: Tensor, outcome: HaltingOutcome, reads_products: bool) -> Tensor:
        """int64 [N], of a block whose positions did that; what counts dense does so whatever they did."""
        total = self._dense(reads_products).plus(self._idle).of(dense_in, dense_out)
        for start, stop, price in self._evaluated:
            total = total + price * outcome.evaluated[:, start:stop].sum(1)
        for start, stop, price in self._dilated:
            total = total + price * outcome.dilated[:, start:stop].sum(1)
        for start, stop, price in self._images:
            total = total + price * (outcome.evaluated[:, start:stop] > 0).sum(1)
        return total

    def bounds(self, dense_in: Tensor, dense_out: Tensor, reads_products: bool) -> tuple[Tensor, Tensor]:
        """int64 [N] both: where everything halts behind the first unit, and of the plain block."""
        dense = self._dense(reads_products)
        least = dense.plus(self._idle).of(dense_in, dense_out)
        behind_first = self._active[0].of(dense_out, torch.zeros_like(dense_out))
        return least + behind_first, dense.plus(self._plain).of(dense_in, dense_out)

    def of_unit(self, index: int, evaluated: Tensor, dilated: Tensor) -> Tensor:
        """int64 [N], of a unit behind the first and its branch, beyond what they count where nothing is active.

        Args:
            index: of the unit, counted from 0.
            evaluated, dilated: int64 [N], its active positions and their dilation.
        """
        return self._active[index].of(evaluated, dilated)


def _spans(prices: Sequence[int]) -> list[tuple[int, int, int]]:
    """(start, stop, price) of neighbours with the same price, unless it is 0."""
    groups = [list(group) for _, group in groupby(range(len(prices)), prices.__getitem__)]
    return [(group[0], group[-1] + 1, prices[group[0]]) for group in groups if prices[group[0]]]
