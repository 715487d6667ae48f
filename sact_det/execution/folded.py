"""Residual units and halting branches with their norms folded into the convolutions, in double precision.

Shape shorthand in this module:
    C: channels of the input; w: bottleneck width; D: channels of the output.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sact_det.network.branch import SpatialHalting
from sact_det.network.norm import norm_affine
from sact_det.network.resnet_v2 import BottleneckUnit


@dataclass(frozen=True, eq=False)
class FoldedUnit:
    """A BottleneckUnit: preact [C] scale and shift, then matrices whose columns read rows of features, float32.

    Attributes:
        scale, shift: [C], the first norm; ReLU follows.
        conv1, bias1: [w, C], [w], with norm1; ReLU follows.
        conv2, bias2: [w, 9 w], [w], with norm2, taps row by row; ReLU follows.
        conv3, bias3: [D, w], [D]; a projecting shortcut's weights stand to the right, [D, w + C], its bias is in bias3.
        projects: whether there is one.
        stride, dilation: of the 3x3 convolution.
    """

    scale: Tensor
    shift: Tensor
    conv1: Tensor
    bias1: Tensor
    conv2: Tensor
    bias2: Tensor
    conv3: Tensor
    bias3: Tensor
    projects: bool
    stride: int
    dilation: int


@dataclass(frozen=True, eq=False)
class FoldedHalting:
    """A SpatialHalting with its norms, float32.

    Attributes:
        taps, bias: [9, C] and [9], the local convolution and what its norm adds at each tap.
        pooled, constant: [C] and [], the weights of the global mean, and all that is the same at every position.
    """

    taps: Tensor
    bias: Tensor
    pooled: Tensor
    constant: Tensor


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and shift, in double precision."""
    return norm_affine(norm, torch.float64)


@torch.no_grad()
def fold_unit(unit: BottleneckUnit) -> FoldedUnit:
    """Norms must not depend on the batch."""
    (scale, shift), (scale1, shift1), (scale2, shift2) = map(_affine, (unit.preact, unit.norm1, unit.norm2))
    assert unit.conv3.bias is not None
    conv3, bias3 = unit.conv3.weight.flatten(1), unit.conv3.bias
    if unit.shortcut is not None:
        assert unit.shortcut.bias is not None
        conv3 = torch.cat([conv3, unit.shortcut.weight.flatten(1)], 1)
        bias3 = bias3.double() + unit.shortcut.bias.double()
    conv2 = unit.conv2.weight.permute(0, 2, 3, 1).flatten(1)
    return FoldedUnit(
        scale=scale.float(),
        shift=shift.float(),
        conv1=(unit.conv1.weight.flatten(1) * scale1[:, None]).float(),
        bias1=shift1.float(),
        conv2=(conv2 * scale2[:, None]).float(),
        bias2=shift2.float(),
        conv3=conv3.float(),
        bias3=bias3.float(),
        projects=unit.shortcut is not None,
        stride=unit.stride,
        dilation=unit.conv2.dilation[0],
    )


@torch.no_grad()
def fold_halting(branch: SpatialHalting) -> FoldedHalting:
    """The branch must have no activation behind its norms."""
    assert branch.local_conv.bias is not None
    (scale, shift), (scale1, shift1) = _affine(branch.local_norm), _affine(branch.global_norm)
    taps = branch.local_conv.weight[0].flatten(1).T.double()
    pooled = branch.global_conv.weight.flatten().double()
    return FoldedHalting(
        taps=(taps * scale).float(),
        bias=(taps @ shift).float(),
        pooled=(pooled * scale1).float(),
        constant=(pooled @ shift1 + branch.local_conv.bias.double()).float(),
    )
