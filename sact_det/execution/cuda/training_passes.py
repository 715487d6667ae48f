"""The passes of a unit in training, launch by launch.

Products have the type of autocast; outputs, sums and their gradients are float32. So are states and their gradients,
unless they are to have the type of autocast, too.

Shape shorthand in this module:
    N: images; C: channels; w: bottleneck width; H, W: feature map, padding included; P = N * H * W.
"""

from dataclasses import dataclass
from typing import Hashable, Optional, Sequence

import torch
from torch import Tensor

from sact_det.execution.cuda import gradient_kernels, tiles, training_kernels
from sact_det.execution.cuda.position_lists import PositionLists
from sact_det.execution.cuda.score_kernels import SUM_BLOCK, sums_kernel
from sact_det.execution.cuda.unit import (
    Residual,
    Workspace,
    bucket_of,
    grid_over,
    launch_unit,
    product_precision,
    sums_size,
)
from sact_det.execution.folded import FoldedUnit
from sact_det.network.convolution import TAPS

Affine = tuple[Tensor, Tensor]

ROWS, COLUMNS = 32, 32  # of a tile of the kernels that are no products
# Programs with which any GPU is busy, and positions of a part into which a sum over them is cut for it.
PROGRAMS, LEAST_ROWS = (4, 16) if tiles.INTERPRETED else (256, 256)


