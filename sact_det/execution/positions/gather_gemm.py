"""Residual units and halting branches at a set of positions: gather rows, multiply matrices. Any device, any dtype.

Every function is differentiable in rows and parameters. Norms must not depend on the batch (norm.depends_on_batch).
Shape shorthand in this module:
    C: channels; w: bottleneck width; a, d, e: positions in rings 0, 1, 2 of an ActiveSet.
"""

from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sact_det.base.precision import exact_float32, products_as_convolutions, score_type, widened
from sact_det.execution.positions.active_set import ActiveSet
from sact_det.network.branch import SpatialHalting, linear
from sact_det.network.convolution import TAPS
from sact_det.network.norm import norm_affine
from sact_det.network.resnet_cifar import SLOPE, CifarUnit
from sact_det.network.resnet_v2 import BottleneckUnit
from sact_det.network.unit import HaltingBranch, ResidualUnit

# Rings of input positions that a unit reads.
READS = {BottleneckUnit: 1, CifarUnit: 2}


def normalize(rows: Tensor, norm: nn.Module) -> Tensor:
    """A norm that does not depend on the batch, applied to rows [positions, C]."""
    scale, shift = norm_affine(norm, score_type(rows.dtype))
    return torch.addcmul(shift.to(rows.dtype), rows, scale.to(rows.dtype))


def product(rows: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
    """F.linear in the precision of the convolution whose place it takes: on CUDA, these have a switch of their own."""
    if rows.is_cuda and not torch.is_autocast_enabled("cuda"):
        return ProductAsConvolution.apply(rows, weight, bias)
    return F.linear(rows, weight, bias)


class ProductAsConvolution(torch.autograd.Function):
    """F.linear whose forward and backward products round float32 as convolutions on CUDA do: once differentiable."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
        """rows: [d, c]; weight: [k, c]; bias: [k] or None. Returns [d, k]."""
        ctx.save_for_backward(rows, weight)
        with products_as_convolutions():
            return F.linear(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Optional[Tensor], ...]:
        """The gradients of rows, weight and bias where they are wanted."""
        (rows, weight), wanted = ctx.saved_tensors, ctx.needs_input_grad
        with products_as_convolutions():
            return (
                gradient @ weight if wanted[0] else None,
                gradient.T @ rows if wanted[1] else None,
                gradient.sum(0) if wanted[2] else None,
            )


def conv1x1(rows: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 1x1 convolution at rows [d, c] -> [d, k]."""
    return product(rows, conv.weight[:, :, 0, 0], conv.bias)


def conv3x3(rows: Tensor, neighbours: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 3x3 convolution of stride 1: rows [d, c] -> [a, k].

    Args:
        rows: what is read.
        neighbours: int64 [a, TAPS], indices of rows; d beyond the image, where zeros are read.
        conv: its weights.
    """
    padded = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])
    read = padded.index_select(0, neighbours.flatten()).view(len(neighbours), TAPS * rows.shape[1])
    return product(read, conv.weight.permute(0, 2, 3, 1).flatten(1), conv.bias)


def residual(unit: ResidualUnit, rows: Tensor, active: ActiveSet) -> Tensor:
    """f of a unit with identity shortcut at the active positions.

    Args:
        rows: state at ring READS[type(unit)], [., C].
        active: with so many rings.

    Returns:
        [a, C].
    """
    if isinstance(unit, CifarUnit):
        y = F.leaky_relu(normalize(rows, unit.preact), SLOPE)
        y = F.leaky_relu(normalize(conv3x3(y, active.neighbours(1), unit.conv1), unit.norm1), SLOPE**2)
        return conv3x3(y, active.neighbours(0), unit.conv2)
    assert isinstance(unit, BottleneckUnit)
    y = F.relu(normalize(rows, unit.preact), inplace=True)
    y = F.relu(normalize(conv1x1(y, unit.conv1), unit.norm1), inplace=True)
    y = F.relu(normalize(conv3x3(y, active.neighbours(0), unit.conv2), unit.norm2), inplace=True)
    return conv1x1(y, unit.conv3)


def scores(branch: HaltingBranch, rows: Tensor, pooled: Tensor, active: ActiveSet) -> Tensor:
    """h^l of a SpatialHalting at the active positions, of score_type [a].

    Args:
        branch: that scores.
        rows: output of the unit at ring 1, [d, C].
        pooled: mean_of_images of that output, of score_type [N, C, 1, 1].
        active: with one ring.
    """
    assert isinstance(branch, SpatialHalting)
    with exact_float32(rows.device):
        taps = branch.local_conv.weight[0].flatten(1)
        if branch.activate is linear:  # the norm goes into the taps, which are fewer than rows
            scale, shift = norm_affine(branch.local_norm, score_type(rows.dtype))
            local = torch.addmm(shift @ taps, widened(rows), scale[:, None] * taps)
        else:
            local = branch.activate(normalize(widened(rows), branch.local_norm)) @ taps
        # One product per neighbour instead of a gather of C channels: column k of `local` is meant for offset k.
        padded = F.pad(local, (0, 0, 0, 1)).flatten()
        columns = active.neighbours(0) * TAPS + torch.arange(TAPS, device=rows.device)
        return torch.sigmoid(padded[columns].sum(1) + branch.offset(pooled).index_select(0, active.images))
