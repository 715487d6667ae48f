"""Which images, and which shifts, spend a budget best: smaller images, on which less halts, or larger ones."""

import math
from typing import Callable, Sequence

import numpy as np

from sact_det.budget.search import BudgetSearch, Reached


class ScaledSearch:
    """Searches at several scales of images; a budget is spent at the best of them.

    A budget that even without halting is not spent on small images may be left over: the plain network on these is one
    of the ways.

    Args:
        searches: one for each scale, the largest first, that of whole images; all of the same network and images, in
            shares of what the plain network takes of whole ones.
    """

    def __init__(self, searches: Sequence[BudgetSearch]):
        self.searches = list(searches)
        self._before = [Reached(0.0, (0.0,) * len(search.blocks), search.most) for search in searches]

    @property
    def least(self) -> float:
        """The share that is left on the smallest images where everything halts behind the first unit of its block."""
        return self.searches[-1].least.flops

    def check(self, budget: float) -> None:
        """Raises InputError if the share of a budget cannot be had at any scale."""
        self.searches[0 if budget >= self.searches[0].least.flops else -1].check(budget)

    def best(
        self, budget: float, candidates: int, random: np.random.Generator, progress: Callable[[object], object]
    ) -> tuple[int, Reached]:
        """Which scale, by its number, and which shifts spend a budget best; of equals what takes more FLOPs.

        Without a quality images are the largest that can be. At 1 they are whole, and nothing needs to halt.

        Args:
            budget: for which `check` has no objection, lower than that of the call before.
            candidates, random: as of BudgetSearch.best.
            progress: called with how many steps are done.
        """
        found = []
        for number, search in enumerate(self.searches):
            whole = number == 0
            if budget < search.least.flops or (budget == 1 and not whole):
                progress(1 + candidates)
                continue
            before = self._before[number]
            if budget == 1 or (budget >= search.most.flops and not whole):
                reached = search.judged(search.reach(min(budget, search.most.flops), before.offsets))
                progress(1 + candidates)
            else:
                reached = search.best(budget, before, candidates, random, lambda: progress(1))
            self._before[number] = reached
            found.append((number, reached))
        return max(found, key=lambda own: _merit(own[1]))


def _merit(reached: Reached) -> tuple[float, float]:
    measured = reached.measured
    return (0.0, 0.0) if math.isnan(measured.quality) else (measured.quality, measured.flops)
