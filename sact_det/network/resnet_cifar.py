"""The CIFAR-10 network of the original program: pre-activation units of two 3x3 convolutions, in three blocks.

ResNet-32 is units (5, 5, 5). What the usual CIFAR ResNet does not have, read off the original program's outputs:

* every norm, those of the halting branches too, is followed by a leaky ReLU of slope 0.1; behind conv1 it is applied
  twice (slope 0.01 in effect);
* the last norm stands behind the global mean, not before it;
* the root convolution and conv2 have biases;
* the shortcut has no weights: 2x2 average pooling where the unit has stride 2, and zeros for the new channels, half of
  them before and half behind the old ones. The very first unit takes its pre-activation as shortcut.

Shape shorthand in this module:
    N: images; C: channels; H, W: feature map.
"""

from dataclasses import dataclass
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from sact_det.network.convolution import init_conv, pad_same
from sact_det.network.norm import Norm
from sact_det.network.spec import NetworkSpec
from sact_det.network.unit import Count, HaltingBranch, ResidualUnit
from sact_det.rule.flops import conv_flops
from sact_det.rule.padding import Mask, Sizes, positions

SLOPE = 0.1
NORM_DECAY = 0.9
NORM_EPSILON = 1e-3


class CifarStem(nn.Module):
    """Root convolution 3x3 (bias, neither norm nor activation): stride 1."""

    stride = 1

    def __init__(self, channels: int):
        super().__init__()
        self.conv = init_conv(nn.Conv2d(3, channels, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x: [N, 3, H, W] -> [N, channels, H, W]."""
        return self.conv(x)

    def flops(self, sizes: Optional[Sizes], image_size: tuple[int, int], batch: int, device: torch.device) -> Tensor:
        """int64 [N]: the root convolution's FLOPs."""
        return conv_flops(self.conv) * positions(sizes, image_size, batch, device)


class CifarUnit(ResidualUnit):
    """F(x) = shortcut + f(x), where f is BN-LReLU-3x3, BN-LReLU-LReLU-3x3.

    Args:
        in_channels, channels: of input and output.
        stride: of conv1 (TensorFlow SAME) and the shortcut, 1 or 2.
        preact_shortcut: the shortcut starts from the pre-activation, not from the raw input.
        norm: makes a norm of so many channels (sact_det/network/norm.py).
        halting: the branch that scores this unit's output, or None.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        preact_shortcut: bool,
        norm: Norm,
        halting: Optional[HaltingBranch] = None,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.stride = stride
        self.preact_shortcut = preact_shortcut
        self.new_channels = channels - in_channels
        self.preact = norm(in_channels)
        self.conv1 = init_conv(nn.Conv2d(in_channels, channels, 3, stride, padding=1 if stride == 1 else 0, bias=False))
        self.norm1 = norm(channels)
        self.conv2 = init_conv(nn.Conv2d(channels, channels, 3, 1, 1))
        self.halting = halting

    @override
    def forward(self, x: Tensor, active: Mask = None, valid_in: Mask = None, valid: Mask = None) -> Tensor:
        """The unit everywhere, as of the base class. Raises ValueError where there is padding: this family has none."""
        if valid_in is not None or valid is not None:
            raise ValueError("the CIFAR network takes batches of images of one size")
        preact = F.leaky_relu(self.preact(x), SLOPE)
        shortcut = preact if self.preact_shortcut else x
        if self.stride == 2:
            shortcut = F.avg_pool2d(shortcut, 2, ceil_mode=True)
        if self.new_channels:
            before = self.new_channels // 2
            shortcut = F.pad(shortcut, (0, 0, 0, 0, before, self.new_channels - before))
        y = self.norm1(self.conv1(preact if self.stride == 1 else pad_same(preact)))
        residual = self.conv2(F.leaky_relu(y, SLOPE**2))
        return shortcut + (residual if active is None else residual * active)

    @override
    def flops(
        self, dense_in: Count, dense_out: Count, active: Optional[Count] = None, dilated: Optional[Count] = None
    ) -> Count:
        at_conv1, at_conv2 = (dense_out if count is None else count for count in (dilated, active))
        return conv_flops(self.conv1) * at_conv1 + conv_flops(self.conv2) * at_conv2


@dataclass(frozen=True)
class ResNetCifarSpec(NetworkSpec):
    """Everything that determines the blocks of the CIFAR network ("cifar"); attributes as in NetworkSpec."""

    family = "cifar"
    max_blocks = 3

    units: tuple[int, ...] = (5, 5, 5)
    base_channels: int = 16
    norm_decay: float = NORM_DECAY
    norm_epsilon: float = NORM_EPSILON

    def out_channels(self, index: int) -> int:
        """Channels of block `index`'s output; 0 is the stem."""
        return self.base_channels * 2 ** max(index - 1, 0)

    def build_stem(self) -> CifarStem:
        """Root convolution."""
        return CifarStem(self.base_channels)

    def build_unit(self, index: int, first: bool, halting: Optional[HaltingBranch]) -> CifarUnit:
        """A unit of block `index`; the first one of blocks 2 and 3 has stride 2."""
        return CifarUnit(
            in_channels=self.out_channels(index - 1 if first else index),
            channels=self.out_channels(index),
            stride=2 if first and index > 1 else 1,
            preact_shortcut=first and index == 1,
            norm=self.make_norm,
            halting=halting,
        )

    def pool(self, x: Tensor, postnorm: nn.Module) -> Tensor:
        """The mean of the features, then norm and activation."""
        return F.leaky_relu(postnorm(x.mean((2, 3), keepdim=True)), SLOPE)

    def activate_halting(self, x: Tensor) -> Tensor:
        """Leaky ReLU."""
        return F.leaky_relu(x, SLOPE)
