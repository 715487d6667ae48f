"""What a block is made of: residual units, and the halting branches behind them.

Shape shorthand in this module:
    N: images; C: channels; H, W: feature map, padding included.
"""

from abc import ABC, abstractmethod
from typing import Any, Callable, Optional, TypeVar, Union

import torch
from torch import Tensor, nn

from sact_det.base.precision import score_type
from sact_det.rule.padding import Mask

Count = TypeVar("Count", int, Tensor)  # of one image, or of N images, int64 [N]


class ScoringBranch(nn.Module):
    """What makes halting scores, of whatever halts.

    Its parameters do not follow where a module is cast to 16 bits: scores are computed in float32 at least.

    Attributes:
        shift: a number that every score's logit has more than its parameters say; 0 unless it is set. The higher, the
            earlier things halt; at -inf nothing ever does. It is no parameter, and no state dict has it. Every
            execution sees a change, also one whose packed weights stay. In training it may be one number for each row
            of the batch, float32 [N].
        price_weight: what a shift is multiplied by within `price_range`, [1]; None: nothing, and the range is empty.
        price_range: lowest and highest shift that are read as the logarithm of a price (`read_price`).
        fixed: whether scores are constants, through which no gradient passes (sact_det/network/freeze.py).
    """

    price_weight: Optional[nn.Parameter]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.shift: Union[float, Tensor] = 0.0
        self.price_range = (0.0, 0.0)
        self.fixed = False
        self.register_parameter("price_weight", None)

    def read_price(self, low: float, high: float) -> None:
        """Makes the logarithm of the price that is paid for a unit an input of the branch, with a coefficient of 0.

        Within this range the shift *is* that logarithm, and every logit has `price_weight` times so much more; what
        lies beyond the range is added as it is, so that any shift, -inf among them, still means what it did.
        """
        self.price_range = (low, high)
        self.price_weight = nn.Parameter(torch.zeros(1))

    def added(self, price_weight: Optional[float] = None) -> Union[float, Tensor]:
        """What every logit has more than without a shift: a number, or, where rows differ, [N].

        Args:
            price_weight: the parameter's value, for those who have packed it; None: the parameter, differentiable.
        """
        if self.price_weight is None:
            return self.shift
        low, high = self.price_range
        read = self.shift.clamp(low, high) if isinstance(self.shift, Tensor) else min(max(self.shift, low), high)
        return (self.price_weight if price_weight is None else price_weight) * read + (self.shift - read)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ScoringBranch":
        def keep_precision(t: Tensor) -> Tensor:
            changed = fn(t)
            narrow = changed.dtype in (torch.float16, torch.bfloat16)
            return t.to(changed.device, score_type(changed.dtype)) if narrow else changed

        return super()._apply(keep_precision, recurse)


class HaltingBranch(ScoringBranch, ABC):
    """H^l: scores the output of a unit (eq. 4)."""

    @abstractmethod
    def forward(self, x: Tensor, valid: Mask = None) -> Tensor:
        """x: [N, C, H, W] -> h^l in (0, 1), of score_type [N, H, W] or, one per image, [N, 1, 1]."""

    @abstractmethod
    def flops(self, evaluated: Count, image_active: Count) -> Count:
        """FLOPs of the branch, linear in its arguments but for what every image costs.

        Args:
            evaluated: positions at which the unit is evaluated.
            image_active: 1 for an image that evaluates the unit at all, else 0.
        """


class ResidualUnit(nn.Module, ABC):
    """F^l: one residual unit (eq. 2) and, behind all but the last of a block, its halting branch."""

    in_channels: int
    conv1: nn.Conv2d
    conv2: nn.Conv2d
    stride: int
    halting: Optional[HaltingBranch]

    @abstractmethod
    def forward(self, x: Tensor, active: Mask = None, valid_in: Mask = None, valid: Mask = None) -> Tensor:
        """The unit everywhere; halted positions keep their state.

        Args:
            x: [N, C, H, W].
            active: bool [N, 1, H or 1, W or 1]; the residual is zero elsewhere (fig. 5). None: active everywhere.
            valid_in, valid: bool [N, 1, ., .] at input and output resolution, False at padding; None: no padding.
        """

    @abstractmethod
    def flops(
        self, dense_in: Count, dense_out: Count, active: Optional[Count] = None, dilated: Optional[Count] = None
    ) -> Count:
        """FLOPs of the unit without its halting branch, linear in its arguments.

        Args:
            dense_in, dense_out: positions of an image at input and output resolution.
            active, dilated: active positions and their dilation; None for a unit computed everywhere.
        """


class SplitUnit(ResidualUnit, ABC):
    """A residual unit in two parts: 1x1 products of its normalised input, and the rest, which reads them.

    Whatever is linear in the positions of a map, RoIAlign above all, may come between the parts.
    """

    @abstractmethod
    def products(self, x: Tensor, valid: Mask = None) -> tuple[Tensor, Tensor]:
        """The first part at all positions, without stride and biases.

        Args:
            x: [N, C, H, W].
            valid: bool [N, 1, H, W], False at padding, where products are 0; None: no padding.

        Returns:
            conv1's product and that of the projecting shortcut, [N, ., H, W].
        """

    @abstractmethod
    def behind_products(self, x: Tensor, shortcut: Tensor, valid_in: Mask = None, valid: Mask = None) -> Tensor:
        """The second part.

        Args:
            x: conv1's product, at input resolution.
            shortcut: the projecting shortcut's, without its bias, at output resolution.
            valid_in, valid: as of `forward`.
        """

    @abstractmethod
    def product_flops(self, dense_in: Count, dense_out: Count) -> Count:
        """FLOPs of the first part among those of `flops`; arguments as there."""
