"""Weights as rows.cpp reads them."""

import ctypes
from dataclasses import dataclass
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from sact_det.block import AdaptiveBlock, HaltingBranch, ResidualUnit
from sact_det.halting_branch import SpatialHalting
from sact_det.perforated.cpu import calls
from sact_det.perforated.folded import fold_halting, fold_unit
from sact_det.resnet_v2 import BottleneckUnit, Stem, symmetric_max_pool


def _packed(weight: Tensor) -> Tensor:
    """A matrix [columns, depth] in panels, as rows.cpp reads it."""
    lanes, panel = calls.kernels().lanes(), calls.kernels().panel()
    padded = F.pad(weight, (0, 0, 0, -len(weight) % lanes))
    return torch.cat([part.T.reshape(-1) for part in padded.split(panel)])


@dataclass(frozen=True, eq=False)
class PackedUnit:
    """A folded unit for rows.cpp.

    Attributes:
        struct: with the addresses of `tensors`.
        inner_size: floats of a row behind conv1.
        scratch_size: floats of scratch per thread.
    """

    struct: calls.Unit
    tensors: dict[str, Tensor]
    inner_size: int
    scratch_size: int


@dataclass(frozen=True, eq=False)
class PackedHalting:
    """A folded halting branch for rows.cpp.

    Attributes:
        struct: with the addresses of `tensors`.
        products_size: floats of the products of one position.
    """

    struct: calls.Halting
    tensors: tuple[Tensor, ...]
    products_size: int


def pack_unit(unit: BottleneckUnit) -> PackedUnit:
    """Folds and packs a unit."""
    folded = fold_unit(unit)
    width, in_channels = folded.conv1.shape
    tensors = {
        **{name: getattr(folded, name).contiguous() for name in ("scale", "shift", "bias1", "bias2", "bias3")},
        **{name: _packed(getattr(folded, name)) for name in ("conv1", "conv2", "conv3")},
    }
    struct = calls.Unit(
        in_channels=in_channels,
        width=width,
        out_channels=len(folded.conv3),
        stride=folded.stride,
        dilation=folded.dilation,
        projects=folded.projects,
        **{name: tensor.data_ptr() for name, tensor in tensors.items()},
    )
    lanes = calls.kernels().lanes()
    scratch_size = calls.kernels().scratch_size(ctypes.byref(struct))
    return PackedUnit(struct, tensors, -(-width // lanes) * lanes, scratch_size)


def pack_halting(branch: SpatialHalting) -> PackedHalting:
    """Folds and packs a halting branch."""
    folded = fold_halting(branch)
    lanes = calls.kernels().lanes()
    tensors = folded.taps.contiguous(), F.pad(folded.bias, (0, -len(folded.bias) % lanes)), folded.pooled.contiguous()
    struct = calls.Halting(len(folded.pooled), *(tensor.data_ptr() for tensor in tensors), float(folded.constant))
    return PackedHalting(struct, tensors, len(tensors[1]))


@dataclass(frozen=True, eq=False)
class PackedBlock:
    """The units of a block and their halting branches, SACT's only."""

    units: dict[ResidualUnit, PackedUnit]
    branches: dict[HaltingBranch, PackedHalting]


def pack_block(block: AdaptiveBlock, done_with: Callable[[BottleneckUnit], object] = lambda unit: None) -> PackedBlock:
    """Folds and packs a block of BottleneckUnits; done_with(unit) is called behind each."""
    packed = PackedBlock({}, {})
    for unit in block.units:
        assert isinstance(unit, BottleneckUnit)
        packed.units[unit] = pack_unit(unit)
        if isinstance(unit.halting, SpatialHalting):
            packed.branches[unit.halting] = pack_halting(unit.halting)
        done_with(unit)
    return packed


@dataclass(frozen=True, eq=False)
class PackedStem:
    """A stem for rows.cpp.

    Attributes:
        struct: with the addresses of `tensors`.
    """

    struct: calls.Stem
    tensors: tuple[Tensor, Tensor]


@torch.no_grad()
def pack_stem(stem: Stem) -> PackedStem:
    """Packs the root convolution."""
    assert stem.conv.bias is not None
    lanes = calls.kernels().lanes()
    channels = len(stem.conv.bias)
    conv = _packed(stem.conv.weight.permute(0, 2, 3, 1).flatten(1))
    bias = F.pad(stem.conv.bias, (0, -channels % lanes))
    struct = calls.Stem(channels, conv.data_ptr(), bias.data_ptr(), stem.pool is not symmetric_max_pool)
    return PackedStem(struct, (conv, bias))
