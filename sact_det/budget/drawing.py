"""What the steps of a training draw, so that one network is good at every budget."""

import math
from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

DRAWS = ("shift", "tau", "budget")
PER = ("batch", "image")


@dataclass(frozen=True)
class Drawing:
    """A range of shifts, or of what they stand for, and for what one is drawn.

    Three ways lead to a network that answers to its shift. Either the branches learn under shifts at the one price of
    the config, so that units learn to be good wherever positions halt. Or the price is drawn, log-uniformly, and the
    branches read its logarithm (ScoringBranch.read_price), so that they learn where to halt at every price. A shift is
    then the logarithm of the price's ratio to the config's: at 0, where a network is unless it is told otherwise, it
    halts as one that was trained for that price. Or budgets are drawn, evenly, and the shifts that spend them are
    tracked (sact_det/budget/tracked.py), so that no network can answer shifts by halting as before.

    Attributes:
        low, high: of the shift; of the budget.
        draws: one of DRAWS. With "tau" the shift is the logarithm of a price, which the step pays.
        per_image: whether every image has its own; else those of a batch have one.
    """

    low: float
    high: float
    draws: str = "shift"
    per_image: bool = False

    @property
    def price(self) -> bool:
        """Whether steps pay what is drawn."""
        return self.draws == "tau"

    @classmethod
    def of_prices(cls, tau: float, low: float, high: float, per_image: bool = False) -> "Drawing":
        """Prices from `low` to `high` around that of the config, `tau`; all positive."""
        return cls(math.log(low / tau), math.log(high / tau), "tau", per_image)

    @property
    def logged(self) -> str:
        """Under which name a training logs the mean of what a step draws."""
        return "sact/budget" if self.draws == "budget" else "sact/shift"

    def draw(self, images: int) -> Tensor:
        """The shift or budget of each image, [N], by PyTorch's generator of the CPU."""
        drawn = torch.rand(images if self.per_image else 1)
        return (self.low + (self.high - self.low) * drawn).expand(images)

    def price_ratios(self, shifts: Tensor, device: torch.device) -> Optional[Tensor]:
        """For the shifts [N] of a step, what the config's prices are multiplied by, [N]; None: they stay."""
        return shifts.exp().to(device) if self.price else None