def splits_of(positions: int, programs: int) -> int:
    """Into how many parts a sum over positions is cut, where the tiles of its result are so many programs."""
    return max(1, min(-(-PROGRAMS // programs), positions // LEAST_ROWS))


@dataclass(frozen=True, eq=False)
class UnitCall:
    """What the passes of a unit and its halting branch read beside tensors with gradients.

    Attributes:
        lists: where the unit is evaluated.
        active: uint8 [N, H, W], the same as a mask.
        norms: scale and shift of the three norms, float32; None for a branch.
        dtype: of the products.
        workspace: of the run.
        squares: float64 [C] or None; the growth of the sums of the state's squares is added to it.
    """

    lists: PositionLists
    active: Tensor
    norms: tuple[Affine, ...]
    dtype: torch.dtype
    workspace: Workspace
    squares: Optional[Tensor] = None

    def rows(self, channels: int, dtype: torch.dtype) -> Tensor:
        """Memory for rows [P, channels], zero at padding."""
        make = torch.empty if self.lists.exists is None else torch.zeros
        return make(self.active.numel(), channels, dtype=dtype, device=self.active.device)

    def fold(self, conv1: Tensor, conv2: Tensor, conv3: Tensor, bias3: Tensor) -> FoldedUnit:
        """The unit's parameters as the kernels read them."""
        (scale, shift), (scale1, shift1), (scale2, shift2) = self.norms
        width, depth = conv1.shape[:2]
        folded1 = torch.empty(width, depth, dtype=self.dtype, device=conv1.device)
        folded2 = torch.empty(width, 3, 3, width, dtype=self.dtype, device=conv1.device)
        torch.mul(conv1.flatten(1), scale1[:, None], out=folded1)
        torch.mul(conv2.permute(0, 2, 3, 1), scale2[:, None, None, None], out=folded2)
        weights = {"conv1": folded1, "conv2": folded2, "conv3": conv3.flatten(1).to(self.dtype).contiguous()}
        biases = {"bias1": shift1, "bias2": shift2, "bias3": bias3.contiguous()}
        return FoldedUnit(**weights, **biases, scale=scale, shift=shift, projects=False, stride=1, dilation=1)


def launch_forward(
    call: UnitCall,
    folded: FoldedUnit,
    before: Tensor,
    after: Tensor,
    inner: Tensor,
    middle: Tensor,
    out: Tensor,
    remaining: Tensor,
) -> Tensor:
    """The forward pass of a unit; returns what its residual adds to the sums, [N, C]."""
    lists, (size, channels), number = call.lists, before.shape, len(call.active)
    programs = -(-size // ROWS) * -(-channels // COLUMNS)
    blocks = {"C": channels, "BLOCK_M": ROWS, "BLOCK_C": COLUMNS}
    training_kernels.copy_kernel[(programs,)](before, after, lists.reads, lists.num_reads, **blocks)
    partial = out.new_empty(sums_size(size, number), channels)
    residual = Residual(out, remaining, partial, lists.offsets.new_empty(1))
    launch_unit(folded, lists, after, inner, middle, residual, call.workspace)
    added = out.new_zeros(number, channels)
    block_t, block_c = SUM_BLOCK
    sums_kernel[(number * -(-channels // block_c),)](
        added, partial, residual.tile_rows, lists.offsets, C=channels, BLOCK_T=block_t, BLOCK_C=block_c
    )
    if call.squares is not None:
        grown = out.new_empty(-(-size // ROWS), channels)
        training_kernels.squares_kernel[(programs,)](before, after, grown, lists.writes, lists.num_writes, **blocks)
        call.squares.add_(grown.sum(0, dtype=torch.float64))
    return added


class UnitGradients:
    """The backward pass of a unit, product by product, each from what the one before has left.

    Args:
        call: where and how.
        before, inner, middle: what the forward pass has read and left, in rows.
        weights: folded, of the three convolutions.
    """

    def __init__(self, call: UnitCall, before: Tensor, inner: Tensor, middle: Tensor, weights: Sequence[Tensor]):
        self._call, self._before, self._inner, self._middle, self._weights = call, before, inner, middle, weights
        self._lists, (self._size, self._channels), self._width = call.lists, before.shape, inner.shape[1]
        self._writes = (self._lists.writes, self._lists.num_writes)
        self._reads = (self._lists.reads, self._lists.num_reads)
        self._bucket, self._map = bucket_of(self._size, before.device), self._lists.sizes[:2]
        self._workspace = call.workspace
        self._grid = grid_over(self._size, self._workspace.multiprocessors)
        precision = product_precision(call.dtype)
        self._constants = {"PRECISION": precision, "BLOCK_K": tiles.block_depth(inner.element_size())}

    def of_residual(
        self,
        grad_state: Optional[Tensor],
        grad_output: Optional[Tensor],
        grad_sums: Optional[Tensor],
        remaining: Tensor,
        after: Tensor,
        grad_remaining: Optional[Tensor],
        wants_bias: bool,
    ) -> Optional[Tensor]:
        """From the gradients of what it is added to; writes that of the open shares, returns that of the bias."""
        self._grad_residual = self._inner.new_empty(self._size, self._channels)
        programs = -(-self._size // ROWS)
        partial = remaining.new_empty(programs, self._channels) if wants_bias else None
        gradient_kernels.residual_gradient_kernel[(programs,)](
            *(grad_state, grad_output, None if grad_sums is None else grad_sums.contiguous()),
            *(remaining, self._before, after, self._grad_residual, grad_remaining, partial),
            *(*self._writes, self._map[0] * self._map[1]),
            **{"C": self._channels, "BLOCK_M": ROWS, "BLOCK_C": COLUMNS},
        )
        return None if partial is None else partial.sum(0)

    def of_middle(self) -> None:
        """Through conv3, where the unit was evaluated."""
        self._grad_middle = torch.empty_like(self._inner)
        gradient_kernels.middle_gradient_kernel[self._grid](
            *(self._grad_residual, self._weights[2], self._middle, self._grad_middle),
            *(*self._writes, *self._workspace, self._bucket),
            **{"DEPTH": self._channels, "COLUMNS": self._width, **self._constants},
        )

    def of_inner(self) -> None:
        """Through conv2, where it was read."""
        self._grad_inner = torch.empty_like(self._inner)
        gradient_kernels.inner_gradient_kernel[self._grid](
            *(self._grad_middle, self._call.active, self._weights[1], self._inner, self._grad_inner),
            *(*self._reads, *self._workspace, self._bucket, *self._map),
            **{"DEPTH": self._width, "COLUMNS": self._width, **self._constants},
        )

    def of_state(self, grad_state: Tensor) -> None:
        """Through conv1 and the first norm, added to what there is."""
        gradient_kernels.state_gradient_kernel[grid_over(self._size)](
            *(self._grad_inner, self._weights[0], self._before, *self._call.norms[0], grad_state),
            *(*self._reads, self._bucket),
            **{"DEPTH": self._width, "COLUMNS": self._channels, **self._constants},
        )

    def of_conv3(self) -> Tensor:
        """[C, w, 1, 1]."""
        return self._of_weight(3, self._grad_residual, self._middle, self._writes)[:, 0, :, None, None]

    def of_conv2(self) -> Tensor:
        """[w, w, 3, 3]."""
        total = self._of_weight(2, self._grad_middle, self._inner, self._writes)
        total.mul_(self._call.norms[2][0][:, None, None])
        return total.view(self._width, 3, 3, self._width).permute(0, 3, 1, 2)

    def of_conv1(self) -> Tensor:
        """[w, C, 1, 1]."""
        total = self._of_weight(1, self._grad_inner, self._before, self._reads)
        return total.mul_(self._call.norms[1][0][:, None, None])[:, 0, :, None, None]

    def _of_weight(self, conv: int, left: Tensor, right: Tensor, listed: tuple[Tensor, Tensor]) -> Tensor:
        """[outputs, taps, inputs]."""
        depth, columns, taps = left.shape[1], right.shape[1], TAPS if conv == 2 else 1
        largest = tiles.WEIGHT_TILES[-1]  # nominal: the number of parts must not depend on what was measured
        splits = splits_of(self._size, taps * -(-depth // largest.rows) * -(-columns // largest.columns))
        partial = self._call.norms[0][0].new_empty(splits, depth, taps, columns)

        def grid(constants: dict[str, int]) -> tuple[int]:
            rows, blocks = -(-depth // constants["BLOCK_M"]), -(-columns // constants["BLOCK_N"])
            return (rows * blocks * taps * splits,)

        gradient_kernels.weight_gradient_kernel[grid](
            *(left, right, *self._call.norms[0], partial, *listed, self._bucket, *self._map),
            **{"CONV": conv, "SPLITS": splits, "DEPTH": depth, "COLUMNS": columns, **self._constants},
        )
        return partial.sum(0)


def _kind(call: UnitCall, rows: Tensor, conv1: Tensor) -> Hashable:
    precision = product_precision(call.dtype)
    return rows.device, rows.dtype, bucket_of(len(rows), rows.device), conv1.shape, call.dtype, precision


def is_tuned(call: UnitCall, rows: Tensor, conv1: Tensor) -> bool:
    """Whether the products of such a unit, in rows [P, C], have chosen their tiles; interpreted, there is no choice."""
    return tiles.INTERPRETED or _kind(call, rows, conv1) in _TUNED


@torch.no_grad()
def tune(call: UnitCall, rows: Tensor, weights: Sequence[Tensor]) -> None:
    """Lets them choose: both passes of a unit where it is called, on copies.

    Args:
        call: where and how.
        rows: [P, C], what the unit may read.
        weights: parameters as of UnitCall.fold.
    """
    conv1, conv2, conv3, bias3 = weights
    with torch.cuda.device_of(rows):
        folded = call.fold(conv1, conv2, conv3, bias3)
        after, gradient, out = torch.empty_like(rows), torch.zeros_like(rows), rows.to(torch.float32, copy=True)
        remaining = torch.ones(call.active.shape, device=rows.device)
        inner, middle = (call.rows(len(conv1), call.dtype) for _ in range(2))
        launch_forward(call, folded, rows, after, inner, middle, out, remaining)
        gradients = UnitGradients(call, rows, inner, middle, (folded.conv1, folded.conv2, folded.conv3))
        gradients.of_residual(gradient, out, None, remaining, after, None, wants_bias=True)
        gradients.of_conv3()
        gradients.of_middle()
        gradients.of_conv2()
        gradients.of_inner()
        gradients.of_conv1()
        gradients.of_state(gradient)
    _TUNED.add(_kind(call, rows, conv1))


_TUNED: set[Hashable] = set()  # kinds of units whose tiles have been chosen
