"""The run of a block on an NVIDIA GPU in training: units behind the first in kernels, forward and backward.

PyTorch evaluates the first unit, which no position leaves out. For its backward pass a unit keeps the state that it
read and the rectified outputs of conv1 and conv2, in memory for the whole map of which only what it touches is written:
the host reads no length of a list. Each unit leaves a state of its own, written where it has read, since there the
branch behind it and the next unit read. Products have the type of autocast; the rest is float32, but for states and
their gradients where they are to take half of the memory.

Shape shorthand in this module:
    N: images; C: channels; H, W: feature map, padding included; P = N * H * W.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Optional

import torch
from torch import Tensor
from typing_extensions import override

from sact_det.base.precision import compute_type
from sact_det.execution.cuda.packed import DTYPES
from sact_det.execution.cuda.run import MAX_POSITIONS, why_no_triton
from sact_det.execution.cuda.unit import new_workspace
from sact_det.execution.packing import WeightCache
from sact_det.execution.training import RowsTrainingRun, fixed_affine, why_not_trained
from sact_det.network.branch import learn_from_positions
from sact_det.network.plan import PlannedBlock
from sact_det.network.resnet_v2 import BottleneckUnit
from sact_det.network.unit import ResidualUnit
from sact_det.rule.padding import Mask

if TYPE_CHECKING:  # Triton may be missing
    from sact_det.execution.cuda.training_passes import UnitCall


def why_not_triton_training(block: PlannedBlock, x: Tensor) -> Optional[str]:
    """Why a TritonTrainingRun cannot evaluate the block at x, or None if it can."""
    reason = why_no_triton(x.device) or why_not_trained(block, block.units[1:])
    if reason is not None:
        return reason
    if x.dtype not in DTYPES or compute_type(x) not in DTYPES:
        return f"they compute in float32, float16 and bfloat16, not in {compute_type(x)}"
    if any(p.dtype != torch.float32 or p.device != x.device for unit in block.units for p in unit.parameters()):
        return "in training they read float32 weights on the device of the features"
    if not 0 < len(x) * x.shape[2] * x.shape[3] <= MAX_POSITIONS:
        return f"they take 1 to {MAX_POSITIONS} positions; got a map {list(x.shape)}"
    return None


class TritonTrainingRun(RowsTrainingRun):
    """Evaluates a block in training, its first unit at construction; active positions may only become fewer.

    Args:
        block: for which why_not_triton_training(block, x) is None.
        packed: keeps what is made of its frozen norms.
        x, valid_in, valid, shortcut: as of Plan.start.
        half_states: whether states have the type of autocast, as in dense execution, where it is on.
    """

    def __init__(
        self,
        block: PlannedBlock,
        packed: WeightCache,
        x: Tensor,
        valid_in: Mask,
        valid: Mask,
        shortcut: Optional[Tensor] = None,
        half_states: bool = False,
    ):
        from sact_det.execution.cuda import (  # late: Triton may be missing
            position_lists,
            training_functions,
            training_passes,
        )

        self._functions, self._passes = training_functions, training_passes
        self._lists_of = position_lists.PositionLists
        self._cache, self._type, self._workspace = packed, compute_type(x), new_workspace(x.device)
        x = block.evaluate_first(x.contiguous(memory_format=torch.channels_last), valid_in, valid, shortcut)
        number, channels, height, width = x.shape
        self._features_type = x.dtype
        self._exists = None if valid is None else valid[:, 0].contiguous()
        self._remaining = torch.ones(number, height, width, device=x.device)
        self._counts = self._remaining.sum((1, 2))[:, None]
        if self._exists is not None:
            self._counts = self._exists.sum((1, 2)).clamp(min=1).float()[:, None]
        self._out = torch.empty(x.shape, device=x.device, memory_format=torch.channels_last)
        with torch.no_grad():
            self._out.copy_(x if valid is None else x * valid)
            rows = self._out.permute(0, 2, 3, 1).reshape(-1, channels)
            self._rows = rows.to(self._type if half_states else torch.float32, copy=True)
        self._squares = None
        if learn_from_positions(block.units):
            self._squares = self._rows.float().square().sum(0, dtype=torch.float64)
        self._state, self._output, self._sums = training_functions.EntryFunction.apply(x, self._exists, self._rows)
        self._call = self._call_at(self._exists)

    def _call_at(self, active: Optional[Tensor]) -> "UnitCall":
        """A call where active, bool [N, H, W]; None: everywhere."""
        assert self._remaining is not None
        number, height, width = shape = self._remaining.shape
        device = self._remaining.device
        lists = self._lists_of(self._exists, (number, height, width), device)
        if active is None:
            active = torch.ones(shape, dtype=torch.bool, device=device)
        elif self._exists is not None:
            active = active & self._exists
        active = active.contiguous()
        with torch.cuda.device_of(active):
            lists.fill(active)
        return self._passes.UnitCall(lists, active.view(torch.uint8), (), self._type, self._workspace)

    @override
    def evaluate(self, unit: ResidualUnit, active: Optional[Tensor]) -> None:
        assert isinstance(unit, BottleneckUnit) and unit.conv3.bias is not None
        self._call = self._call_at(active)
        norms = tuple(self._cache.get(norm, fixed_affine) for norm in (unit.preact, unit.norm1, unit.norm2))
        weights = (unit.conv1.weight, unit.conv2.weight, unit.conv3.weight, unit.conv3.bias)
        call = replace(self._call, norms=norms, squares=self._squares)
        if not self._passes.is_tuned(call, self._rows, weights[0]):
            # The positions that happen to be active now would make a poor measurement.
            self._passes.tune(replace(self._call_at(None), norms=norms), self._rows, weights)
        after = torch.empty_like(self._rows)
        self._state, self._output, self._sums = self._functions.UnitFunction.apply(
            call,
            *(self._state, self._output, self._sums, self._remaining),
            *(self._rows, after, self._out.permute(0, 2, 3, 1).view(-1, after.shape[1])),
            *weights,
        )
        self._rows = after

    @override
    def _local_logits(self, taps: Tensor, bias: Tensor) -> Tensor:
        logits, self._state = self._functions.LocalFunction.apply(self._call, self._state, self._rows, taps, bias)
        return logits

    @override
    def result(self) -> Tensor:
        return super().result().to(self._features_type)
