"""Executions "perforated" and "auto": kernels where they can serve, on CPUs and NVIDIA GPUs, PyTorch elsewhere."""

from typing import Optional, Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from sact_det.base.log import info_once
from sact_det.base.precision import compute_type
from sact_det.execution.cpu.block import evaluate_block, goes_in_one_call
from sact_det.execution.cpu.conditions import why_not_here
from sact_det.execution.cpu.convolution import convolve, why_not_convolved, why_not_merged
from sact_det.execution.cpu.projection import project, why_not_projected
from sact_det.execution.cpu.roi_align import (
    pool_regions,
    pool_regions_by_level,
    why_not_pooled,
    why_not_pooled_by_level,
)
from sact_det.execution.cpu.run import RowsRun, why_not_rows
from sact_det.execution.cpu.stem import evaluate_stem
from sact_det.execution.cpu.training import TrainingRun, why_not_training
from sact_det.execution.cuda.measured import is_faster
from sact_det.execution.cuda.roi_align import pool_by_triton, why_not_pooled_by_triton
from sact_det.execution.cuda.run import TritonRun, why_not_triton
from sact_det.execution.cuda.training import TritonTrainingRun, why_not_triton_training
from sact_det.execution.packing import WeightCache, refuse_released
from sact_det.execution.positions.plan import PositionsPlan
from sact_det.network.plan import (
    Plan,
    PlannedBlock,
    PlannedPooler,
    PlannedProjection,
    PlannedStem,
)
from sact_det.network.run import Run
from sact_det.rule.padding import Mask, Sizes, strided_size
from sact_det.rule.process import HaltingOutcome

# In PyTorch, "auto" perforates a unit where it would evaluate at most this share of the positions. Measured on a CPU in
# training: with all positions active, perforated takes about as long as dense.
AUTO_SHARE = 0.9


class PackingPlan(PositionsPlan):
    """A plan that keeps weights packed for kernels.

    Attributes:
        packed: what is made of the part's weights.
        half_states: as of TritonTrainingRun.
    """

    half_states = False

    def __init__(self) -> None:
        super().__init__()
        self.packed = WeightCache()

    def train(self, mode: bool = True) -> "PackingPlan":
        """Forgets what was packed, for weights may have changed unseen.

        Raises:
            RuntimeError: the part is to be trained, and its weights are gone.
        """
        if mode:
            self.packed.refuse_released("for training")
        self.packed.clear()
        return super().train(mode)

    @override
    def recorded(self) -> Plan:
        self.packed.refuse_released("to trace, export or compile the model")
        return super().recorded()


