"""The run of a block on a CPU in inference: float32, all units in rows (rows.cpp).

The state keeps a row per position and is updated in place; positions that have halted are not touched again. With
r_l = 1 - sum_{j<l} p^j, the share of a position's output that is still open before unit l,

    sum_l p^l x^l = x^1 + sum_{l>1} r_l f^l(x^(l-1)),

so that the output is updated where the residual f^l is at hand. The global mean of the halting branches follows from
running sums of the residuals.

Shape shorthand in this module:
    N: images; C: channels; H, W: feature map, padding included; P = N * H * W.
"""

import ctypes
import math
from typing import Optional

import torch
from torch import Tensor

from sact_det.block import AdaptiveBlock, HaltingBranch, ResidualUnit, Run
from sact_det.halting_branch import ImageHalting, SpatialHalting, linear
from sact_det.norm import depends_on_batch
from sact_det.perforated.cpu import library
from sact_det.perforated.cpu.conditions import why_not_here
from sact_det.perforated.cpu.packed import PackedUnit, pack_block
from sact_det.perforated.cpu.workspace import workspace
from sact_det.resnet_v2 import BottleneckUnit


def why_not_rows(block: AdaptiveBlock, x: Tensor) -> Optional[str]:
    """Why a RowsRun cannot evaluate the block at x, or None if it can."""
    if block.training and block.halting != "none":
        return "they are for inference"
    for unit in block.units:
        if type(unit) is not BottleneckUnit:
            return f"there are none for {type(unit).__name__}"
        if any(map(depends_on_batch, (unit.preact, unit.norm1, unit.norm2))):
            return "norms that learn from the batch need PyTorch"
        branch = unit.halting
        if isinstance(branch, SpatialHalting):
            if branch.activate is not linear:
                return "there are none for halting branches with an activation"
            if any(map(depends_on_batch, (branch.local_norm, branch.global_norm))):
                return "norms that learn from the batch need PyTorch"
    return why_not_here(block, x)


