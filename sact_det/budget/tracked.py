"""Which shift a network in training needs for a budget: learned from what its images spend, while it changes."""

import math

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sact_det.budget.shifts import FAR

_KNOTS = 9  # at most
_SPACING = 0.05  # of knots in a narrow range, as a share: nearer ones would differ by noise, not by the slope
_RATE = 0.3  # of what a knot was wrong by, how much it is put right by, by the slope between knots
_LEAST_SLOPE = 8.0  # logits that a share of 1 is worth at least


class TrackedShifts(nn.Module):
    """The shift of each budget from `low` to `high`, linear between some knots, all 0 at first.

    Behind every step each knot moves by what the images near it have spent more or less than they should: Robbins and
    Monro's stochastic approximation of the shift at which FLOPs are the budget, with the median slope between knots for
    a scale, since logits of networks differ by a factor of a hundred. Then shifts are sorted, so that they fall with
    the budget. Whatever branches and features learn, FLOPs stay as they were drawn, and there is nothing to escape to.
    A budget below what the network can do with has the highest shift.

    Buffers are not part of state dicts: weights do not depend on them. A training's checkpoint has them
    (sact_det/engine/tracked_budgets.py).

    Args:
        low, high: shares of the plain network's FLOPs, 0 < low <= high <= 1; a range narrower than 0.025 has one knot.

    Attributes:
        shifts: float64 [K], of evenly spaced budgets, the lowest first; K is at most 9.
        due: float64 [2, K], what they have not answered yet: by how much images spent too much, each as it counts for a
            knot, and how many images these are.
    """

    shifts: Tensor
    due: Tensor

    def __init__(self, low: float, high: float):
        super().__init__()
        self.low, self.high = low, high
        knots = 1 + min(_KNOTS - 1, round((high - low) / _SPACING))
        self._step = (high - low) / (knots - 1) if knots > 1 else math.inf  # between them
        for name, shape in (("shifts", (knots,)), ("due", (2, knots))):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64), persistent=False)

    def forward(self, budgets: Tensor) -> Tensor:
        """The shifts of budgets, [N] -> float32 [N], behind all that is due (of several processes: `settle` does)."""
        if not (dist.is_initialized() and dist.get_world_size() > 1):
            self.settle()
        return (self._shares(budgets) @ self.shifts).float()

    @torch.no_grad()
    def observe(self, budgets: Tensor, spent: Tensor) -> None:
        """Notes what images have spent, [N], and should have, [N]; both in shares of the plain network's FLOPs."""
        wrong = spent.to(self.due) - budgets.to(self.due)
        self.due += torch.stack((wrong, torch.ones_like(wrong))) @ self._shares(budgets)

    @torch.no_grad()
    def settle(self) -> None:
        """Moves the knots by what is due, the mean of a step's images where these are many."""
        slopes = -self.shifts.diff() / self._step if len(self.shifts) > 1 else self.shifts.new_zeros(1)
        wrong, images = self.due
        moved = self.shifts + _RATE * slopes.median().clamp_min(_LEAST_SLOPE) * wrong / images.clamp_min(1)
        self.shifts.copy_(moved.clamp(-FAR, FAR).sort(descending=True).values)
        self.due.zero_()

    def _shares(self, budgets: Tensor) -> Tensor:
        """[N] -> [N, K]: by how much each knot counts; the two nearest do, and they sum to 1."""
        budgets = budgets.to(self.shifts).clamp(self.low, self.high)
        at = (budgets - self.low) / self._step
        knots = torch.arange(len(self.shifts), device=at.device)
        return (1 - (at[:, None] - knots).abs()).clamp_min(0)