class PerforatedPlan(PackingPlan):
    """Executions "perforated" and "auto": kernels where they can serve, PyTorch elsewhere.

    Args:
        auto: computes dense where that is faster, as far as it is known.
    """

    def __init__(self, auto: bool = False):
        super().__init__()
        self.auto = auto

    @override
    def complete(
        self, block: PlannedBlock, x: Tensor, valid_in: Mask, valid: Mask, shortcut: Optional[Tensor] = None
    ) -> Optional[tuple[Tensor, Optional[HaltingOutcome]]]:
        if x.is_cuda or not goes_in_one_call(block) or why_not_rows(block, x) is not None:
            return None
        _tell_of_kernels(x)
        return evaluate_block(block, self.packed, x, valid_in, valid, shortcut)

    @override
    def start(
        self, block: PlannedBlock, x: Tensor, valid_in: Mask, valid: Mask, shortcut: Optional[Tensor] = None
    ) -> Run:
        run = self._start_kernels(block, x, valid_in, valid, shortcut)
        return super().start(block, x, valid_in, valid, shortcut) if run is None else run

    def _start_kernels(
        self, block: PlannedBlock, x: Tensor, valid_in: Mask, valid: Mask, shortcut: Optional[Tensor]
    ) -> Optional[Run]:
        """A run of kernels that evaluates the whole block, its first unit included; None if only PyTorch can."""
        height, width = strided_size((x.shape[2], x.shape[3]), block.units[0].stride)
        if self._stays_dense(block, x, len(x) * height * width):
            return None
        reason = why_not_triton(block, x) if x.is_cuda else why_not_rows(block, x)
        if reason is None:
            _tell_of_kernels(x)
            return (TritonRun if x.is_cuda else RowsRun)(block, self.packed, x, valid_in, valid, shortcut)
        refuse_released(block, f"where the kernels for inference cannot serve ({reason})")
        if torch.is_grad_enabled():  # the reason was that it is no inference
            reason = why_not_triton_training(block, x) if x.is_cuda else why_not_training(block, x)
            if reason is None:
                name = "Triton" if x.is_cuda else "C++"
                info_once(f"Blocks run in {name} kernels on {x.device.type}, backward passes included.")
                _tell_of_compilation(x)
                if x.is_cuda:
                    return TritonTrainingRun(block, self.packed, x, valid_in, valid, shortcut, self.half_states)
                return TrainingRun(block, self.packed, x, valid_in, valid)
        info_once(f"Blocks run in PyTorch, without kernels of their own: {reason}")
        return None

    @override
    def stem(self, stem: PlannedStem, x: Tensor, sizes: Optional[Sizes]) -> Tensor:
        reason = why_not_here(stem, x, stem.conv.weight)
        if reason is None:
            return evaluate_stem(stem, self.packed, x, sizes)
        refuse_released(stem, f"where the kernels for inference cannot serve ({reason})")
        return super().stem(stem, x, sizes)

    @override
    def pool(self, pooler: PlannedPooler, x: Tensor, boxes: Tensor) -> Tensor:
        if x.is_cuda:
            if not self.auto and why_not_pooled_by_triton(x, boxes) is None:
                return pool_by_triton(pooler, x, boxes)
        elif why_not_pooled(x, boxes) is None:
            return pool_regions(pooler, x, boxes)
        return super().pool(pooler, x, boxes)

    @override
    def pool_levels(
        self, poolers: Sequence[PlannedPooler], maps: Sequence[Tensor], boxes: Tensor, levels: Tensor
    ) -> Tensor:
        if why_not_pooled_by_level(maps, boxes) is None:
            return pool_regions_by_level(poolers, maps, boxes, levels)
        return super().pool_levels(poolers, maps, boxes, levels)

    @override
    def project(self, linear: PlannedProjection, x: Tensor) -> Tensor:
        if why_not_projected(linear, x) is None:
            return project(linear, self.packed, x)
        return super().project(linear, x)

    @override
    def convolve(self, conv: nn.Conv2d, x: Tensor, active: Optional[Tensor] = None) -> Tensor:
        if why_not_convolved(conv, x) is None:
            return convolve(conv, self.packed, x, active)
        return super().convolve(conv, x, active)

    @override
    def merge(self, conv: nn.Conv2d, x: Tensor, coarser: Tensor) -> Tensor:
        if why_not_merged(conv, x, coarser) is None:
            return convolve(conv, self.packed, x, coarser=coarser)
        return super().merge(conv, x, coarser)

    @override
    def pays_in_head(self, active: Tensor) -> bool:
        return not self.auto or (not active.is_cuda and int(active.sum()) <= AUTO_SHARE * active.numel())

    @override
    def pays(self, block: PlannedBlock, x: Tensor, active: Tensor) -> bool:
        if not self.auto:
            return True
        if x.is_cuda:
            return not self._stays_dense(block, x, len(x) * x.shape[2] * x.shape[3])
        return int(active.sum()) <= AUTO_SHARE * active.numel()

    def _stays_dense(self, block: PlannedBlock, x: Tensor, positions: int) -> bool:
        """Whether "auto" means "dense" for a block: on a GPU, unless it was measured slower there.

        Args:
            block: that is evaluated.
            x: a feature map that it reads: the device and the type of its products.
            positions: of the block's output, over the batch.
        """
        if not self.auto or not x.is_cuda:
            return False
        if is_faster(x.device, compute_type(x), block.units[0].in_channels, positions):
            return False
        info_once(
            'Execution "auto" is dense on this GPU: nothing says that the kernels are faster (`make gpu` measures it).'
        )
        return True


def _tell_of_kernels(x: Tensor) -> None:
    info_once(f"Blocks run in {'Triton' if x.is_cuda else 'C++'} kernels on {x.device.type}.")
    _tell_of_compilation(x)


def _tell_of_compilation(x: Tensor) -> None:
    """The library for CPUs says so itself, when it is compiled."""
    if x.is_cuda:
        info_once("Triton compiles a kernel when it first runs, and keeps it: the first steps can take a minute.")


class TritonPlan(PackingPlan):
    """Triton kernels and nothing else: for measurements and tests, where they must not be passed over."""

    @override
    def start(
        self, block: PlannedBlock, x: Tensor, valid_in: Mask, valid: Mask, shortcut: Optional[Tensor] = None
    ) -> Run:
        if block.training and torch.is_grad_enabled():
            return TritonTrainingRun(block, self.packed, x, valid_in, valid, shortcut, self.half_states)
        return TritonRun(block, self.packed, x, valid_in, valid, shortcut)

    @override
    def pool(self, pooler: PlannedPooler, x: Tensor, boxes: Tensor) -> Tensor:
        return pool_by_triton(pooler, x, boxes)
