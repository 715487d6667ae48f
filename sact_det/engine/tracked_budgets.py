"""Trainings that draw budgets: one set of shifts for all processes, and for a run that goes on."""

from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import HookBase
from typing_extensions import override

from sact_det.base.errors import InputError
from sact_det.budget.tracked import TrackedShifts
from sact_det.weights.values import check_values


class TrackedBudgets(HookBase):
    """Behind every step, the shifts of budgets move by what the images of all processes say; checkpoints have them.

    It stands before the hooks that save.

    Args:
        tracked: of the model in training.
    """

    def __init__(self, tracked: TrackedShifts):
        self._tracked = tracked

    @override
    def after_step(self) -> None:
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(self._tracked.due)
        self._tracked.settle()

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"shifts": self._tracked.shifts.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As the trainer's. Raises InputError if a shift is not finite, or they are of a range of another width."""
        shifts = torch.as_tensor(state["shifts"])
        check_values("the shifts of drawn budgets", shifts)
        if shifts.shape != self._tracked.shifts.shape:
            raise InputError(
                f"MODEL.SACT.BUDGET_TRAINING: the checkpoint has shifts of {shifts.numel()} budgets, this range has "
                f"{self._tracked.shifts.numel()}; go on with the range that it was begun with"
            )
        self._tracked.shifts.copy_(shifts)
