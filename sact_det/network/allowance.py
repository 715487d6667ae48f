"""Deals the FLOPs that an image may take out to the blocks of its network.

Shape shorthand in this module:
    N: images.
"""

from typing import Callable, Optional, Sequence

import torch
from torch import Tensor

from sact_det.base.errors import InputError
from sact_det.base.recording import is_recording
from sact_det.network.block import AdaptiveBlock
from sact_det.rule.padding import Sizes, strided_size, strided_sizes
from sact_det.rule.ponder import BlockPonder

RunBlock = Callable[[AdaptiveBlock, Tensor, Optional[Sizes]], tuple[Tensor, BlockPonder]]


class Allowance:
    """What blocks may take, so that a network takes no more than a share of the plain one's FLOPs.

    Every block gets what its first unit needs, and of the rest as much as its part of what all blocks could still
    take; what a block leaves, those behind it share.

    Args:
        share: in (0, 1], of the FLOPs of the plain network: blocks and `dense_flops`.
        blocks: in their order.
        dense_flops: int64 [N], of what is computed everywhere.
        size: (height, width) of the first block's input.
        sizes: (height, width) of each image's own part of it, or None.

    Raises:
        InputError: an image's first units alone take more.
    """

    def __init__(
        self,
        share: float,
        blocks: Sequence[AdaptiveBlock],
        dense_flops: Tensor,
        size: tuple[int, int],
        sizes: Optional[Sizes] = None,
    ):
        self._bounds: list[tuple[Tensor, Tensor]] = []
        for block in blocks:
            self._bounds.append(block.flops_bounds(size, sizes, len(dense_flops), dense_flops.device))
            stride = block.units[0].stride
            size, sizes = strided_size(size, stride), strided_sizes(sizes, stride)
        least, plain = (dense_flops + torch.stack(values).sum(0) for values in zip(*self._bounds))
        self._left = (share * plain.double()).floor().long() - least
        if not is_recording() and bool((self._left < 0).any()):
            needed = float((least.double() / plain).max())
            raise InputError(
                f"MODEL.SACT.FLOPS_LIMIT {share:g} cannot be kept: the first units of all blocks, which run "
                f"everywhere, take {needed:.4f} of the plain network's FLOPs"
            )

    def run(self, block: AdaptiveBlock, x: Tensor, sizes: Optional[Sizes]) -> tuple[Tensor, BlockPonder]:
        """What the next block makes of x within its part; arguments and result as of AdaptiveBlock.forward."""
        room = [(plain - least).clamp(min=0).double() for least, plain in self._bounds]
        part = room[0] / torch.stack(room).sum(0).clamp(min=1)
        least, _ = self._bounds.pop(0)
        given = torch.minimum((self._left * part).floor().long(), self._left) if self._bounds else self._left
        x, ponder = block(x, sizes, allowance=least + given)
        self._left = self._left - (ponder.flops - least)
        return x, ponder


def blocks_within(
    share: Optional[float],
    blocks: Sequence[AdaptiveBlock],
    dense_flops: Tensor,
    size: tuple[int, int],
    sizes: Optional[Sizes] = None,
) -> RunBlock:
    """What runs blocks one after the other: AdaptiveBlock.forward, within a share of the FLOPs if there is one.

    Args: as of Allowance; without a share, None, nothing is limited.
    """
    if share is None:
        return lambda block, x, sizes: block(x, sizes)
    return Allowance(share, blocks, dense_flops, size, sizes).run
