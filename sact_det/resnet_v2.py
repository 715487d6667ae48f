"""The pre-activation residual network of the paper, block by block.

He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016, https://arxiv.org/abs/1603.05027; the layout is
that of TF-Slim's resnet_v2 as the original SACT program uses it: the stride sits in the first unit of blocks 2-4.

Shape shorthand in this module:
    N: images; C: channels; H, W: feature map, padding included.
"""

from dataclasses import dataclass
from typing import Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sact_det.block import AdaptiveBlock, HaltingBranch, ResidualUnit, check_choice, check_halting
from sact_det.flops import conv_flops
from sact_det.halting import DEFAULT_EPS
from sact_det.norm import NORMS, TF_DECAY, Norm, get_norm
from sact_det.padding import Sizes, own_sizes, positions, strided_sizes

ROOT_CHANNELS = 64
EXPANSION = 4
HALTING_BIAS = -3.0
UNITS_BY_DEPTH = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}


def init_conv(conv: nn.Conv2d, bias: float = 0.0) -> nn.Conv2d:
    """The original's initialisation: truncated normal of variance 1.3 * 2 / fan_in, cut at two deviations."""
    std = (1.3 * 2 / conv.weight[0].numel()) ** 0.5
    nn.init.trunc_normal_(conv.weight, std=std, a=-2 * std, b=2 * std)
    if conv.bias is not None:
        nn.init.constant_(conv.bias, bias)
    return conv


def same_max_pool(x: Tensor) -> Tensor:
    """3x3 max pooling of stride 2, TensorFlow SAME: an even side is padded 0 before and 1 after, an odd one 1 and 1."""
    before = [side % 2 for side in (x.shape[3], x.shape[2])]
    return F.max_pool2d(F.pad(x, (before[0], 1, before[1], 1), value=float("-inf")), 3, 2)


