"""Residual units and halting branches as affine maps and matrices, norms folded into these or beside them, in float64.

Shape shorthand in this module:
    C: channels of the input; w: bottleneck width; D: channels of the output.
"""

from dataclasses import dataclass
from typing import NamedTuple, Optional

import torch
from torch import Tensor, nn

from sact_det.network.branch import SpatialHalting, linear
from sact_det.network.halting_rule import ACT, SACT, Plain
from sact_det.network.norm import depends_on_batch, learns_from_batch, norm_affine
from sact_det.network.plan import PlannedBlock
from sact_det.network.resnet_v2 import BottleneckUnit
from sact_det.network.unit import HaltingBranch, ResidualUnit


@dataclass(frozen=True, eq=False)
class FoldedUnit:
    """A BottleneckUnit as an affine map and three matrices [output, input] with biases; all tensors are contiguous.

    Attributes:
        scale, shift: float32 [C], the first norm; ReLU follows.
        conv1, bias1: [w, C] and float32 [w], norm1 included; ReLU follows.
        conv2, bias2: [w, TAPS w] and float32 [w], norm2 included; ReLU follows.
        conv3, bias3: [D, w] and float32 [D]; with a projecting shortcut [D, w + C], its weights to the right and its
            bias in bias3.
        projects: whether the shortcut is a convolution; else it is the identity.
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


class UnitVectors(NamedTuple):
    """What a BottleneckUnit does channel by channel.

    Attributes:
        scale, shift: [C], the first norm; ReLU follows.
        scale1, bias1: [w], norm1 behind conv1; ReLU follows.
        scale2, bias2: [w], norm2 behind conv2; ReLU follows.
        bias3: [D], conv3's, and with a projecting shortcut that one's, too.
    """

    scale: Tensor
    shift: Tensor
    scale1: Tensor
    bias1: Tensor
    scale2: Tensor
    bias2: Tensor
    bias3: Tensor


class UnitMatrices(NamedTuple):
    """The convolutions of a BottleneckUnit as matrices [output, input], without its norms.

    Attributes:
        conv1: [w, C].
        conv2: [w, TAPS w].
        conv3: [D, w]; with a projecting shortcut [D, w + C], its weights to the right.
    """

    conv1: Tensor
    conv2: Tensor
    conv3: Tensor


@dataclass(frozen=True, eq=False)
class FoldedHalting:
    """A SpatialHalting as sums of products; float32, contiguous.

    Attributes:
        taps, bias: [TAPS, C] and [TAPS], the local convolution, and what its norm adds at each tap.
        mean_weights, constant: [C] and []; SpatialHalting.offset is <mean_weights, mean of the image> + constant, and
            what the branch's shift adds, which may change while the weights stay.
        price_weight: for ScoringBranch.added; None of a branch that reads no price.
    """

    taps: Tensor
    bias: Tensor
    mean_weights: Tensor
    constant: Tensor
    price_weight: Optional[float]


def why_not_foldable(unit: ResidualUnit) -> Optional[str]:
    """Why neither fold_unit nor fold_halting knows a unit or its halting branch, or None if they do."""
    branch = unit.halting
    refused = _why_unknown(unit, branch)
    if refused is None and isinstance(branch, SpatialHalting) and any(map(depends_on_batch, branch._modules.values())):
        return "norms that learn from the batch need PyTorch"
    return refused


def _why_unknown(unit: ResidualUnit, branch: Optional[HaltingBranch]) -> Optional[str]:
    """The same, whatever norms are at present."""
    if type(unit) is not BottleneckUnit:
        return f"there are none for {type(unit).__name__}"
    if isinstance(branch, SpatialHalting) and branch.activate is not linear:
        return "there are none for halting branches with an activation"
    return None


def keeps_shape(unit: ResidualUnit) -> bool:
    """Whether the kernels know a BottleneckUnit behind the first of a block: identity shortcut, no dilation."""
    assert isinstance(unit, BottleneckUnit)
    return unit.shortcut is None and unit.conv2.dilation == (1, 1)


def why_not_inference(block: PlannedBlock) -> Optional[str]:
    """Why kernels for inference that read folded weights cannot evaluate a block, whatever its input; or None."""
    if type(block.rule) not in (Plain, ACT, SACT):
        return f"there are none for halting {block.rule.name!r}"
    if block.training and block.rule.adaptive:
        return "they are for inference"
    for unit in block.units:
        branch = unit.halting
        refused = _why_unknown(unit, branch)
        if refused is not None:
            return refused
        for part in (unit, branch):
            # Not children(): this runs before every use, and that takes ten times as long.
            if part is not None and any(map(learns_from_batch, part._modules.values())):
                return "norms that learn from the batch need PyTorch"
    return None


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    return norm_affine(norm, torch.float64)


@torch.no_grad()
def unit_vectors(unit: BottleneckUnit) -> UnitVectors:
    """Norms, which must not depend on the batch, and biases of a unit, in float64."""
    (scale, shift), (scale1, bias1), (scale2, bias2) = map(_affine, (unit.preact, unit.norm1, unit.norm2))
    assert unit.conv3.bias is not None
    bias3 = unit.conv3.bias.double()
    if unit.shortcut is not None:
        assert unit.shortcut.bias is not None
        bias3 = bias3 + unit.shortcut.bias.double()
    return UnitVectors(scale, shift, scale1, bias1, scale2, bias2, bias3)


@torch.no_grad()
def unit_matrices(unit: BottleneckUnit) -> UnitMatrices:
    """The convolutions of a unit."""
    conv3 = unit.conv3.weight.flatten(1)
    if unit.shortcut is not None:
        conv3 = torch.cat([conv3, unit.shortcut.weight.flatten(1)], 1)
    return UnitMatrices(unit.conv1.weight.flatten(1), unit.conv2.weight.permute(0, 2, 3, 1).flatten(1), conv3)


@torch.no_grad()
def fold_unit(unit: BottleneckUnit) -> FoldedUnit:
    """Folds a unit whose norms do not depend on the batch."""
    vectors, matrices = unit_vectors(unit), unit_matrices(unit)
    tensors = {
        **{name: getattr(vectors, name) for name in ("scale", "shift", "bias1", "bias2", "bias3")},
        "conv1": matrices.conv1 * vectors.scale1[:, None],
        "conv2": matrices.conv2 * vectors.scale2[:, None],
        "conv3": matrices.conv3,
    }
    return FoldedUnit(
        **{name: tensor.float().contiguous() for name, tensor in tensors.items()},
        projects=unit.shortcut is not None,
        stride=unit.stride,
        dilation=unit.conv2.dilation[0],
    )


@torch.no_grad()
def fold_halting(branch: SpatialHalting) -> FoldedHalting:
    """Folds a branch without activation whose norms do not depend on the batch."""
    assert branch.local_conv.bias is not None
    (scale, shift), (scale1, shift1) = _affine(branch.local_norm), _affine(branch.global_norm)
    taps = branch.local_conv.weight[0].flatten(1).T.double()
    weights = branch.global_conv.weight.flatten().double()
    constant = weights @ shift1 + branch.local_conv.bias.double()
    return FoldedHalting(
        taps=(taps * scale).float().contiguous(),
        bias=(taps @ shift).float().contiguous(),
        mean_weights=(weights * scale1).float().contiguous(),
        constant=constant.float(),
        price_weight=None if branch.price_weight is None else float(branch.price_weight),
    )
