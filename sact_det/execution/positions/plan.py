"""The plan of execution "perforated" in PyTorch: any device, any precision, with gradients."""

from typing import Optional

from torch import Tensor, nn
from typing_extensions import override

from sact_det.base.log import info_once
from sact_det.execution.positions.gather_gemm import READS
from sact_det.execution.positions.head import convolve_at, predict_at, why_not_gathered
from sact_det.execution.positions.run import ImageRun, PositionRun
from sact_det.network.halting_rule import ACT, SACT
from sact_det.network.norm import depends_on_batch, learns_from_batch
from sact_det.network.plan import DensePlan, PlannedBlock
from sact_det.network.run import DenseRun, Run
from sact_det.network.unit import ResidualUnit


class PositionsPlan(DensePlan):
    """Units behind the first are computed at the active positions (ACT: for the active images)."""

    @override
    def proceed(self, block: PlannedBlock, run: Run, index: int, active: Tensor) -> Run:
        if type(run) is not DenseRun:
            return run
        units = block.units[index:]
        reason = _why_not(block) or next(filter(None, map(_why_not_unit, units)), None)
        if reason is not None:
            info_once(f"Blocks run dense: {reason}")
            return run
        if not self.pays(block, run.x, active):
            return run
        return ImageRun(run) if block.rule.per_image else PositionRun(run, units)

    @override
    def convolve(self, conv: nn.Conv2d, x: Tensor, active: Optional[Tensor] = None) -> Tensor:
        if active is None or why_not_gathered(conv) or not self.pays_in_head(active):
            return super().convolve(conv, x)
        return convolve_at(conv, x, active)

    @override
    def predict(self, conv: nn.Conv2d, x: Tensor, active: Optional[Tensor], elsewhere: float) -> Tensor:
        if active is None or not self.pays_in_head(active):
            return super().predict(conv, x, active, elsewhere)
        return predict_at(conv, x, active, elsewhere)

    def pays_in_head(self, active: Tensor) -> bool:
        """Whether a head's convolutions at the active positions, bool [N, H, W], are faster than everywhere."""
        return True

    def pays(self, block: PlannedBlock, x: Tensor, active: Tensor) -> bool:
        """Whether units at the active positions of x are faster than everywhere; plans that have measured it say."""
        return True


def _why_not(block: PlannedBlock) -> Optional[str]:
    """Why a block's rule cannot be followed here, or None."""
    if type(block.rule) not in (ACT, SACT):
        return f"halting {block.rule.name!r} has no perforated form"
    return None


def _why_not_unit(unit: ResidualUnit) -> Optional[str]:
    """Why a unit cannot be perforated, or None."""
    if type(unit) not in READS:
        return f"{type(unit).__name__} has no perforated form"
    branch = set() if unit.halting is None else set(unit.halting.modules())
    if any(map(depends_on_batch, branch)) or any(map(learns_from_batch, set(unit.modules()) - branch)):
        return "norms that learn from the batch need every position: freeze them (NORM FrozenBN), or evaluate"
    return None