class RowsRun(Run):
    """See the head of this module.

    Args:
        block: its first unit is evaluated here.
        x: input of the block, [N, C, H, W].
        valid_in, valid: bool [N, 1, ., .] at input and output resolution, False at padding; None: no padding.
    """

    def __init__(self, block: AdaptiveBlock, x: Tensor, valid_in: Optional[Tensor], valid: Optional[Tensor]):
        self._library = library.load_library()
        self._threads = torch.get_num_threads()
        self._packed = block.weight_cache.get(block, pack_block)
        packed = self._packed.units[block.units[0]]
        stride, channels = packed.struct.stride, packed.struct.out_channels
        self._shape = (len(x), -(-x.shape[2] // stride), -(-x.shape[3] // stride))
        self._positions = math.prod(self._shape)
        self._padded = valid is not None
        self._exists = torch.ones(self._shape, dtype=torch.bool) if valid is None else valid[:, 0].contiguous()
        self._counts = self._exists.sum((1, 2))
        self._actives, self._reads = self._lists(self._exists, self._exists)

        adaptive = block.halting != "none"
        make = torch.zeros if self._padded else torch.empty
        # The first unit writes the output, which is the state, too. From the second one on, the positions that are
        # evaluated, `moved`, have a state of their own; no row is ever copied. A plain block has nothing but its state.
        self._output = self._state = make(self._positions, channels)
        self._moved: Optional[Tensor] = None
        self._remaining = torch.ones(self._shape)
        self._sums = torch.zeros(self._threads, len(x), channels, dtype=torch.float64) if adaptive else None

        size = (x.shape[2], x.shape[3])
        reads = self._reads
        if size != self._shape[1:]:
            exists = torch.ones(len(x), *size, dtype=torch.bool) if valid_in is None else valid_in[:, 0].contiguous()
            reads = self._lists(exists, exists)[0]
        rows = x.permute(0, 2, 3, 1).contiguous()
        shortcut = None if packed.struct.projects else rows
        self._evaluate(packed, rows, size, reads, shortcut, None)

    def _lists(self, active: Tensor, exists: Tensor) -> tuple[Tensor, Tensor]:
        """The active positions, and those a 3x3 convolution reads there: int64, ascending."""
        actives, reads = torch.empty(2, active.numel(), dtype=torch.int64)
        count = ctypes.c_int64()
        around = self._library.list_positions(
            active.data_ptr(), exists.data_ptr(), *active.shape, actives.data_ptr(), count, reads.data_ptr()
        )
        return actives[: count.value], reads[:around]

    def _evaluate(
        self,
        packed: PackedUnit,
        x: Tensor,
        size: tuple[int, ...],
        reads: Tensor,
        shortcut: Optional[Tensor],
        output: Optional[Tensor],
    ) -> None:
        number, height, width = self._shape
        inner = workspace.take("inner", number * math.prod(size) + 1, packed.inner_size)
        (inner if self._padded else inner[-1]).zero_()
        scratch = workspace.take("scratch", self._threads, packed.scratch_size)
        evaluation = library.Evaluation(
            images=number,
            in_height=size[0],
            in_width=size[1],
            out_height=height,
            out_width=width,
            x=x.data_ptr(),
            inner=inner.data_ptr(),
            reads=reads.data_ptr(),
            num_reads=len(reads),
            writes=self._actives.data_ptr(),
            num_writes=len(self._actives),
            shortcut=_address(shortcut),
            state=self._state.data_ptr(),
            output=_address(output),
            moved=_address(self._moved),
            remaining=self._remaining.data_ptr(),
            sums=_address(self._sums),
            scratch=scratch.data_ptr(),
        )
        self._library.evaluate_unit(packed.struct, evaluation, self._threads)
        workspace.give_back("inner", inner)
        workspace.give_back("scratch", scratch)

    def evaluate(self, unit: ResidualUnit, active: Optional[Tensor]) -> None:
        """See Run; `active` only ever shrinks."""
        x, size = self._state, self._shape[1:]
        if active is None:
            self._evaluate(self._packed.units[unit], x, size, self._reads, x, None)
            return
        active = active & self._exists
        self._actives, self._reads = self._lists(active, self._exists)
        if x is self._output:
            self._state = workspace.take("state", *x.shape)
        self._evaluate(self._packed.units[unit], x, size, self._reads, x, self._output)
        if self._moved is None:
            self._moved = active

    def scores(self, branch: HaltingBranch) -> Tensor:
        """See Run."""
        assert self._sums is not None
        if isinstance(branch, ImageHalting):
            pooled = (self._sums.sum(0) / self._counts[:, None]).float()
            return branch.scores(pooled[:, :, None, None])[:, None, None]
        packed = self._packed.branches[branch]
        number, height, width = self._shape
        products = workspace.take("products", self._positions, packed.products_size)
        if self._padded:
            products.zero_()
        image_logits, scores = torch.empty(number), torch.zeros(self._shape)
        scoring = library.Scoring(
            images=number,
            height=height,
            width=width,
            state=self._state.data_ptr(),
            unmoved=self._output.data_ptr(),
            moved=_address(self._moved),
            reads=self._reads.data_ptr(),
            num_reads=len(self._reads),
            actives=self._actives.data_ptr(),
            num_actives=len(self._actives),
            sums=self._sums.data_ptr(),
            sum_parts=self._threads,
            counts=self._counts.data_ptr(),
            products=products.data_ptr(),
            image_logits=image_logits.data_ptr(),
            scores=scores.data_ptr(),
        )
        self._library.evaluate_halting(packed.struct, scoring, self._threads)
        workspace.give_back("products", products)
        return scores

    def add(self, weight: Tensor) -> None:
        """See Run."""
        self._remaining -= weight

    def result(self) -> Tensor:
        """See Run."""
        if self._state is not self._output:
            workspace.give_back("state", self._state)
        return self._output.view(*self._shape, -1).permute(0, 3, 1, 2)


def _address(tensor: Optional[Tensor]) -> Optional[int]:
    return None if tensor is None else tensor.data_ptr()
