"""budget.json: calibrated budgets of a network, beside its weights and tied to them.

tools/calibrate_budget.py measures them. A budget is a share of the FLOPs of the plain network with the same units, of
the part that the table is `of`.
"""

import hashlib
import logging
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Mapping, Optional, Union

import numpy as np
import torch
from torch import nn

from sact_det.base.errors import InputError
from sact_det.base.files import write_json
from sact_det.base.text_files import read_json
from sact_det.base.value_rules import FINITE, NOT_NEGATIVE, POSITIVE, TEXT, Rule, optional, within
from sact_det.budget.image_scale import SCALE
from sact_det.budget.statistics import decoded
from sact_det.weights.values import COUNTER

FILE_NAME = "budget.json"
PARTS = ("network", "extractor", "detector")  # what a budget is a share of
BUDGET = within(0, 1, "(]")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BudgetPoint:
    """A calibrated budget.

    Attributes:
        budget: share of the plain network's FLOPs, in (0, 1].
        shifts: block -> what its halting logits have more (ScoringBranch.shift).
        flops, flops_std: measured share, mean and deviation over the calibration's images.
        quality: accuracy, or AP as a share, on them; None where it was not measured.
        seconds: of an image, on the machine that calibrated; None likewise.
        scale: of images, in (0, 1]: the network sees them so much smaller.
        norms: norm -> the statistics that it has at this budget (sact_det/budget/statistics.py), encoded; the others
            have those of the training.
    """

    budget: float
    shifts: dict[str, float]
    flops: float
    flops_std: float = 0.0
    quality: Optional[float] = None
    seconds: Optional[float] = None
    scale: float = 1.0
    norms: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BudgetTable:
    """The calibrated budgets of some weights.

    Attributes:
        weights: their digest (`weights_digest`).
        of: "network" (a classifier), "extractor" or "detector" (all of it): what budgets are shares of.
        least: the share that is left where everything halts behind the first unit of its block.
        points: in rising order of their budgets, at least one; all with shifts of the same blocks.
        about: where the numbers come from: data set, images, metric, machine.
    """

    weights: str
    of: str
    least: float
    points: tuple[BudgetPoint, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    def shifts(self, budget: float) -> dict[str, float]:
        """The shift of each block for a budget, linear between the calibrated ones.

        At 1 they are -inf: nothing halts early. Outside the calibrated range the nearest end is taken, with a warning.

        Raises:
            InputError: `budget` is not in (0, 1].
        """
        check_budget("budget", budget)
        blocks = self.points[0].shifts
        if budget == 1:
            return dict.fromkeys(blocks, -math.inf)
        known = [point.budget for point in self.points]
        nearest = min(max(budget, known[0]), known[-1])
        if nearest != budget:
            least = f"; these weights can take {self.least:.3f} at least" if budget < self.least else ""
            logger.warning(
                "Budget %g is outside the calibrated range, %g to %g: %g is taken%s",
                *(budget, known[0], known[-1], nearest, least),
            )
        own = {block: [point.shifts[block] for point in self.points] for block in blocks}
        return {block: float(np.interp(budget, known, shifts)) for block, shifts in own.items()}

    def scale(self, budget: float) -> float:
        """What images are scaled by for a budget, in (0, 1], linear between the calibrated ones; 1 at 1.

        Outside the calibrated range the nearest end is taken.

        Raises:
            InputError: `budget` is not in (0, 1].
        """
        check_budget("budget", budget)
        if budget == 1:
            return 1.0
        budgets, scales = ([getattr(point, name) for point in self.points] for name in ("budget", "scale"))
        return float(np.interp(budget, budgets, scales))

    def statistics(self, budget: float) -> dict[str, np.ndarray]:
        """The statistics of norms for a budget, [2, C] means and variances, linear between the calibrated ones.

        Outside the calibrated range the nearest end is taken. At 1 they are those that were calibrated there, for what
        is known of other budgets is of features that halt; without any, norms keep those of the training.

        Raises:
            InputError: `budget` is not in (0, 1].
        """
        check_budget("budget", budget)
        points = [point for point in self.points if budget < 1 or point.budget == 1]
        found = {}
        for name in {name for point in points for name in point.norms}:
            known = [point for point in points if name in point.norms]
            above = min(int(np.searchsorted([point.budget for point in known], budget)), len(known) - 1)
            low, high = known[max(above - 1, 0)], known[above]
            share = np.float32(np.clip((budget - low.budget) / ((high.budget - low.budget) or 1), 0, 1))
            found[name] = (1 - share) * decoded(low.norms[name]) + share * decoded(high.norms[name])
        return found

    def channels(self) -> set[tuple[str, int]]:
        """Every norm that has statistics somewhere, and of how many channels."""
        return {(name, decoded(text).shape[1]) for point in self.points for name, text in point.norms.items()}

    def write(self, path: Union[str, Path]) -> None:
        """Writes the file, whole or not at all. Raises OSError if it cannot be written."""
        write_json(path, {**asdict(self), "about": dict(self.about)})

    @classmethod
    def read(cls, path: Union[str, Path]) -> "BudgetTable":
        """Reads a file. Raises InputError, naming it, if it is missing or no table of budgets."""
        content = read_json(path, "no such file; tools/calibrate_budget.py writes one beside the weights")
        where = f"{path}: not a table of budgets"
        if not isinstance(content, dict) or not isinstance(content.get("points"), list) or not content["points"]:
            raise InputError(f"{where}: expected an object with `points`, as tools/calibrate_budget.py writes it")
        _check(where, content, _TABLE)
        for number, point in enumerate(content["points"], 1):
            if not isinstance(point, dict):
                raise InputError(f"{where}: point {number} must be an object; got {point!r}")
            _check(f"{where}: point {number}", point, {**_POINT, "scale": optional(SCALE)})
        points = tuple(
            BudgetPoint(
                **{key: point.get(key) for key in _POINT},
                scale=1.0 if point.get("scale") is None else point["scale"],
                norms=_norms(f"{where}: point {number}", point),
            )
            for number, point in enumerate(content["points"], 1)
        )
        budgets = [point.budget for point in points]
        if sorted(set(budgets)) != budgets or any(point.shifts.keys() != points[0].shifts.keys() for point in points):
            raise InputError(f"{where}: points must have rising budgets, and shifts of the same blocks")
        return cls(content["weights"], content["of"], content["least"], points, content.get("about") or {})


_TABLE = {"weights": TEXT, "of": Rule(lambda of: of in PARTS, f"be one of {', '.join(PARTS)}"), "least": POSITIVE}
_SHIFTS = Rule(
    lambda shifts: len(shifts) > 0 and all(isinstance(block, str) and FINITE.allows(shifts[block]) for block in shifts),
    "have a finite number for each block",
)
_POINT = {
    **{"budget": BUDGET, "shifts": _SHIFTS, "flops": POSITIVE, "flops_std": NOT_NEGATIVE},
    **{"quality": optional(FINITE), "seconds": optional(POSITIVE)},
}


def _check(where: str, content: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    for key, rule in rules.items():
        if not rule.allows(content.get(key)):
            raise InputError(f"{where}: {key} must {rule.expected}; got {content.get(key)!r}")


def _norms(where: str, point: Mapping[str, Any]) -> dict[str, str]:
    own = point.get("norms") or {}
    if not isinstance(own, dict):
        raise InputError(f"{where}: norms must be an object; got {own!r}")
    for name, text in own.items():
        try:
            decoded(text if isinstance(text, str) else "")
        except ValueError as error:
            raise InputError(f"{where}: norm {name}: {error}") from None
    return own


def check_budget(name: str, budget: Any) -> None:
    """Raises InputError, naming what was given, unless it is a number in (0, 1]."""
    if not BUDGET.allows(budget):
        raise InputError(f"{name} must be a share of the plain network's FLOPs, in (0, 1]; got {budget!r}")


def weights_digest(module: nn.Module) -> str:
    """SHA-256 of a module's weights by their names, in hexadecimal digits: one of other weights differs."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if not name.endswith(COUNTER):  # which frozen norms do not have
            values = value.detach().cpu().contiguous()
            digest.update(f"{name} {values.dtype} {list(values.shape)}\n".encode())
            digest.update(values.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
