"""Which shifts reach a budget, and which of those that do are the best."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Callable, NamedTuple, Optional, Sequence

import numpy as np
from scipy.optimize import brentq

from sact_det.base.errors import InputError
from sact_det.budget.shifts import AT_ONCE, FAR, NEVER, Shifts

_FARTHER = (1.0, 2.0, 4.0, 8.0)  # times FAR
_CLOSE = 1e-3  # shifts nearer than that are not told apart
_MOST_STEPS = 16
_SPREADS = (2.0, 4.0, 8.0)  # of what candidates add to the shift of a block, standard deviations in turn


class Measured(NamedTuple):
    """What a network does with some shifts.

    Attributes:
        flops, flops_std: share of the plain network's FLOPs, mean and deviation over images.
        quality: accuracy or AP, in percent; NaN where there is nothing to judge.
        own_statistics: whether norms have statistics of their own there (sact_det/budget/statistics.py).
    """

    flops: float
    flops_std: float
    quality: float
    own_statistics: bool = False


class Reached(NamedTuple):
    """Shifts that spend a budget, as nearly as they were found: `common` for all blocks, and what each adds to it."""

    common: float
    offsets: tuple[float, ...]
    measured: Measured


@dataclass
class BudgetSearch:
    """Finds the shifts of budgets, from high ones to low ones, each beginning where the one before ended.

    Attributes:
        blocks: names of those that are shifted.
        measure: shifts of all blocks -> Measured; the share must not rise with a shift that all have in common.
        tolerance: how far from a budget the share may be, in absolute terms.
        judge: as `measure`, on more images: of shifts that spend a budget; None: `measure` is good enough.
    """

    blocks: Sequence[str]
    measure: Callable[[Shifts], Measured]
    tolerance: float = 0.005
    judge: Optional[Callable[[Shifts], Measured]] = None
    _known: dict[tuple[float, ...], dict[float, Measured]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.most, self.least = (self.measure(dict.fromkeys(self.blocks, end)) for end in (NEVER, AT_ONCE))

    def check(self, budget: float) -> None:
        """Raises InputError if the share of a budget cannot be had, whatever the shifts."""
        if budget < self.least.flops:
            raise InputError(
                f"budget {budget:g} cannot be reached: the first units of all blocks, which run everywhere, take "
                f"{self.least.flops:.4f} of the plain network's FLOPs"
            )
        if budget > max(self.most.flops, 1.0):
            raise InputError(f"budget {budget:g} cannot be spent: without halting it is {self.most.flops:.4f}")

    def whole(self) -> Measured:
        """What `judge` says of the network where nothing halts early."""
        return self.most if self.judge is None else self.judge(dict.fromkeys(self.blocks, NEVER))

    def untouched(self) -> Reached:
        """Nothing halts early, as `whole` judges it, at a shift that others can be interpolated with."""
        return Reached(-self._far[0], (0.0,) * len(self.blocks), self.whole())

    def open_shifts(self) -> dict[str, float]:
        """The shift of each block in `untouched`."""
        return self._shifts(-self._far[0], (0.0,) * len(self.blocks))

    @cached_property
    def _far(self) -> tuple[float, float]:
        """How far below 0, and above, a common shift is beyond the logits: shares are `most` and `least`, nearly."""
        found = []
        for sign, end, last in ((-1, self.most, NEVER), (1, self.least, AT_ONCE)):
            known = self._known.setdefault((0.0,) * len(self.blocks), {})
            for shift in (sign * FAR * times for times in _FARTHER):
                known[shift] = self.measure(dict.fromkeys(self.blocks, shift))
                if abs(known[shift].flops - end.flops) <= self.tolerance:
                    last = shift
                    break
            found.append(abs(last))
        return found[0], found[1]

    def judged(self, found: Reached) -> Reached:
        """`found` with what `judge` says of it."""
        return found if self.judge is None else found._replace(measured=self.judge(self.shifts(found)))

    def shifts(self, found: Reached) -> dict[str, float]:
        """The shift of each block."""
        return self._shifts(found.common, found.offsets)

    def _shifts(self, common: float, offsets: Sequence[float]) -> dict[str, float]:
        return {block: round(common + own, 3) for block, own in zip(self.blocks, offsets)}

    def reach(self, budget: float, offsets: Sequence[float], guess: float = 0.0) -> Reached:
        """Brent's method on the common shift, between the nearest shifts whose shares are known.

        Args:
            budget: for which `check` has no objection.
            offsets: what each block adds to the common shift.
            guess: what is tried first.
        """
        own, (below_all, above_all) = tuple(offsets), self._far
        known = self._known.setdefault(own, {})
        known |= {-below_all - max(own): self.most, above_all - min(own): self.least} | known

        def excess(shift: float) -> float:
            """Of the share over the budget; 0, which ends the search, where that is tolerable."""
            shift = round(shift, 3)
            if shift not in known:
                known[shift] = self.measure(self._shifts(shift, own))
            gap = known[shift].flops - budget
            return 0.0 if abs(gap) <= self.tolerance else gap

        if all(map(excess, list(known))) and excess(guess):
            above, below = ([shift for shift in known if sign * excess(shift) > 0] for sign in (1, -1))
            if above and below:  # a detector that rejects takes less than the plain one even where nothing halts
                brentq(excess, max(above), min(below), xtol=_CLOSE, maxiter=_MOST_STEPS, disp=False)
        common = min(known, key=lambda shift: (abs(known[shift].flops - budget), shift))
        return Reached(common, own, known[common])

    def best(
        self,
        budget: float,
        before: Reached,
        candidates: int,
        random: np.random.Generator,
        progress: Callable[[], object],
    ) -> Reached:
        """Of shifts that spend a budget those of the best quality: common ones, unless others are better.

        Candidates add something random to the blocks' shifts, the first of them what the budget before found best.

        Args:
            budget: for which `check` has no objection.
            before: of the budget before, where the search begins.
            candidates: how many are tried beside the common shift.
            random: draws them.
            progress: called after each.
        """
        plain = self.reach(budget, [0.0] * len(self.blocks), before.common)
        best = self.judged(plain)
        progress()
        for number in range(candidates):
            drawn = random.normal(scale=_SPREADS[number % len(_SPREADS)], size=len(self.blocks))
            start = before.offsets if number == 0 and any(before.offsets) else np.add(best.offsets, drawn)
            offsets = [round(float(own), 3) for own in np.subtract(start, np.mean(start))]
            found = self.reach(budget, offsets, best.common)
            if found.measured.flops <= max(budget + self.tolerance, plain.measured.flops):
                found = self.judged(found)
                best = found if found.measured.quality > best.measured.quality else best
            progress()
        return best
