"""The run of a block on a CPU in training: float32, forward and backward in kernels (forward.cpp, backward.cpp).

For its backward pass a unit keeps the rows that it read and the rectified outputs of conv1 and conv2, and nothing else.
The state is never updated in place: a unit writes it anew at the positions that it read, which are the ones that the
halting branch behind it and the next unit read. Halting state and ponder cost, [N, H, W], are PyTorch's. Of features,
[P, C], PyTorch's graph knows only the order of the passes (sact_det/execution/training.py).

Shape shorthand in this module:
    N: images; C: channels; H, W: feature map, padding included; P = N * H * W.
"""

from typing import Optional

import torch
from torch import Tensor
from typing_extensions import override

from sact_det.execution.cpu.conditions import why_not_on
from sact_det.execution.cpu.memory import empty, ones, plain, zeros
from sact_det.execution.cpu.positions import list_positions, mask_of_positions
from sact_det.execution.cpu.sites import Sites, make_sites
from sact_det.execution.cpu.training_functions import GradientRows, UnitCall, UnitFunction
from sact_det.execution.cpu.training_scores import LocalFunction
from sact_det.execution.packing import WeightCache
from sact_det.execution.training import RowsTrainingRun, fixed_affine, why_not_trained
from sact_det.network.branch import learn_from_positions
from sact_det.network.plan import PlannedBlock
from sact_det.network.resnet_v2 import BottleneckUnit
from sact_det.network.unit import ResidualUnit
from sact_det.rule.padding import Mask, strided_size


def why_not_training(block: PlannedBlock, x: Tensor) -> Optional[str]:
    """Why a TrainingRun cannot evaluate the block at x, or None if it can."""
    if block.reads_products:
        return "those for training make the products of a block's first unit themselves"
    reason = why_not_trained(block, block.units)
    if reason is not None:
        return reason
    for unit in block.units:
        if any(p.dtype != torch.float32 or p.device.type != "cpu" for p in unit.parameters()):
            return "they compute in float32 only"
    return why_not_on(x, block.units[0].conv1.weight)


def _by_phase(positions: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Positions sorted by y and x modulo the stride: neighbours in the list are read by the same taps of conv2.

    Args:
        positions: int64, of maps of `size`.
        size: (height, width).
    """
    y, x = positions // size[1] % size[0], positions % size[1]
    phase = y % stride * stride + x % stride
    return torch.cat([positions[phase == value] for value in range(stride**2)])


class TrainingRun(RowsTrainingRun):
    """Evaluates a block in training, its first unit at construction; active positions may only become fewer.

    Args:
        block: for which why_not_training(block, x) is None.
        packed: keeps what is made of its frozen norms.
        x, valid_in, valid: as of Plan.start.
    """

    def __init__(self, block: PlannedBlock, packed: WeightCache, x: Tensor, valid_in: Mask, valid: Mask):
        self._threads = torch.get_num_threads()
        self._gradient = GradientRows()
        self._cache = packed
        unit = block.units[0]
        assert isinstance(unit, BottleneckUnit)
        size = (x.shape[2], x.shape[3])
        shape = (len(x), *strided_size(size, unit.stride))
        self._exists = mask_of_positions(valid, shape)
        self._counts = self._exists.sum((1, 2))[:, None]
        channels = unit.conv3.out_channels
        self._out = empty(shape[0], channels, *shape[1:], memory_format=torch.channels_last)
        if valid is not None:
            self._out.zero_()
        self._squares = None
        if learn_from_positions(block.units):
            self._squares = zeros(channels, dtype=torch.float64)

        own = self._lists(self._exists)[0]
        self._sites = make_sites(shape[1:], self._exists, own, own)
        reads = own
        if size != shape[1:]:
            exists = mask_of_positions(valid_in, (len(x), *size))
            reads = _by_phase(self._lists(exists, exists)[0], size, unit.stride)
        self._remaining = None
        self._state = self._output = self._sums = None
        self._rows: Optional[Tensor] = plain(x.permute(0, 2, 3, 1)).view(-1, x.shape[1])
        self._evaluate(unit, make_sites(size, self._exists, reads, own), None, self._sites)
        self._remaining = ones(*shape)

    def _lists(self, active: Tensor, exists: Optional[Tensor] = None) -> tuple[Tensor, Tensor]:
        """The active positions, and those that a 3x3 convolution reads there: int64, ascending."""
        exists = self._exists if exists is None else exists
        actives, reads = (empty(active.numel(), dtype=torch.int64) for _ in range(2))
        count, around = list_positions(active, exists, actives, reads)
        return actives[:count], reads[:around]

    def _evaluate(self, unit: BottleneckUnit, sites: Sites, x_rows: Optional[Tensor], scored: Sites) -> None:
        """Evaluates a unit.

        Args:
            unit: the next one.
            sites: where it is evaluated.
            x_rows: int32, where the rows of its input stand (UnitCall).
            scored: `reads` are the positions at which its branch and the next unit read the state.
        """
        norms = [self._cache.get(norm, fixed_affine) for norm in (unit.preact, unit.norm1, unit.norm2)]
        strides = unit.stride, unit.conv2.dilation[0]
        call = UnitCall(sites, x_rows, tuple(norms), *strides, self._squares, self._threads, self._gradient)
        rows = None if unit.halting is None else empty(len(scored.reads), unit.conv3.out_channels)
        shortcut = (None, None) if unit.shortcut is None else (unit.shortcut.weight, unit.shortcut.bias)
        self._state, self._output, self._sums = UnitFunction.apply(
            call,
            *(self._state, self._output, self._sums, self._remaining),
            *(self._rows, rows, self._out),
            *(unit.conv1.weight, unit.conv2.weight, unit.conv3.weight, unit.conv3.bias, *shortcut),
        )
        self._rows, self._sites = rows, scored

    @override
    def evaluate(self, unit: ResidualUnit, active: Optional[Tensor]) -> None:
        assert active is not None and isinstance(unit, BottleneckUnit) and self._rows is not None
        writes, reads = self._lists(active & self._exists)
        _, height, width = self._exists.shape
        sites = make_sites((height, width), self._exists, reads, writes)
        self._evaluate(unit, sites, self._sites.read_rows, sites)

    @override
    def _local_logits(self, taps: Tensor, bias: Tensor) -> Tensor:
        logits, self._state = LocalFunction.apply(
            self._sites, self._gradient, self._threads, self._state, self._rows, taps, bias
        )
        return logits
