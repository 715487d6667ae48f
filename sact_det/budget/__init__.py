"""One model, any budget: which shifts of the halting scores spend which share of the plain network's FLOPs."""

from sact_det.budget.budgeted import Budgeted
from sact_det.budget.table import FILE_NAME, BudgetPoint, BudgetTable, weights_digest

__all__ = ["FILE_NAME", "BudgetPoint", "BudgetTable", "Budgeted", "weights_digest"]
