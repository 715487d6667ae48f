"""A hard limit on FLOPs: positions halt when what they would take is no longer there.

Shape shorthand in this module:
    N: images; H, W: feature map, padding included; P = H * W.
"""

import math
from typing import Callable

import torch
from torch import Tensor

from sact_det.base.recording import is_recording
from sact_det.rule.flops import active_positions

Cost = Callable[[Tensor, Tensor], Tensor]


class FlopsLimit:
    """Halts positions of a block so that it takes no more than it may, for any halting process.

    Behind a unit it counts what the next one would take at the positions that go on. Where that is more than an image
    has left, those with the least remainder halt at once, as many as need be: their h^l becomes 1, so that the present
    unit gets all of their remainder. The counting rule is that of sact_det/rule/flops.py, dilation included.

    Args:
        left: int64 [N], 0 or more: what the units behind the first may take, beyond what is spent on none of them.
        exists: bool [N, H, W], False at padding.
        eps: halts where the cumulative halting score reaches 1 - eps.
    """

    def __init__(self, left: Tensor, exists: Tensor, eps: float):
        self._left, self._exists, self._threshold = left, exists, 1.0 - eps
        self._cumulative: Tensor = torch.zeros((), device=exists.device)

    def __call__(self, h: Tensor, active: Tensor, cost: Cost) -> Tensor:
        """h^l, and 1 at the positions that must not evaluate the next unit.

        Args:
            h: halting scores of a unit, [N, H, W] (ACT: [N, 1, 1]); the units come one after the other.
            active: bool, of that shape: what evaluated it.
            cost: of the next unit: int64 [N, evaluated] and their dilation -> FLOPs, int64 [N]; 0 where it is not
                evaluated, and it must not fall with either.
        """
        cumulative = self._cumulative.to(h) + torch.where(active, h.detach(), torch.zeros_like(h))
        goes_on = active & (cumulative < self._threshold)
        taken = self._cost(cost, goes_on)
        if is_recording() or not h.is_cpu or bool((taken > self._left).any()):
            goes_on = self._affordable(goes_on, cumulative, cost)
            taken = self._cost(cost, goes_on)
        self._left = self._left - taken
        self._cumulative = cumulative
        return torch.where(active & ~goes_on, torch.ones_like(h), h)

    def _cost(self, cost: Cost, goes_on: Tensor) -> Tensor:
        return cost(*active_positions(goes_on, self._exists))

    def _affordable(self, goes_on: Tensor, cumulative: Tensor, cost: Cost) -> Tensor:
        """As many positions, those of the largest remainder first, as there is something left for."""
        order = torch.where(goes_on, cumulative, torch.inf).flatten(1).sort(dim=1, stable=True).indices
        rank = order.argsort(1).view_as(goes_on)
        low, high = torch.zeros_like(self._left), goes_on.flatten(1).sum(1)
        for _ in range(math.prod(rank.shape[1:]).bit_length()):
            middle = (low + high + 1) // 2
            fits = self._cost(cost, goes_on & (rank < middle[:, None, None])) <= self._left
            low, high = torch.where(fits, middle, low), torch.where(fits, high, middle - 1)
        return goes_on & (rank < low[:, None, None])
