"""The run of a block on a CPU in inference: all units in rows (rows.cpp).

The state keeps a row per position and is updated in place; positions that have halted are not touched again. Let
r_l = 1 - sum_{j<l} p^j be the share of a position's output that is still open before unit l. Then

    sum_l p^l x^l = x^1 + sum_{l>1} r_l f^l(x^(l-1)),

so that a unit adds its residual f^l to the output, too. The global mean of the halting branches follows from running
sums of the residuals.

Features are float32 within a block. Where PyTorch would compute in bfloat16, so do the factors of products if the
processor multiplies that; they are float32 otherwise.

Shape shorthand in this module:
    N: images; C: channels; H, W: feature map, padding included; P = N * H * W.
"""

import math
from typing import Optional

import torch
from torch import Tensor
from typing_extensions import override

from sact_det.base.precision import compute_type, exact_float32
from sact_det.execution.cpu import calls
from sact_det.execution.cpu.buffers import Buffers, lend_rows
from sact_det.execution.cpu.conditions import why_not_here
from sact_det.execution.cpu.halting import RowsHalting
from sact_det.execution.cpu.memory import address, addresses, empty, ones, zeros
from sact_det.execution.cpu.packed import factor_type, pack_block
from sact_det.execution.cpu.positions import list_positions, mask_of_positions
from sact_det.execution.folded import why_not_inference
from sact_det.execution.packing import WeightCache
from sact_det.network.branch import ImageHalting, SpatialHalting
from sact_det.network.convolution import TAPS
from sact_det.network.halting_rule import SACT, HaltingRule
from sact_det.network.plan import PlannedBlock
from sact_det.network.run import Run
from sact_det.network.unit import HaltingBranch, ResidualUnit
from sact_det.rule.padding import Mask, strided_size
from sact_det.rule.process import HaltingProcess


def why_not_rows(block: PlannedBlock, x: Tensor) -> Optional[str]:
    """Why a RowsRun cannot evaluate the block at x, or None if it can."""
    return why_not_inference(block) or why_not_here(block, x, block.reader.weight)


