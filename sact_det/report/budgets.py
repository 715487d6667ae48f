"""The calibrated budgets of a network in a gallery."""

import logging
from pathlib import Path
from typing import Any, Optional, Sequence

import numpy as np
from detectron2.config import CfgNode

from sact_det.base.errors import InputError
from sact_det.budget.table import FILE_NAME, BudgetTable

logger = logging.getLogger(__name__)

MOST_BUDGETS = 5  # of a network in a gallery


def calibrated(cfg: CfgNode, model: Any) -> list[float]:
    """The budgets of the table beside the weights, at most MOST_BUDGETS; none without one of these weights."""
    file = Path(cfg.MODEL.WEIGHTS).with_name(FILE_NAME)
    if not file.is_file():
        return []
    try:
        points = BudgetTable.read(file).points
        model.set_budget(points[0].budget, file)
    except InputError as error:
        logger.warning("No budgets are shown: %s", error)
        return []
    chosen = np.linspace(0, len(points) - 1, min(len(points), MOST_BUDGETS)).round().astype(int)
    return [points[index].budget for index in chosen]


def looking_note(shown: int, there: int, budgets: Sequence[Sequence[Optional[float]]]) -> str:
    """What is said above a gallery of so many images, of networks that have these budgets."""
    images = f"{shown} of {there} images, evenly spread." if shown < there else f"All {there} images."
    slider = " The budget slider looks at the calibrated budgets." if any(len(own) > 1 for own in budgets) else ""
    return f"{images} Bright places cost more.{slider} Press an image to see it large, with every block's map."
