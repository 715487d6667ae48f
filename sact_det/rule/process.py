"""The halting rule carried through the units of a block, and what it leaves to be accounted for.

Shape shorthand in this module:
    N: images; H, W: feature map, padding included; L: residual units of the block.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor
from typing_extensions import override

from sact_det.rule.flops import active_positions
from sact_det.rule.halting import halting_step, start_halting


@dataclass(frozen=True)
class HaltingOutcome:
    """What a block's positions did.

    Attributes:
        ponder_cost, num_units: as of BlockPonder.
        distribution: p^l, [N, L, H, W] (ACT: [N, L, 1, 1]), detached.
        evaluated, dilated: int64 [N, L], the active positions of each unit and their 3x3 dilation.
    """

    ponder_cost: Tensor
    num_units: Tensor
    distribution: Tensor
    evaluated: Tensor
    dilated: Tensor


class HaltingProcess(ABC):
    """Algorithm 2 (1 for ACT) from unit to unit."""

    @property
    @abstractmethod
    def active(self) -> Tensor:
        """bool [N, H, W] (ACT: [N, 1, 1]): what evaluates the next unit; valid until the next step."""

    @abstractmethod
    def any_active(self) -> bool:
        """Whether anything does; may wait for a GPU."""

    @abstractmethod
    def step(self, h: Optional[Tensor]) -> Tensor:
        """p^l of one unit after the other.

        Args:
            h: halting scores h^l, of the shape of `active`; None for the last unit.
        """

    @abstractmethod
    def outcome(self) -> HaltingOutcome:
        """What was done; units behind the last step were not evaluated."""


class TensorHalting(HaltingProcess):
    """The process as tensor arithmetic, on any device, with gradients.

    Args:
        exists: bool [N, H, W], False at padding.
        num_units: L.
        eps: halts where the cumulative halting score reaches 1 - eps.
        per_image: one decision per image (ACT), not per position.
        dtype: of the halting scores, float32 or float64.
    """

    def __init__(
        self,
        exists: Tensor,
        num_units: int,
        eps: float,
        per_image: bool = False,
        dtype: torch.dtype = torch.float32,
    ):
        self._exists = exists
        self._num_units = num_units
        self._eps = eps
        self._state = start_halting(torch.ones_like(exists[:, :1, :1]) if per_image else exists, dtype)
        self._distribution: list[Tensor] = []
        self._counts = [active_positions(self.active, exists)]

    @property
    @override
    def active(self) -> Tensor:
        return self._state.active

    @override
    def any_active(self) -> bool:
        return bool(self._counts[-1][0].any())

    @override
    def step(self, h: Optional[Tensor]) -> Tensor:
        p, self._state = halting_step(self._state, h, self._eps)
        self._distribution.append(p.detach())
        if len(self._distribution) < self._num_units:
            self._counts.append(active_positions(self.active, self._exists))
        return p

    @override
    def outcome(self) -> HaltingOutcome:
        idle = self._num_units - len(self._distribution)
        counts = (*self._counts, *[(torch.zeros_like(self._counts[0][0]),) * 2] * idle)[: self._num_units]
        evaluated, dilated = (torch.stack(parts, 1) for parts in zip(*counts))
        distribution = [*self._distribution, *[torch.zeros_like(self._state.remainder)] * idle]
        return HaltingOutcome(
            self._state.ponder_cost, self._state.num_units, torch.stack(distribution, 1), evaluated, dilated
        )