class RowsRun(Run):
    """Evaluates a block in inference, its first unit at construction; active positions may only become fewer.

    Args:
        block: for which why_not_rows(block, x) is None.
        packed: keeps what is packed from its weights.
        x, valid_in, valid, shortcut: as of Plan.start.
    """

    bounded = False

    def __init__(
        self,
        block: PlannedBlock,
        packed: WeightCache,
        x: Tensor,
        valid_in: Mask,
        valid: Mask,
        shortcut: Optional[Tensor] = None,
    ):
        self._kernels = calls.kernels()
        self._threads = torch.get_num_threads()
        self._dtype = compute_type(x)
        self._packed = packed.renew(block, pack_block, factor_type(self._dtype))
        first = block.units[0]
        unit = self._packed.units[first]
        stride, channels = unit.struct.stride, unit.struct.out_channels
        number, size = len(x), (x.shape[2], x.shape[3])
        self._shape = (number, *strided_size(size, stride))
        self._exists = mask_of_positions(valid, self._shape)
        self._counts = self._exists.sum((1, 2))
        positions = math.prod(self._shape)
        self._padded = valid is not None
        self._buffers = Buffers()
        self._scratch_size = 0
        # The first unit writes the output, which is the state, too. From the second one on, the positions that are
        # evaluated, `moved`, have a state of their own; no row is ever copied. A plain block has nothing but its state.
        self._output = self._state = self._rows_of_output(positions, channels)
        self._moved: Optional[Tensor] = None
        self._remaining = ones(*self._shape)
        self._halting: Optional[RowsHalting] = None
        self._sums = None if not block.rule.adaptive else zeros(number, channels, dtype=torch.float64)
        self._scores: Optional[Tensor] = None
        self._image_logits = empty(number)
        # Active positions, and what a 3x3 convolution reads.
        self._lists = empty(positions, dtype=torch.int64), empty(positions, dtype=torch.int64)

        adds_x = shortcut is None and not unit.struct.projects
        as_it_is = x.dtype == torch.bfloat16 and unit.struct.bfloat16 and not adds_x
        rows = self._buffers.rows("input", x, as_it_is)
        added = rows if adds_x else None if shortcut is None else self._buffers.rows("shortcut", shortcut)
        self._evaluation = calls.Evaluation(
            images=number,
            out_height=self._shape[1],
            out_width=self._shape[2],
            sums=address(self._sums, torch.float64),
            **addresses(torch.int64, writes=self._lists[0], counts=self._counts),
            **addresses(state=self._state, remaining=self._remaining, image_logits=self._image_logits),
        )
        self._read_at(size, unit.struct)
        self._list(self._exists)
        around = self._evaluation.num_reads
        if size != self._shape[1:]:
            exists = mask_of_positions(valid_in, (number, *size))
            reads = empty(2, exists.numel(), dtype=torch.int64)
            self._evaluation.reads = address(reads[0], torch.int64)
            self._evaluation.num_reads = list_positions(exists, exists, *reads)[0]
        self._evaluation.x, self._evaluation.x_bfloat16 = address(rows, rows.dtype), as_it_is
        self._evaluation.shortcut = address(added)
        self._evaluate(first)
        if len(block.units) > 1:
            self._read_at(self._shape[1:], self._packed.units[block.units[1]].struct)
            self._evaluation.num_reads, self._evaluation.x_bfloat16 = around, False
            self._evaluation.x = self._evaluation.shortcut = address(self._state)

    def _rows_of_output(self, positions: int, channels: int) -> Tensor:
        if self._dtype != torch.float32:  # a copy becomes the result
            return self._take("output", positions, channels)
        rows = lend_rows(*self._shape, channels).permute(0, 2, 3, 1).view(positions, channels)
        return rows.zero_() if self._padded else rows

    def _take(self, name: str, *shape: int) -> Tensor:
        """A buffer for features, [*shape]."""
        memory = self._buffers.take(name, *shape)
        if self._padded:
            memory.zero_()  # nothing is written where there is no position
        return memory

    def _read_at(self, size: tuple[int, ...], unit: calls.Unit) -> None:
        """Prepares for units like this one that read a map of `size`, (height, width)."""
        to = self._evaluation
        to.in_height, to.in_width = size
        inner = self._take("inner", to.images * math.prod(size) + 1, unit.inner_size)
        inner[-1].zero_()
        to.inner, to.reads = address(inner), address(self._lists[1], torch.int64)

    def _list(self, active: Tensor) -> None:
        """Lists the positions of the coming unit. active: bool [N, H, W]."""
        to = self._evaluation
        to.num_writes, to.num_reads = list_positions(active, self._exists, *self._lists)

    def _evaluate(self, unit: ResidualUnit) -> None:
        to, branch = self._evaluation, None
        self._scores = None
        if isinstance(unit.halting, SpatialHalting):
            branch = self._packed.branch(unit.halting)
            self._scores = zeros(*self._shape)
            to.scores = address(self._scores)
            if to.products is None:
                to.products = address(self._take("products", self._exists.numel(), calls.whole_vectors(TAPS)))
        struct = self._packed.units[unit].struct
        size = self._kernels.scratch_size(struct, to, self._threads)
        if size > self._scratch_size:
            to.scratch, self._scratch_size = self._buffers.room("scratch", size), size
        self._kernels.evaluate_unit(struct, branch, to, self._threads)

    @override
    def start_halting(
        self, rule: HaltingRule, exists: Tensor, num_units: int, eps: float, dtype: torch.dtype
    ) -> HaltingProcess:
        if type(rule) is not SACT:
            return rule.start(exists, num_units, eps, dtype)
        self._halting = RowsHalting(exists.contiguous(), num_units, eps)
        self._remaining = self._halting.remainder
        self._evaluation.remaining = address(self._remaining)
        return self._halting

    @override
    def evaluate(self, unit: ResidualUnit, active: Optional[Tensor]) -> None:
        to = self._evaluation
        if active is None:
            self._evaluate(unit)
            return
        active = active if active.shape == self._shape else active & self._exists
        self._list(active)
        if self._state is self._output:
            self._state = self._take("state", *self._output.shape)
            to.state, to.output = address(self._state), address(self._output)
        self._evaluate(unit)
        if self._moved is None:
            self._moved = active.clone(memory_format=torch.contiguous_format)
            to.x, to.shortcut, to.moved = to.state, to.state, address(self._moved, torch.bool)

    @override
    def scores(self, branch: HaltingBranch) -> Tensor:
        assert self._sums is not None
        if isinstance(branch, ImageHalting):
            pooled = (self._sums / self._counts[:, None]).float()
            with exact_float32("cpu"):
                return branch.scores(pooled[:, :, None, None])[:, None, None]
        assert self._scores is not None
        return self._scores

    @override
    def add(self, weight: Tensor) -> None:
        if self._halting is None:  # else `_remaining` is its remainder
            self._remaining -= weight

    @override
    def result(self) -> Tensor:
        output = self._output.view(*self._shape, self._output.shape[1]).permute(0, 3, 1, 2).to(self._dtype)
        self._buffers.give_back()
        return output
