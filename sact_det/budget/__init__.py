"""One model, any budget: which shifts of the halting scores spend which share of the plain network's FLOPs."""

from sact_det.budget.budgeted import Budgeted
from sact_det.budget.drawing import DRAWS, PER, Drawing
from sact_det.budget.table import FILE_NAME, BudgetPoint, BudgetTable, weights_digest

__all__ = ["DRAWS", "FILE_NAME", "PER", "BudgetPoint", "BudgetTable", "Budgeted", "Drawing", "weights_digest"]
