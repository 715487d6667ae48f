"""The pre-activation residual network of the paper, block by block.

He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016, https://arxiv.org/abs/1603.05027; the layout is
that of TF-Slim's resnet_v2 as the original SACT program uses it: the stride sits in the first unit of a block.

Shape shorthand in this module:
    N: images; C: channels; H, W: feature map, padding included.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from sact_det.base.checks import are_positive_integers, check_choice
from sact_det.network.convolution import init_conv, pad_same
from sact_det.network.norm import Norm
from sact_det.network.plan import PlannedStem
from sact_det.network.spec import NetworkSpec
from sact_det.network.unit import Count, HaltingBranch, SplitUnit
from sact_det.rule.flops import conv_flops
from sact_det.rule.padding import Mask, Sizes, check_batch, own_sizes, positions, strided_size, strided_sizes

ROOT_CHANNELS = 64
EXPANSION = 4
EXTRACTOR_BLOCKS = (1, 2, 3)  # of a detector, whose block 4 is in its box head
UNITS_BY_DEPTH = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}


def same_max_pool_of(height: int, width: int) -> Callable[[Tensor], Tensor]:
    """3x3 max pooling of stride 2 for maps of that size, as pad_same (convolution.py) pads.

    A window that reaches beyond the end is cut.
    """
    return partial(F.max_pool2d, kernel_size=3, stride=2, padding=(height % 2, width % 2), ceil_mode=True)


def same_max_pool(x: Tensor) -> Tensor:
    """3x3 max pooling of stride 2 of x, padded by its size as same_max_pool_of says."""
    if torch.jit.is_tracing() or isinstance(x.shape[2], torch.SymInt):  # no number may follow from the shape
        return F.max_pool2d(pad_same(x, -math.inf), 3, 2)
    return same_max_pool_of(x.shape[2], x.shape[3])(x)


def symmetric_max_pool(x: Tensor) -> Tensor:
    """3x3 max pooling of stride 2, every side padded by 1 at both ends: on even sides the windows start one earlier."""
    return F.max_pool2d(x, 3, 2, 1)


STEM_POOLS = {"same": same_max_pool, "symmetric": symmetric_max_pool}


class Stem(PlannedStem):
    """Root convolution 7x7/2 (bias, neither norm nor ReLU) and max pooling 3x3/2: stride 4.

    Args:
        channels: of the output.
        pool: "same" (TensorFlow's) or "symmetric" (PyTorch's): how the pooling is padded.
    """

    stride = 4

    def __init__(self, channels: int = ROOT_CHANNELS, pool: str = "same"):
        super().__init__()
        self.pool = STEM_POOLS[pool]
        self.conv = init_conv(nn.Conv2d(3, channels, 7, 2, 3))

    def forward(self, x: Tensor, sizes: Optional[Sizes] = None) -> Tensor:
        """x: [N, 3, H, W], zero at padding -> [N, channels, ceil(H / 4), ceil(W / 4)], zero at padding.

        Raises ValueError as AdaptiveBlock.forward does.
        """
        check_batch("x", x, sizes)
        sizes = own_sizes(sizes, (x.shape[2], x.shape[3]))
        return self.present_plan.stem(self, x, sizes)

    @override
    def compute(self, x: Tensor, sizes: Optional[Sizes]) -> Tensor:
        if sizes is None:
            return self.pool(self.conv(x))
        # Where the windows of "same" start depends on whether a side is odd: no padded batch has one alignment for all.
        rows, columns = strided_size((x.shape[2], x.shape[3]), self.stride)
        parts = [self.pool(self.conv(image[None, :, :h, :w])) for image, (h, w) in zip(x, sizes)]
        return torch.cat([F.pad(part, (0, columns - part.shape[3], 0, rows - part.shape[2])) for part in parts])

    def flops(self, sizes: Optional[Sizes], image_size: tuple[int, int], batch: int, device: torch.device) -> Tensor:
        """int64 [N]: the root convolution's FLOPs."""
        half = strided_size(image_size, 2)
        return conv_flops(self.conv) * positions(strided_sizes(sizes, 2), half, batch, device)


