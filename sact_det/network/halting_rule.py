"""Halting rules as objects: what of a feature map halts, and what scores it.

A rule is a subclass of HaltingRule and an entry of HALTING_RULES: nothing else knows its name. Runs and kernels say
which rules they know; every rule works in the dense execution.
"""

from abc import ABC, abstractmethod
from typing import Optional

import torch
from torch import Tensor

from sact_det.base.checks import check_choice
from sact_det.network.branch import ImageHalting, SpatialHalting
from sact_det.network.unit import HaltingBranch
from sact_det.rule.halting import DEFAULT_EPS
from sact_det.rule.process import HaltingProcess, TensorHalting


class HaltingRule(ABC):
    """How the positions of a block halt.

    Attributes:
        name: in configs and weight files.
        adaptive: whether anything ever halts; without it a block is a plain ResNet's.
        per_image: one decision per image, not per position.
    """

    name: str
    adaptive = True
    per_image = False

    @property
    def by_position(self) -> bool:
        """Whether positions halt one by one, so that ponder costs are maps."""
        return self.adaptive and not self.per_image

    @property
    @abstractmethod
    def branch(self) -> Optional[type[HaltingBranch]]:
        """What scores a unit's output, for every unit but the last of a block; None: nothing does.

        It is made of the channels of that output, a maker of norms and the activation behind these, as of
        SpatialHalting.
        """

    def start(self, exists: Tensor, num_units: int, eps: float, dtype: torch.dtype = torch.float32) -> HaltingProcess:
        """The process in front of a block's first unit, as tensor arithmetic; arguments as of TensorHalting."""
        return TensorHalting(exists, num_units, eps, self.per_image, dtype)


class Plain(HaltingRule):
    """The rule of a plain ResNet: nothing halts, every unit runs everywhere."""

    name = "none"
    adaptive = False
    branch = None


class ACT(HaltingRule):
    """Adaptive computation time: an image halts as a whole (algorithm 1, equation 6)."""

    name = "act"
    per_image = True
    branch = ImageHalting


class SACT(HaltingRule):
    """Spatially adaptive computation time: every position halts by itself (algorithm 2, equation 14)."""

    name = "sact"
    branch = SpatialHalting


HALTING_RULES: dict[str, HaltingRule] = {rule.name: rule for rule in (Plain(), ACT(), SACT())}


def halting_rule(name: str, eps: float = DEFAULT_EPS, tile: int = 1) -> HaltingRule:
    """The rule of a name.

    Args:
        name: a key of HALTING_RULES.
        eps: halts where the cumulative halting score reaches 1 - eps.
        tile: halting scores are shared in tile x tile cells.

    Raises:
        ValueError: there is no such rule, or it cannot have such an argument.
    """
    check_choice("halting", name, tuple(HALTING_RULES))
    rule = HALTING_RULES[name]
    if not 0 < eps < 1:
        raise ValueError(f"`eps` must lie in (0, 1); got {eps}")
    if tile < 1 or (tile > 1 and not rule.by_position):
        spatial = " or ".join(repr(other.name) for other in HALTING_RULES.values() if other.by_position)
        raise ValueError(f"`tile` must be 1, or more with halting {spatial}; got {tile} with {name!r}")
    return rule
