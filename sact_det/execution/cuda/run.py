"""The run of a block on an NVIDIA GPU in inference: the units behind the first in rows (unit_kernels.py).

As on a CPU (sact_det/execution/cpu/run.py), the state keeps a row per position and is updated in place, and so is the
output, a sum of residuals. Nothing waits for the device: lists of positions are made there, and their lengths stay
there. PyTorch evaluates the first unit of a block.

Shape shorthand in this module:
    N: images; C: channels; H, W: feature map, padding included; P = N * H * W; w: bottleneck width.
"""

import math
import os
from functools import lru_cache
from typing import TYPE_CHECKING, Optional

import torch
from torch import Tensor
from typing_extensions import override

from sact_det.base.precision import compute_type, convolution_precision, exact_float32
from sact_det.execution.cuda.measured import dense_from
from sact_det.execution.cuda.packed import DTYPES, pack_block
from sact_det.execution.cuda.unit import (
    Residual,
    bucket_of,
    launch_dense_unit,
    launch_unit,
    new_workspace,
    sums_size,
)
from sact_det.execution.folded import FoldedUnit, keeps_shape, why_not_inference
from sact_det.execution.packing import WeightCache
from sact_det.network.branch import ImageHalting
from sact_det.network.convolution import TAPS
from sact_det.network.halting_rule import SACT, HaltingRule
from sact_det.network.plan import PlannedBlock
from sact_det.network.run import TensorRun
from sact_det.network.unit import HaltingBranch, ResidualUnit
from sact_det.rule.padding import Mask
from sact_det.rule.process import HaltingProcess

if TYPE_CHECKING:  # Triton may be missing
    from sact_det.execution.cuda.halting import TritonHalting
    from sact_det.execution.cuda.position_lists import PositionLists

MIN_TRITON = (3, 4)  # the first whose autotuner keeps its choices
MAX_POSITIONS = 2**30  # positions are int32


def why_not_triton(block: PlannedBlock, x: Tensor) -> Optional[str]:
    """Why a TritonRun cannot evaluate the block at x, or None if it can."""
    reason = why_no_triton(x.device) or why_not_inference(block)
    if reason is not None:
        return reason
    if x.dtype not in DTYPES or compute_type(x) not in DTYPES:
        return f"they compute in float32, float16 and bfloat16, not in {compute_type(x)}"
    if torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in block.parameters())):
        return "they carry no gradients"
    if not 0 < len(x) * x.shape[2] * x.shape[3] <= MAX_POSITIONS:
        return f"they take 1 to {MAX_POSITIONS} positions; got a map {list(x.shape)}"
    if not all(keeps_shape(unit) for unit in block.units[1:]):
        return "there are none for units behind the first that change the shape or are dilated"
    return None


