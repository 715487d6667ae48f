"""Which images, and which shifts, spend a budget best: smaller images, on which less halts, or larger ones."""

import bisect
import math
from functools import partial
from typing import Callable, Mapping, NamedTuple, Optional, Sequence

import numpy as np

from sact_det.budget.search import BudgetSearch, Measured, Reached
from sact_det.budget.shifts import NEVER, Shifts

_STEPS = 100  # of scales from 0 to 1, of which one is chosen where nothing halts
_PIXELS = 0.9  # of those of the largest images that suffice: images with fewer do not take their place

MeasureAt = Callable[[Shifts, float], Measured]


class Spent(NamedTuple):
    """How a budget is spent: images scaled by `scale`, blocks shifted by `shifts`, and what that gives."""

    scale: float
    shifts: Mapping[str, float]
    measured: Measured


class ScaledSearch:
    """Searches at several scales of images; a budget is spent at the best of them.

    Between the smallest and whole images it tries a scale of its own for every budget, too: the largest at which the
    budget suffices without halting, or one that is hardly smaller and has more pixels for its FLOPs, since a row of
    pixels more may cost a row of positions in the map of largest stride. So no budget is spent worse than by the same
    network on smaller images, as far as the measure tells. Still smaller ones without halting would leave a part of the
    budget, and are not tried: where they look better it is mostly the few images of a measure.

    Args:
        blocks: names of those that are shifted.
        measure: shifts of all blocks, a scale -> Measured, in shares of what the plain network takes of whole images.
        scales: in (0, 1], unlike each other; 1 is tried in any case.
        judge: as `measure`, on more images: of what spends a budget; None: `measure` is good enough.
    """

    def __init__(
        self,
        blocks: Sequence[str],
        measure: MeasureAt,
        scales: Sequence[float] = (),
        judge: Optional[MeasureAt] = None,
    ):
        self.scales = sorted({1.0, *scales}, reverse=True)
        self._never = dict.fromkeys(blocks, NEVER)
        self._measure, self._judge = measure, measure if judge is None else judge
        self._searches = [
            BudgetSearch(
                blocks,
                partial(_at, measure, scale),
                judge=None if judge is None else partial(_at, judge, scale),
            )
            for scale in self.scales
        ]
        self._before = [Reached(0.0, (0.0,) * len(blocks), search.most) for search in self._searches]

    @property
    def least(self) -> float:
        """The share that is left on the smallest images where everything halts behind the first unit of its block."""
        return self._searches[-1].least.flops

    def check(self, budget: float) -> None:
        """Raises InputError if the share of a budget cannot be had at any scale."""
        self._searches[0 if budget >= self._searches[0].least.flops else -1].check(budget)

    def ways(self, candidates: int) -> int:
        """How many ways to spend a budget are tried."""
        return len(self.scales) * (1 + candidates) + (len(self.scales) > 1)

    def best(
        self, budget: float, candidates: int, random: np.random.Generator, progress: Callable[[int], object]
    ) -> Spent:
        """What spends a budget best; of equals what takes more FLOPs.

        Without a quality images are the largest that can be. At 1 they are whole, and nothing halts early.

        Args:
            budget: for which `check` has no objection, lower than that of the call before.
            candidates, random: as of BudgetSearch.best.
            progress: called with how many ways are done.
        """
        if budget == 1:
            progress(self.ways(candidates))
            return self._spent(0, self._searches[0].untouched())
        found = []
        for number, search in enumerate(self._searches):
            if budget < search.least.flops or (budget >= search.most.flops and number > 0):
                progress(1 + candidates)
                continue
            reached = search.best(budget, self._before[number], candidates, random, lambda: progress(1))
            self._before[number] = reached
            found.append(self._spent(number, reached))
        if len(self.scales) > 1:
            found += self._smaller(budget)
            progress(1)
        return max(found, key=lambda own: _merit(own.measured))

    def _spent(self, number: int, reached: Reached) -> Spent:
        return Spent(self.scales[number], self._searches[number].shifts(reached), reached.measured)

    def _smaller(self, budget: float) -> list[Spent]:
        """Images of about the largest scale at which the budget suffices, and nothing halts; none if there is none."""
        whole, smallest = self._searches[0], self.scales[-1]
        scales = [smallest, *(step / _STEPS for step in range(1, _STEPS) if step / _STEPS > smallest)]

        def exceeds(scale: float) -> bool:
            return self._measure(self._never, scale).flops > budget + whole.tolerance

        number = bisect.bisect_left(scales, True, key=exceeds) - 1
        if number < 0:
            return []
        near = [scale for scale in scales[: number + 1] if scale**2 >= _PIXELS * scales[number] ** 2]
        pixels = {scale: scale**2 / self._measure(self._never, scale).flops for scale in near}
        best = max(near, key=lambda scale: (round(pixels[scale] / pixels[near[-1]], 2), scale))
        return [Spent(best, whole.open_shifts(), self._judge(self._never, best))]


def _at(measure: MeasureAt, scale: float, shifts: Shifts) -> Measured:
    return measure(shifts, scale)


def _merit(measured: Measured) -> tuple[float, float]:
    return (0.0, 0.0) if math.isnan(measured.quality) else (measured.quality, round(measured.flops, 2))