class Stem(nn.Module):
    """Root convolution 7x7/2 (bias, neither norm nor ReLU) and max pooling 3x3/2: stride 4."""

    stride = 4

    def __init__(self, channels: int = ROOT_CHANNELS):
        super().__init__()
        self.conv = init_conv(nn.Conv2d(3, channels, 7, 2, 3))

    def forward(self, x: Tensor, sizes: Optional[Sizes] = None) -> Tensor:
        """x: [N, 3, H, W], zero at padding -> [N, channels, ceil(H / 4), ceil(W / 4)], zero at padding."""
        sizes = own_sizes(sizes, (x.shape[2], x.shape[3]))
        if sizes is None:
            return same_max_pool(self.conv(x))
        # Where the pooling windows start depends on whether a side is odd: no padded batch has one alignment for all.
        rows, columns = strided_sizes([(x.shape[2], x.shape[3])], self.stride)[0]  # type: ignore[index]
        parts = [same_max_pool(self.conv(image[None, :, :h, :w])) for image, (h, w) in zip(x, sizes)]
        return torch.cat([F.pad(part, (0, columns - part.shape[3], 0, rows - part.shape[2])) for part in parts])

    def flops(self, sizes: Optional[Sizes], image_size: tuple[int, int], batch: int, device: torch.device) -> Tensor:
        """int64 [N]: the root convolution's FLOPs."""
        half = (-(-image_size[0] // 2), -(-image_size[1] // 2))
        return conv_flops(self.conv) * positions(strided_sizes(sizes, 2), half, batch, device)


def _mean(x: Tensor, valid: Optional[Tensor]) -> Tensor:
    """[N, C, H, W] -> [N, C, 1, 1]: the mean over an image's own positions."""
    if valid is None:
        return x.mean((2, 3), keepdim=True)
    return (x * valid).sum((2, 3), keepdim=True) / valid.sum((2, 3), keepdim=True)


class SpatialHalting(HaltingBranch):
    """H^l of SACT: sigma(conv3x3(BN(x)) + conv1x1(BN(mean(x))) + b) at every position (eq. 14).

    Both norms are the original program's; the equation leaves them out. Always computed in float32.
    """

    def __init__(self, channels: int, norm: Norm):
        super().__init__()
        self.local_norm = norm(channels)
        self.local_conv = init_conv(nn.Conv2d(channels, 1, 3, padding=1), HALTING_BIAS)
        self.global_norm = norm(channels)
        self.global_conv = init_conv(nn.Conv2d(channels, 1, 1, bias=False))

    def forward(self, x: Tensor, valid: Optional[Tensor] = None) -> Tensor:
        """x: [N, C, H, W] -> h^l, float32 [N, H, W] in (0, 1)."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            local = self.local_norm(x, valid)
            if valid is not None:
                local = local * valid
            pooled = self.global_norm(_mean(x, valid))
            return torch.sigmoid(self.local_conv(local) + self.global_conv(pooled))[:, 0]

    def flops(self, evaluated: Tensor, image_active: Tensor) -> Tensor:
        """int64 [N], from the positions each image evaluates; the global branch counts for every image."""
        return conv_flops(self.local_conv) * evaluated + conv_flops(self.global_conv)


class ImageHalting(HaltingBranch):
    """H^l of ACT: sigma(conv1x1(BN(mean(x))) + b), one score per image (eq. 6). Always computed in float32."""

    def __init__(self, channels: int, norm: Norm):
        super().__init__()
        self.global_norm = norm(channels)
        self.global_conv = init_conv(nn.Conv2d(channels, 1, 1), HALTING_BIAS)

    def forward(self, x: Tensor, valid: Optional[Tensor] = None) -> Tensor:
        """x: [N, C, H, W] -> h^l, float32 [N, 1, 1] in (0, 1)."""
        with torch.autocast(x.device.type, enabled=False):
            return torch.sigmoid(self.global_conv(self.global_norm(_mean(x.float(), valid))))[:, 0]

    def flops(self, evaluated: Tensor, image_active: Tensor) -> Tensor:
        """int64 [N]: counts for the images that evaluate the unit."""
        return conv_flops(self.global_conv) * image_active.long()


class BottleneckUnit(ResidualUnit):
    """F(x) = shortcut + f(x), where f is BN-ReLU-1x1, BN-ReLU-3x3, BN-ReLU-1x1.

    The shortcut is the raw input, or a 1x1 convolution of the pre-activation where the shape changes.

    Args:
        in_channels, width: input channels and bottleneck width; the output has 4 * width channels.
        stride: of the 3x3 convolution and the shortcut.
        dilation: of the 3x3 convolution.
        norm: makes a norm of so many channels (sact_det/norm.py).
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

    def forward(
        self,
        x: Tensor,
        active: Optional[Tensor] = None,
        valid_in: Optional[Tensor] = None,
        valid: Optional[Tensor] = None,
    ) -> Tensor:
        """See ResidualUnit.forward."""
        preact = F.relu(self.preact(x, valid_in), inplace=True)
        shortcut = x if self.shortcut is None else self.shortcut(preact)
        y = F.relu(self.norm1(self.conv1(preact), valid_in), inplace=True)
        if valid_in is not None:
            y = y * valid_in  # conv2 must meet zeros beyond the image, as it does beyond the map
        y = F.relu(self.norm2(self.conv2(y), valid), inplace=True)
        residual = self.conv3(y)
        return shortcut + (residual if active is None else residual * active)


def are_positive_integers(values: Sequence[object]) -> bool:
    """Whether that is all there is in `values`."""
    return all(isinstance(value, int) and value > 0 for value in values)


@dataclass(frozen=True)
class ResNetV2Spec:
    """Everything that determines the blocks of a network.

    Attributes:
        units: residual units per block.
        base_channels: bottleneck width of block 1; it doubles from block to block.
        halting: "none", "act" or "sact".
        norm, halting_norm: norms of the residual units and of the halting branches (sact_det/norm.py).
        norm_decay: decay of the moving statistics of norms that learn them.
        eps: halting threshold is 1 - eps.
        tile: SACT shares halting scores in tile x tile cells.
        dilation: per block, the dilation of conv2 in the block's first unit. Weights trained with the stride in the
            last unit of the block before (TF-Slim's) need 2 there to compute the same values.
    """

    units: tuple[int, ...] = UNITS_BY_DEPTH[101]
    base_channels: int = 64
    halting: str = "sact"
    norm: str = "BN"
    halting_norm: str = "BN"
    norm_decay: float = TF_DECAY
    eps: float = DEFAULT_EPS
    tile: int = 1
    dilation: tuple[int, ...] = (1, 1, 1, 1)

    def __post_init__(self) -> None:
        check_halting(self.halting, self.eps, self.tile)
        if not 1 <= len(self.units) <= 4 or not are_positive_integers(self.units):
            raise ValueError(f"`units` must list 1 to 4 positive integers, one per block; got {self.units}")
        if len(self.dilation) < len(self.units) or not are_positive_integers(self.dilation):
            raise ValueError(
                f"`dilation` must list a positive integer per block ({len(self.units)}); got {self.dilation}"
            )
        if self.base_channels < 1:
            raise ValueError(f"`base_channels` must be positive; got {self.base_channels}")
        check_choice("norm", self.norm, tuple(NORMS))
        check_choice("halting_norm", self.halting_norm, tuple(NORMS))
        if not 0 <= self.norm_decay < 1:
            raise ValueError(f"`norm_decay` must lie in [0, 1); got {self.norm_decay}")

    def out_channels(self, index: int) -> int:
        """Channels of block `index`'s output; 0 is the stem."""
        return ROOT_CHANNELS if index == 0 else self.base_channels * 2 ** (index - 1) * EXPANSION

    @property
    def make_norm(self) -> Norm:
        """Makes the norms of the residual units and of what reads them."""
        return get_norm(self.norm, self.norm_decay)

    def build_block(self, index: int) -> AdaptiveBlock:
        """Block `index`, counted from 1."""
        norm, halting_norm = self.make_norm, get_norm(self.halting_norm, self.norm_decay)
        branch = {"none": None, "act": ImageHalting, "sact": SpatialHalting}[self.halting]
        channels, num_units = self.out_channels(index), self.units[index - 1]
        units = [
            BottleneckUnit(
                in_channels=self.out_channels(index - 1) if first else channels,
                width=channels // EXPANSION,
                stride=2 if first and index > 1 else 1,
                dilation=self.dilation[index - 1] if first else 1,
                norm=norm,
                halting=None if branch is None or last else branch(channels, halting_norm),
            )
            for first, last in ((i == 0, i == num_units - 1) for i in range(num_units))
        ]
        return AdaptiveBlock(units, self.halting, self.eps, self.tile)
