"""What a network is, as plain values: the fields that families of networks share, and their blocks built from them."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Optional

from torch import Tensor, nn

from sact_det.base.checks import are_positive_integers, check_choice
from sact_det.network.block import AdaptiveBlock
from sact_det.network.branch import linear
from sact_det.network.halting_rule import HaltingRule, halting_rule
from sact_det.network.norm import NORMS, TF_DECAY, TF_EPSILON, Norm, get_norm
from sact_det.network.unit import HaltingBranch, ResidualUnit
from sact_det.rule.halting import DEFAULT_EPS


@dataclass(frozen=True)
class NetworkSpec:
    """Everything that determines the blocks of a network. A family of networks is a subclass.

    Attributes:
        units: residual units per block.
        base_channels: width of block 1; it doubles from block to block.
        halting: name of the halting rule (halting_rule.py): "none", "act" or "sact".
        norm, halting_norm: norms of the residual units and of the halting branches (sact_det/network/norm.py).
        norm_decay: decay of the moving statistics of norms that learn them.
        eps: halting threshold is 1 - eps.
        tile: SACT shares halting scores in tile x tile cells.
        norm_epsilon: added to the variance in every norm.
        prices: the lowest that the halting branches read, the one at which they read 0, and the highest
            (sact_det/network/unit.py: ScoringBranch.read_price); None: they read none.

    Raises:
        ValueError: an attribute is out of range.
    """

    family: ClassVar[str]
    max_blocks: ClassVar[int]

    units: tuple[int, ...] = ()
    base_channels: int = 1
    halting: str = "sact"
    norm: str = "BN"
    halting_norm: str = "BN"
    norm_decay: float = TF_DECAY
    eps: float = DEFAULT_EPS
    tile: int = 1
    norm_epsilon: float = TF_EPSILON
    prices: Optional[tuple[float, float, float]] = None

    def __post_init__(self) -> None:
        halting_rule(self.halting, self.eps, self.tile)
        if not 1 <= len(self.units) <= self.max_blocks or not are_positive_integers(self.units):
            raise ValueError(
                f"`units` must list 1 to {self.max_blocks} positive integers, one per block; got {self.units}"
            )
        if self.base_channels < 1:
            raise ValueError(f"`base_channels` must be positive; got {self.base_channels}")
        check_choice("norm", self.norm, tuple(NORMS))
        check_choice("halting_norm", self.halting_norm, tuple(NORMS))
        if not 0 <= self.norm_decay < 1:
            raise ValueError(f"`norm_decay` must lie in [0, 1); got {self.norm_decay}")

    def out_channels(self, index: int) -> int:
        """Channels of block `index`'s output; 0 is the stem."""
        raise NotImplementedError

    def build_stem(self) -> nn.Module:
        """What stands before block 1: a module with `flops` as in resnet_v2.Stem."""
        raise NotImplementedError

    def build_unit(self, index: int, first: bool, halting: Optional[HaltingBranch]) -> ResidualUnit:
        """A unit of block `index`, the `first` or a later one."""
        raise NotImplementedError

    def pool(self, x: Tensor, postnorm: nn.Module) -> Tensor:
        """What the logits read: [N, C, H, W] of the last block -> [N, C, 1, 1]."""
        raise NotImplementedError

    activate_halting = staticmethod(linear)  # the activation behind the norms of the halting branches

    def describe(self) -> dict[str, Any]:
        """The architecture part of a weight file's metadata (sact_det/weights/weight_file.py)."""
        keys = ("family", "units", "base_channels", "halting", "dilation", "stem_pool", "prices")
        return {key: value for key in keys if (value := getattr(self, key, None)) is not None}

    @property
    def rule(self) -> HaltingRule:
        """The halting rule of all blocks."""
        return halting_rule(self.halting)

    @property
    def make_norm(self) -> Norm:
        """Makes the norms of the residual units and of what reads them."""
        return get_norm(self.norm, self.norm_decay, self.norm_epsilon)

    @property
    def make_halting_norm(self) -> Norm:
        """Makes the norms of the halting branches."""
        return get_norm(self.halting_norm, self.norm_decay, self.norm_epsilon)

    def build_block(self, index: int) -> AdaptiveBlock:
        """Block `index`, counted from 1."""
        branch, last = self.rule.branch, self.units[index - 1] - 1
        units = []
        for unit in range(last + 1):
            halting = None
            if branch is not None and unit < last:
                halting = branch(self.out_channels(index), self.make_halting_norm, self.activate_halting)
                if self.prices is not None:
                    low, tau, high = self.prices
                    halting.read_price(math.log(low / tau), math.log(high / tau))
            units.append(self.build_unit(index, unit == 0, halting))
        return AdaptiveBlock(units, self.halting, self.eps, self.tile)
