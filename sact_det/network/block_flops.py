"""FLOPs of a block by the paper's rule (sact_det/rule/flops.py): sums of prices times numbers of positions.

What units and halting branches say of themselves is linear in these numbers. Asked for each unit of every image, they
would take longer to answer on a GPU than the units to be evaluated; a block asks them once.
"""

from typing import NamedTuple, Sequence, Union

import torch
from torch import Tensor, nn

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

    evaluated: Union[int, Tensor]
    dilated: Union[int, Tensor]
    images: Union[int, Tensor]

    def of(self, evaluated: Tensor, dilated: Tensor) -> Tensor:
        """Of so many positions of images; prices and numbers may be those of several units, int64 [L] and [N, L]."""
        return self.evaluated * evaluated + self.dilated * dilated + self.images * (evaluated > 0)


class BlockFlops(nn.Module):
    """What the units of a block and their halting branches cost; it keeps no units.

    Args:
        units: of the block.

    Attributes:
        evaluated, dilated, images: int64 [L], buffers in no state dict: of each unit and its branch, as of _Active.

    Shape shorthand:
        dense_in, dense_out: int64 [N], positions of each image at input and output resolution.
        reads_products: as of PlannedBlock.
    """

    evaluated: Tensor
    dilated: Tensor
    images: Tensor

    def __init__(self, units: Sequence[ResidualUnit]):
        super().__init__()
        first = units[0]
        others = _Dense(0, 0)  # units behind the first, as in a plain block
        passed_over = _Dense(0, 0)  # they and all branches, where nothing is active
        self._active: list[_Active] = []
        for index, unit in enumerate(units):
            evaluated = dilated = images = 0
            if index > 0:
                others = others.plus(_Dense(0, unit.flops(1, 1)))
                passed_over = passed_over.plus(_Dense(0, unit.flops(1, 1, 0, 0)))
                evaluated, dilated = unit.flops(0, 0, 1, 0), unit.flops(0, 0, 0, 1)
            if unit.halting is not None:
                idle = unit.halting.flops(0, 0)
                passed_over = passed_over.plus(_Dense(0, 0, idle))
                evaluated += unit.halting.flops(1, 0) - idle
                images = unit.halting.flops(0, 1) - idle
            self._active.append(_Active(evaluated, dilated, images))
        for name, prices in zip(_Active._fields, zip(*self._active)):
            self.register_buffer(name, torch.tensor(prices, dtype=torch.int64), persistent=False)
        whole, products = _Dense(first.flops(1, 0), first.flops(0, 1)), _Dense(0, 0)
        if isinstance(first, SplitUnit):
            products = _Dense(first.product_flops(1, 0), first.product_flops(0, 1))
        own = {False: whole, True: whole.plus(products, -1)}  # of the first unit, by reads_products
        self._plain = {reads: dense.plus(others) for reads, dense in own.items()}
        self._idle = {reads: dense.plus(passed_over) for reads, dense in own.items()}

    def of(self, dense_in: Tensor, dense_out: Tensor, outcome: HaltingOutcome, reads_products: bool) -> Tensor:
        """int64 [N], of a block whose positions did that; what counts dense does so whatever they did."""
        by_unit = _Active(self.evaluated, self.dilated, self.images).of(outcome.evaluated, outcome.dilated)
        return self._idle[reads_products].of(dense_in, dense_out) + by_unit.sum(1)

    def bounds(self, dense_in: Tensor, dense_out: Tensor, reads_products: bool) -> tuple[Tensor, Tensor]:
        """int64 [N] both: where everything halts behind the first unit, and of the plain block."""
        least = self._idle[reads_products].of(dense_in, dense_out)
        behind_first = self._active[0].of(dense_out, torch.zeros_like(dense_out))
        return least + behind_first, self._plain[reads_products].of(dense_in, dense_out)

    def of_unit(self, index: int, evaluated: Tensor, dilated: Tensor) -> Tensor:
        """int64 [N], of a unit behind the first and its branch, beyond what they count where nothing is active.

        Args:
            index: of the unit, counted from 0.
            evaluated, dilated: int64 [N], its active positions and their dilation.
        """
        return self._active[index].of(evaluated, dilated)
