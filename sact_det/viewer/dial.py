"""What a user turns to have a network spend more or less: a calibrated budget, or the shift of its halting scores."""

import logging
from dataclasses import dataclass
from typing import Any, Optional

from sact_det.base.errors import InputError
from sact_det.budget.budgeted import halting_blocks
from sact_det.budget.table import BudgetTable

_SHIFT = 4.0  # of halting logits: at its ends positions halt almost nowhere, or behind the first unit

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dial:
    """A range of values, and what they are; `turn` sets one.

    Attributes:
        model: a `Budgeted` one.
        is_budget: whether values are shares of the plain network's FLOPs; else they are shifts, 0 as trained.
        low, high, start: of the values.
    """

    model: Any
    is_budget: bool
    low: float
    high: float
    start: float

    @classmethod
    def of(cls, model: Any) -> Optional["Dial"]:
        """A budget where there is a table beside the weights and of them, else a shift; None: nothing in it halts."""
        if not halting_blocks(model):
            return None
        if model.budget_file is not None and model.budget_file.is_file():
            try:
                points = BudgetTable.read(model.budget_file).points
                start = model.budget or points[-1].budget
                model.set_budget(start)  # says if the table is of other weights
                return cls(model, True, points[0].budget, points[-1].budget, start)
            except InputError as error:
                logger.warning("There is a slider of the shift instead of the budget: %s", error)
        return cls(model, False, -_SHIFT, _SHIFT, 0.0)

    def turn(self, value: float) -> None:
        """Sets the model to a value; beyond the ends the nearest is taken."""
        value = min(max(value, self.low), self.high)
        if self.is_budget:
            self.model.set_budget(value)
            return
        for name, block in halting_blocks(self.model).items():
            block.shift = (self.model.trained_shifts or {}).get(name, 0.0) + value