@lru_cache(maxsize=None)
def why_no_triton(device: torch.device) -> Optional[str]:
    """Why Triton kernels cannot run on a device, or None."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if device.type != "cuda" and not (interpreted and device.type == "cpu"):
        return f"they are for NVIDIA GPUs, not for {device.type}"
    try:
        import triton
    except ImportError:
        return "Triton is not installed"
    if tuple(map(int, triton.__version__.split(".")[:2])) < MIN_TRITON:
        return f"they need Triton {'.'.join(map(str, MIN_TRITON))} or later, not {triton.__version__}"
    if interpreted:
        return None
    if torch.version.hip is not None:
        return "they are for NVIDIA GPUs, not for AMD's"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return f"they need compute capability 8.0; {torch.cuda.get_device_name(device)} has less"
    return None


def known_share(block: PlannedBlock) -> float:
    """The share of positions that evaluates every unit, where the host knows it: 1 if nothing can halt; else 0."""
    shifts = (unit.halting.shift for unit in block.units if unit.halting is not None)
    return float(not block.rule.adaptive or all(isinstance(shift, float) and shift == -math.inf for shift in shifts))


class TritonRun(TensorRun):
    """Evaluates a block in inference, its first unit at construction; active positions may only become fewer.

    Args:
        block: for which why_not_triton(block, x) is None.
        packed: keeps what is packed from its weights.
        x, valid_in, valid, shortcut: as of Plan.start.
    """

    bounded = True

    def __init__(
        self,
        block: PlannedBlock,
        packed: WeightCache,
        x: Tensor,
        valid_in: Mask,
        valid: Mask,
        shortcut: Optional[Tensor] = None,
    ):
        from sact_det.execution.cuda import score_kernels  # late: Triton may be missing

        self._score_kernels = score_kernels
        x = block.evaluate_first(x.contiguous(memory_format=torch.channels_last), valid_in, valid, shortcut)
        number, channels, height, width = x.shape
        self._shape = (number, height, width)
        self._exists = None if valid is None else valid[:, 0].contiguous()
        self._dtype = compute_type(x)
        self._packed = packed.get(block, pack_block, self._dtype)
        rows = (x if valid is None else x * valid).permute(0, 2, 3, 1)
        self._state = rows.reshape(-1, channels).contiguous()
        self._dense = known_share(block) >= dense_from(x.device, self._dtype, channels, len(self._state))
        self._lists = self._new_lists()
        self._workspace = new_workspace(x.device)
        self._listed = False
        self._buffers: dict[str, Tensor] = {}
        self._output: Optional[Tensor] = None
        self._halting: Optional["TritonHalting"] = None
        self._unsummed = False  # whether conv3_kernel has left partial sums that `_sums` does not have yet
        if not block.rule.adaptive:
            return
        self._output = self._state.to(torch.float32, copy=True)
        self._remaining = self._output.new_ones(self._shape)
        self._sums = self._output.view(number, -1, channels).sum(1)
        if self._exists is None:
            self._counts = self._output.new_full((number,), height * width)
        else:
            self._counts = self._exists.flatten(1).sum(1).clamp(min=1).float()  # a batch may be filled up

    def _new_lists(self) -> "PositionLists":
        from sact_det.execution.cuda.position_lists import PositionLists  # late: Triton may be missing

        return PositionLists(self._exists, self._shape, self._state.device)

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A buffer that all units use, of this shape; zero at padding."""
        buffer = self._buffers.get(name)
        if buffer is None or buffer.shape != shape:
            make = torch.empty if self._exists is None else torch.zeros
            buffer = self._buffers[name] = make(shape, dtype=dtype, device=self._state.device)
        return buffer

    @override
    def evaluate(self, unit: ResidualUnit, active: Optional[Tensor]) -> None:
        packed = self._packed.units[unit]
        with torch.cuda.device_of(self._state):
            if self._unsummed:
                self._add_sums()
            self._tune(packed)
            if self._halting is None and (active is not None or not self._listed):
                self._lists.fill(active)
                self._listed = True
            self._launch(packed, self._lists, self._state, self._output)
            self._unsummed = self._output is not None

    def _tune(self, packed: FoldedUnit) -> None:
        """Lets the kernels choose their tiles before the first unit of its kind: at all positions, on copies.

        The positions that happen to be active then would make a poor measurement.
        """
        kind: tuple[object, ...] = (self._state.device, self._state.dtype, self._output is None, self._dense)
        kind += (bucket_of(len(self._state), self._state.device), packed.conv3.dtype, packed.conv3.shape)
        kind += (convolution_precision(),)
        if self._score_kernels.INTERPRETED or kind in _TUNED:
            return
        everywhere = self._new_lists()
        everywhere.fill(None)
        self._launch(packed, everywhere, self._state.clone(), None if self._output is None else self._output.clone())
        _TUNED.add(kind)

    def _launch(self, packed: FoldedUnit, lists: "PositionLists", state: Tensor, output: Optional[Tensor]) -> None:
        """Evaluates a unit at the listed positions."""
        residual = None if output is None else Residual(output, self._remaining, *self._partial_sums())
        if self._dense:
            launch_dense_unit(packed, lists, state, residual)
            return
        size = (len(state), len(packed.conv1))
        inner, middle = (self._buffer(name, size, self._dtype) for name in ("inner", "middle"))
        launch_unit(packed, lists, state, inner, middle, residual, self._workspace)

    def _add_sums(self) -> None:
        """Adds what the last unit has changed to `_sums`; taps_kernel does the same on its way."""
        kernels, channels = self._score_kernels, self._state.shape[1]
        block_t, block_c = kernels.SUM_BLOCK
        kernels.sums_kernel[(self._sum_programs(),)](
            *(self._sums, *self._partial_sums(), self._lists.offsets),
            **{"C": channels, "BLOCK_T": block_t, "BLOCK_C": block_c},
        )
        self._unsummed = False

    def _sum_programs(self) -> int:
        return self._shape[0] * -(-self._state.shape[1] // self._score_kernels.SUM_BLOCK[1])

    def _partial_sums(self) -> tuple[Tensor, Tensor]:
        """What conv3_kernel calls partial_sums and tile_rows."""
        (size, channels), number = self._state.shape, self._shape[0]
        sums = self._buffer("sums", (sums_size(size, number), channels), torch.float32)
        return sums, self._buffer("tile_rows", (1,), torch.int32)

    @override
    def scores(self, branch: HaltingBranch) -> Tensor:
        if isinstance(branch, ImageHalting):
            if self._unsummed:
                self._add_sums()
            pooled = (self._sums / self._counts[:, None])[:, :, None, None]
            with exact_float32(self._state.device):
                return branch.scores(pooled)[:, None, None]
        kernels, lists, packed = self._score_kernels, self._lists, self._packed.branches[branch]
        added = float(branch.added(packed.price_weight))
        (size, channels), (number, height, width) = self._state.shape, self._shape
        products = self._buffer("products", (TAPS, size), torch.float32)
        scores = self._buffer("scores", self._shape, torch.float32)
        (block_m, block_k), (block_t, block_c), block = kernels.PRODUCT_BLOCK, kernels.SUM_BLOCK, kernels.SCORE_BLOCK
        sum_programs = self._sum_programs() if self._unsummed else 0
        with torch.cuda.device_of(self._state):  # Triton launches on the current device
            if not self._listed:  # behind the first unit
                self._lists.fill(None)
                self._listed = True
            kernels.taps_kernel[(sum_programs + -(-size // block_m),)](
                *(self._state, packed.taps, packed.bias, products, lists.reads, lists.num_reads, size),
                *(self._sums, *self._partial_sums(), lists.offsets, sum_programs),
                **{"C": channels, "BLOCK_M": block_m, "BLOCK_K": block_k, "BLOCK_T": block_t, "BLOCK_C": block_c},
            )
            self._unsummed = False
            kernels.scores_kernel[(number * -(-height * width // block),)](
                *(products, self._sums, self._counts, packed.mean_weights, packed.constant, added),
                *(lists.mask, lists.exists, scores, size, height, width, *lists.mask.stride()),
                **{"C": channels, "BLOCK": block, "BLOCK_C": kernels.CHANNEL_BLOCK},
            )
        return scores

    @override
    def start_halting(
        self, rule: HaltingRule, exists: Tensor, num_units: int, eps: float, dtype: torch.dtype
    ) -> HaltingProcess:
        if type(rule) is not SACT:
            return super().start_halting(rule, exists, num_units, eps, dtype)
        from sact_det.execution.cuda.halting import TritonHalting  # late: Triton may be missing

        with torch.cuda.device_of(self._state):
            self._halting = TritonHalting(self._lists, exists, num_units, eps)
        self._listed, self._remaining = True, self._halting.remainder
        return self._halting

    @override
    def add(self, weight: Tensor) -> None:
        if self._halting is None:  # else `_remaining` is its remainder
            self._remaining.sub_(weight)

    @override
    def result(self) -> Tensor:
        rows = self._state if self._output is None else self._output.to(self._state.dtype)
        return rows.view(*self._shape, -1).permute(0, 3, 1, 2)


_TUNED: set[tuple] = set()  # kinds of units whose tiles have been chosen
