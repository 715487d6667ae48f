"""A run evaluates a block unit by unit, as far as the halting rule asks for it.

Shape shorthand in this module:
    N: images; C: channels; H, W: feature map, padding included; L: residual units of the block.
"""

from abc import ABC, abstractmethod
from typing import Optional

import torch
from torch import Tensor
from typing_extensions import override

from sact_det.network.halting_rule import HaltingRule
from sact_det.network.unit import HaltingBranch, ResidualUnit
from sact_det.rule.padding import Mask
from sact_det.rule.process import HaltingProcess


class Run(ABC):
    """One evaluation of a block. It starts behind the block's first unit."""

    @property
    @abstractmethod
    def bounded(self) -> bool:
        """Whether a unit at no position costs next to nothing and needs no check, which would wait for a GPU."""

    @abstractmethod
    def start_halting(
        self, rule: HaltingRule, exists: Tensor, num_units: int, eps: float, dtype: torch.dtype
    ) -> HaltingProcess:
        """What halts the positions of this run, and of any that takes over; other arguments as of HaltingRule.start."""

    @abstractmethod
    def evaluate(self, unit: ResidualUnit, active: Optional[Tensor]) -> None:
        """Updates the state by a unit where active, bool [N, H, W] (ACT: [N, 1, 1]; a plain block: None).

        `active` only ever shrinks.
        """

    @abstractmethod
    def scores(self, branch: HaltingBranch) -> Tensor:
        """h^l of the state, of its score_type, [N, H, W] (ACT: [N, 1, 1]); anything finite where no longer active.

        The branch is that of the unit evaluated last.
        """

    @abstractmethod
    def add(self, weight: Tensor) -> None:
        """Adds the state, weighted by p^l, [N, H, W], to the output; in the end the weights sum to 1."""

    @abstractmethod
    def result(self) -> Tensor:
        """The output of the block, [N, C, H, W]; where nothing was added (a plain block), the state. Ends the run."""


class TensorRun(Run):
    """A run that leaves halting to tensor arithmetic."""

    bounded = False

    def start_halting(
        self, rule: HaltingRule, exists: Tensor, num_units: int, eps: float, dtype: torch.dtype
    ) -> HaltingProcess:
        """The rule's own process."""
        return rule.start(exists, num_units, eps, dtype)


class DenseRun(TensorRun):
    """Every position of every unit is computed; the residual is masked where a position has halted.

    Args:
        x: output of the first unit, [N, C, H, W].
        valid: bool [N, 1, H, W], False at padding, or None.
    """

    def __init__(self, x: Tensor, valid: Mask):
        self.x = x
        self.valid = valid
        self.output: Optional[Tensor] = None
        self.remaining: Optional[Tensor] = None  # 1 - sum of the weights so far

    @override
    def evaluate(self, unit: ResidualUnit, active: Optional[Tensor]) -> None:
        self.x = unit(self.x, None if active is None else active[:, None], self.valid, self.valid)

    @override
    def scores(self, branch: HaltingBranch) -> Tensor:
        return branch(self.x, self.valid)

    @override
    def add(self, weight: Tensor) -> None:
        weighted = weight[:, None] * self.x
        self.output = weighted if self.output is None else self.output + weighted
        self.remaining = (1.0 if self.remaining is None else self.remaining) - weight

    @override
    def result(self) -> Tensor:
        if self.output is None:
            return self.x if self.valid is None else self.x * self.valid
        return self.output.to(self.x.dtype)
