"""Which positions a residual unit has to read, and where their neighbours are.

Positions are numbered over a whole batch, row by row: n * H * W + y * W + x. "Rows" are the features of a set of
positions, [positions, C].
"""

from functools import cached_property
from typing import Optional

import torch
from torch import Tensor

from sact_det.rule.flops import dilate


class ActiveSet:
    """The active positions of a batch, and the rings around them that 3x3 convolutions read.

    Ring 0 is the active positions; ring r holds what r 3x3 convolutions in a row read to compute ring 0, without what
    lies beyond the image. Every ring is sorted and contains the one before.

    Args:
        active: bool [N, H, W].
        valid: bool [N, H, W], False at padding, or None.
        rings: how many rings beyond ring 0.

    Attributes:
        rings: int64 [positions] each.
    """

    def __init__(self, active: Tensor, valid: Optional[Tensor], rings: int):
        self.shape = active.shape
        masks = [active]
        for _ in range(rings):
            wider = dilate(masks[-1])
            masks.append(wider if valid is None else wider & valid)
        self.rings = [mask.flatten().nonzero()[:, 0] for mask in masks]

    @cached_property
    def images(self) -> Tensor:
        """int64 [active positions]: the index of each one's image."""
        return self.rings[0] // (self.shape[1] * self.shape[2])

    @cached_property
    def _tables(self) -> list[Tensor]:
        """For every ring, [N * (H + 2) * (W + 2)]: a position's index in the ring, or the ring's size beyond it."""
        return [self._table(ring) for ring in self.rings]

    def _padded(self, positions: Tensor) -> Tensor:
        """The numbers of positions in a grid with a border of one position around every image."""
        _, height, width = self.shape
        row = positions // width
        return positions + 2 * row + (row // height) * 2 * (width + 2) + width + 3

    def _table(self, ring: Tensor) -> Tensor:
        number, height, width = self.shape
        table = ring.new_full((number * (height + 2) * (width + 2),), len(ring))
        table[self._padded(ring)] = torch.arange(len(ring), device=ring.device)
        return table

    def index_in(self, inner: int, outer: int) -> Tensor:
        """int64: the index in ring `outer` of every position of ring `inner`."""
        return self._tables[outer][self._padded(self.rings[inner])]

    def index_of(self, positions: Tensor, ring: int) -> Tensor:
        """int64: the index of positions in a ring that contains all of them."""
        return self._tables[ring][self._padded(positions)]

    def neighbours(self, ring: int) -> Tensor:
        """Where the 3x3 neighbours of the positions of a ring stand in the next ring.

        Returns:
            int64 [positions, TAPS], in the order of a convolution's taps; the next ring's size beyond the image.
        """
        width = self.shape[2] + 2
        steps = torch.arange(-1, 2, device=self.rings[0].device)
        offsets = (steps[:, None] * width + steps).flatten()
        return self._tables[ring + 1][self._padded(self.rings[ring])[:, None] + offsets]
