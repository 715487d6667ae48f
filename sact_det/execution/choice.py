"""Which run evaluates a block: what can be perforated, and where that is faster."""

import logging
from functools import lru_cache
from typing import Optional

import torch
from torch import Tensor

from sact_det.base.precision import compute_type
from sact_det.execution.cpu.conditions import why_not_here
from sact_det.execution.cpu.run import RowsRun, why_not_rows
from sact_det.execution.cpu.stem import evaluate_stem
from sact_det.execution.cpu.training import TrainingRun, why_not_training
from sact_det.execution.cuda.measured import is_faster
from sact_det.execution.cuda.run import TritonRun, why_not_triton
from sact_det.execution.packing import refuse_released
from sact_det.execution.positions.gather_gemm import READS
from sact_det.execution.positions.run import ImageRun, PositionRun
from sact_det.network.block import AdaptiveBlock, DenseRun, ResidualUnit, Run
from sact_det.network.norm import depends_on_batch, learns_from_batch
from sact_det.network.resnet_v2 import Stem
from sact_det.rule.padding import Sizes

logger = logging.getLogger(__name__)

# In PyTorch, "auto" perforates a unit where it would evaluate at most this share of the positions. Measured on a CPU in
# training: with all positions active, perforated takes about as long as dense.
AUTO_SHARE = 0.9


def start_run(block: AdaptiveBlock, x: Tensor, valid_in: Optional[Tensor], valid: Optional[Tensor]) -> Optional[Run]:
    """A run that evaluates the whole block, its first unit included, at x; None if only PyTorch can do that."""
    stride = block.units[0].stride
    if _stays_dense(block, x, len(x) * (-(-x.shape[2] // stride)) * (-(-x.shape[3] // stride))):
        return None
    reason = why_not_triton(block, x) if x.is_cuda else why_not_rows(block, x)
    if reason is None:
        _log_once(f"Blocks run in {'Triton' if x.is_cuda else 'C++'} kernels on {x.device.type}.")
        return (TritonRun if x.is_cuda else RowsRun)(block, x, valid_in, valid)
    refuse_released(block, f"where the kernels for inference cannot serve ({reason})")
    if not x.is_cuda and torch.is_grad_enabled():
        reason = why_not_training(block, x)  # the one above was that it is no inference
        if reason is None:
            _log_once("Blocks run in C++ kernels on cpu, backward passes included.")
            return TrainingRun(block, x, valid_in, valid)
    _log_once(f"Blocks run in PyTorch, without kernels of their own: {reason}")
    return None


def run_stem(stem: Stem, x: Tensor, sizes: Optional[Sizes]) -> Optional[Tensor]:
    """Output of the stem at x, or None if only PyTorch can compute it."""
    reason = why_not_here(stem, x, stem.conv.weight)
    if reason is None:
        return evaluate_stem(stem, x, sizes)
    refuse_released(stem, f"where the kernels for inference cannot serve ({reason})")
    return None


def _stays_dense(block: AdaptiveBlock, x: Tensor, positions: int) -> bool:
    """Whether "auto" means "dense" for a block with so many positions: on a GPU, unless it was measured slower there.

    Args:
        block: that is evaluated.
        x: a feature map that it reads: the device and the type of its products.
        positions: of the block's output, over the batch.
    """
    if block.execution != "auto" or not x.is_cuda:
        return False
    if is_faster(x.device, compute_type(x), block.units[0].in_channels, positions):
        return False
    _log_once(
        'Execution "auto" is dense on this GPU: nothing says that the kernels are faster (`make gpu` measures it).'
    )
    return True


def continue_run(block: AdaptiveBlock, run: DenseRun, index: int, active: Tensor) -> Run:
    """The run to evaluate unit `index` with: `run` itself, or a perforated one in its place.

    Args:
        block: that is evaluated.
        run: the present run.
        index: of the next unit, counted from 0.
        active: bool [N, H, W] (ACT: [N, 1, 1]).
    """
    units = block.units[index:]
    reason = next(filter(None, map(_obstacle, units)), None)
    if reason is not None:
        _log_once(f"Blocks run dense: {reason}")
        return run
    number, _, height, width = run.x.shape
    if _stays_dense(block, run.x, number * height * width):
        return run
    if block.execution == "auto" and not run.x.is_cuda and int(active.sum()) > AUTO_SHARE * active.numel():
        return run
    return ImageRun(run) if block.halting == "act" else PositionRun(run, units)


def _obstacle(unit: ResidualUnit) -> Optional[str]:
    """Why a unit cannot be perforated, or None."""
    if type(unit) not in READS:
        return f"{type(unit).__name__} has no perforated form"
    branch = set() if unit.halting is None else set(unit.halting.modules())
    if any(map(depends_on_batch, branch)) or any(map(learns_from_batch, set(unit.modules()) - branch)):
        return "norms that learn from the batch need every position: freeze them (NORM FrozenBN), or evaluate"
    return None


@lru_cache(maxsize=None)
def _log_once(line: str) -> None:
    logger.info("%s", line)
