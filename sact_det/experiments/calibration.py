"""Calibrates the budgets of trained weights, and keeps what it has measured on the way."""

import logging
import math
import time
from pathlib import Path
from typing import Any, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from sact_det.base.errors import InputError
from sact_det.base.files import write_json
from sact_det.base.text_files import read_json
from sact_det.budget import BudgetPoint, BudgetTable, weights_digest
from sact_det.budget.search import BudgetSearch, Measured, Reached, Shifts
from sact_det.experiments.budget_subjects import Subject

logger = logging.getLogger(__name__)


class Measurements:
    """What was measured of a subject, in a file from which an interrupted calibration goes on.

    Args:
        subject: to be measured.
        path: of the file; what was there of other weights, settings or images is replaced.
        key: tells those apart.
    """

    def __init__(self, subject: Subject, path: Path, key: str):
        self._subject, self._path, self._key = subject, path, key
        self._known: dict[tuple[float, ...], Measured] = {}
        for entry in _stored(path, key):
            self._known[tuple(entry["shifts"])] = Measured(*(math.nan if x is None else x for x in entry["measured"]))

    def __call__(self, shifts: Shifts) -> Measured:
        """Measures, unless it is known."""
        own = tuple(shifts[block] for block in self._subject.blocks)
        if own not in self._known:
            start = time.perf_counter()
            self._known[own] = found = self._subject.measure(shifts)
            said = ", ".join(f"{shift:+.2f}" for shift in own)
            logger.info(
                "Shifts %s: %.1f ± %.1f%% of the FLOPs, %s %.2f (%.0f s)",
                *(said, 100 * found.flops, 100 * found.flops_std, self._subject.metric, found.quality),
                time.perf_counter() - start,
            )
            entries = [{"shifts": known, "measured": values} for known, values in self._known.items()]
            write_json(self._path, {"key": self._key, "entries": entries})
        return self._known[own]


def _stored(path: Path, key: str) -> list[Any]:
    if not path.exists():
        return []
    try:
        content = read_json(path)
        if content["key"] == key:
            return [entry for entry in content["entries"] if len(entry["measured"]) == len(Measured._fields)]
    except (InputError, LookupError, TypeError):
        pass
    logger.info("%s is of other weights, settings or images: measuring anew", path)
    return []


def calibrate(
    subject: Subject,
    measure: Measurements,
    budgets: Sequence[float],
    candidates: int,
    seed: int,
    about: Mapping[str, Any],
) -> BudgetTable:
    """The table of some budgets, seconds included.

    Args:
        subject: the network.
        measure: of it.
        budgets: in (0, 1], unlike each other.
        candidates: shifts of single blocks that are tried for every budget.
        seed: of what they are.
        about: joins the table's own.

    Raises:
        InputError: a budget cannot be reached.
    """
    search, random = BudgetSearch(subject.blocks, measure), np.random.default_rng(seed)
    for budget in budgets:
        search.check(budget)
    points, before = [], Reached(0.0, (0.0,) * len(subject.blocks), search.most)
    with tqdm(total=len(budgets) * (candidates + 1), unit="candidate", disable=None) as bar:
        for budget in sorted(budgets, reverse=True):
            if budget == 1:  # there the table's shifts are interpolated with; nothing halts early
                before = search.reach(min(budget, search.most.flops), before.offsets)
                found = search.most
                bar.update(candidates + 1)
            else:
                before = search.best(budget, before, candidates, random, bar.update)
                found = before.measured
            quality = None if math.isnan(found.quality) else found.quality
            points.append(BudgetPoint(budget, search.shifts(before), found.flops, found.flops_std, quality))
    own = {"metric": subject.metric, "images": len(subject.loader.dataset)}  # type: ignore[arg-type]
    digest, least = weights_digest(subject.model), search.least.flops
    return subject.seconds(BudgetTable(digest, subject.of, least, tuple(reversed(points)), {**own, **about}))