class BottleneckUnit(SplitUnit):
    """F(x) = shortcut + f(x), where f is BN-ReLU-1x1, BN-ReLU-3x3, BN-ReLU-1x1.

    The shortcut is the raw input, or a 1x1 convolution of the pre-activation where the shape changes.

    Args:
        in_channels, width: input channels and bottleneck width; the output has 4 * width channels.
        stride: of the 3x3 convolution and the shortcut.
        dilation: of the 3x3 convolution.
        norm: makes a norm of so many channels (sact_det/network/norm.py).
        halting: the branch that scores this unit's output, or None.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        dilation: int,
        norm: Norm,
        halting: Optional[HaltingBranch] = None,
    ):
        super().__init__()
        channels = EXPANSION * width
        self.in_channels = in_channels
        self.stride = stride
        self.preact = norm(in_channels)
        self.conv1 = init_conv(nn.Conv2d(in_channels, width, 1, bias=False))
        self.norm1 = norm(width)
        self.conv2 = init_conv(nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False))
        self.norm2 = norm(width)
        self.conv3 = init_conv(nn.Conv2d(width, channels, 1))
        changes_shape = stride > 1 or in_channels != channels
        self.shortcut = init_conv(nn.Conv2d(in_channels, channels, 1, stride)) if changes_shape else None
        self.halting = halting

    @override
    def forward(self, x: Tensor, active: Mask = None, valid_in: Mask = None, valid: Mask = None) -> Tensor:
        preact = F.relu(self.preact(x, valid_in), inplace=True)
        shortcut = x if self.shortcut is None else self.shortcut(preact)
        residual = self._residual(self.conv1(preact), valid_in, valid)
        return shortcut + (residual if active is None else residual * active)

    def _residual(self, y: Tensor, valid_in: Mask, valid: Mask) -> Tensor:
        """f(x), from conv1's product on."""
        y = F.relu(self.norm1(y, valid_in), inplace=True)
        if valid_in is not None:
            y = y * valid_in  # conv2 must meet zeros beyond the image, as it does beyond the map
        return self.conv3(F.relu(self.norm2(self.conv2(y), valid), inplace=True))

    @override
    def products(self, x: Tensor, valid: Mask = None) -> tuple[Tensor, Tensor]:
        assert self.shortcut is not None
        preact = F.relu(self.preact(x, valid), inplace=True)
        if valid is not None:
            preact = preact * valid
        return self.conv1(preact), F.conv2d(preact, self.shortcut.weight)

    @override
    def behind_products(self, x: Tensor, shortcut: Tensor, valid_in: Mask = None, valid: Mask = None) -> Tensor:
        assert self.shortcut is not None and self.shortcut.bias is not None
        bias = self.shortcut.bias.to(shortcut.dtype)[:, None, None]
        return shortcut + bias + self._residual(x, valid_in, valid)

    @override
    def flops(
        self, dense_in: Count, dense_out: Count, active: Optional[Count] = None, dilated: Optional[Count] = None
    ) -> Count:
        products = self.product_flops(dense_in if dilated is None else dilated, dense_out)
        return products + (conv_flops(self.conv2) + conv_flops(self.conv3)) * (dense_out if active is None else active)

    @override
    def product_flops(self, dense_in: Count, dense_out: Count) -> Count:
        flops = conv_flops(self.conv1) * dense_in
        return flops if self.shortcut is None else flops + conv_flops(self.shortcut) * dense_out


@dataclass(frozen=True)
class ResNetV2Spec(NetworkSpec):
    """Everything that determines the blocks of a pre-activation bottleneck ResNet ("imagenet").

    Attributes:
        base_channels: bottleneck width of block 1.
        strides: per block, the stride of its first unit.
        dilation: per block, the dilation of conv2 in the block's first unit. Weights trained with the stride in the
            last unit of the block before (TF-Slim's) need 2 there to compute the same values.
        stem_pool: padding of the stem's pooling, "same" or "symmetric". Weights trained in PyTorch need "symmetric".
        (the others as in NetworkSpec)
    """

    family = "imagenet"
    max_blocks = 4

    units: tuple[int, ...] = UNITS_BY_DEPTH[101]
    base_channels: int = 64
    strides: tuple[int, ...] = (1, 2, 2, 2)
    dilation: tuple[int, ...] = (1, 1, 1, 1)
    stem_pool: str = "same"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("stem_pool", self.stem_pool, tuple(STEM_POOLS))
        for name, values in (("strides", self.strides), ("dilation", self.dilation)):
            if len(values) < len(self.units) or not are_positive_integers(values):
                raise ValueError(f"`{name}` must list a positive integer per block ({len(self.units)}); got {values}")

    @classmethod
    def of_depth(cls, depth: int, **others: Any) -> "ResNetV2Spec":
        """That of ResNet-50, 101, 152 or 200, with other fields by name."""
        check_choice("depth", depth, tuple(UNITS_BY_DEPTH))
        return cls(units=UNITS_BY_DEPTH[depth], **others)

    def out_channels(self, index: int) -> int:
        """Channels of block `index`'s output; 0 is the stem."""
        return ROOT_CHANNELS if index == 0 else self.base_channels * 2 ** (index - 1) * EXPANSION

    def build_stem(self) -> Stem:
        """Root convolution and pooling."""
        return Stem(pool=self.stem_pool)

    def build_unit(self, index: int, first: bool, halting: Optional[HaltingBranch]) -> BottleneckUnit:
        """A unit of block `index`."""
        return BottleneckUnit(
            in_channels=self.out_channels(index - 1 if first else index),
            width=self.out_channels(index) // EXPANSION,
            stride=self.strides[index - 1] if first else 1,
            dilation=self.dilation[index - 1] if first else 1,
            norm=self.make_norm,
            halting=halting,
        )

    def pool(self, x: Tensor, postnorm: nn.Module) -> Tensor:
        """The mean of the normalised, rectified features."""
        return F.relu(postnorm(x)).mean((2, 3), keepdim=True)
