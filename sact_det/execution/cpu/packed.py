"""Weights as the kernels for inference read them."""

from dataclasses import dataclass
from functools import partial
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from sact_det.execution.cpu import calls
from sact_det.execution.cpu.memory import address
from sact_det.execution.folded import fold_halting, fold_unit
from sact_det.network.block import AdaptiveBlock, HaltingBranch, ResidualUnit
from sact_det.network.branch import SpatialHalting
from sact_det.network.resnet_v2 import BottleneckUnit, Stem, symmetric_max_pool

# Types of the factors of the products in a unit. Sums, features and halting scores are float32.
FACTOR_TYPES = (torch.float32, torch.bfloat16)


def factor_type(dtype: torch.dtype) -> torch.dtype:
    """The type of FACTOR_TYPES in which this processor computes what is asked for in `dtype`, as precisely at least."""
    return dtype if dtype in FACTOR_TYPES and calls.kernels().has_bfloat16() else torch.float32


def _packed(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A matrix [columns, depth] in panels (gemm.h), the depth even if dtype is bfloat16."""
    lanes, panel = calls.kernels().lanes(), calls.kernels().panel()
    step = 1 if dtype == torch.float32 else 2
    padded = F.pad(weight, (0, 0, 0, -len(weight) % lanes)).to(dtype).unflatten(1, (-1, step))
    return torch.cat([part.transpose(0, 1).reshape(-1) for part in padded.split(panel)])


@dataclass(frozen=True, eq=False)
class PackedUnit:
    """A folded unit for the kernels.

    Attributes:
        struct: with the addresses of `tensors`.
        inner_size: floats of a row behind conv1.
    """

    struct: calls.Unit
    tensors: dict[str, Tensor]
    inner_size: int


@dataclass(frozen=True, eq=False)
class PackedHalting:
    """A folded halting branch for the kernels.

    Attributes:
        struct: with the addresses of `tensors`.
        products_size: floats of the products of one position.
    """

    struct: calls.Halting
    tensors: tuple[Tensor, ...]
    products_size: int


def pack_unit(unit: BottleneckUnit, dtype: torch.dtype) -> PackedUnit:
    """Folds and packs a unit with factors of dtype, or float32 if an odd number of channels cannot be read in pairs."""
    folded = fold_unit(unit)
    width, in_channels = folded.conv1.shape
    if width % 2 or in_channels % 2:
        dtype = torch.float32
    vectors = {name: getattr(folded, name) for name in ("scale", "shift", "bias1", "bias2", "bias3")}
    factors = {name: _packed(getattr(folded, name), dtype) for name in ("conv1", "conv2", "conv3")}
    struct = calls.Unit(
        in_channels=in_channels,
        width=width,
        out_channels=len(folded.conv3),
        stride=folded.stride,
        dilation=folded.dilation,
        projects=folded.projects,
        bfloat16=dtype == torch.bfloat16,
        **{name: address(vector) for name, vector in vectors.items()},
        **{name: address(factor, dtype) for name, factor in factors.items()},
    )
    inner_size = calls.whole_vectors(width) * dtype.itemsize // torch.float32.itemsize
    return PackedUnit(struct, {**vectors, **factors}, inner_size)


def pack_halting(branch: SpatialHalting) -> PackedHalting:
    """Folds and packs a halting branch."""
    folded = fold_halting(branch)
    lanes = calls.kernels().lanes()
    tensors = folded.taps, F.pad(folded.bias, (0, -len(folded.bias) % lanes)), folded.mean_weights
    struct = calls.Halting(len(folded.mean_weights), *map(address, tensors), float(folded.constant))
    return PackedHalting(struct, tensors, len(tensors[1]))


@dataclass(frozen=True, eq=False)
class PackedBlock:
    """The units of a block and their halting branches, SACT's only."""

    units: dict[ResidualUnit, PackedUnit]
    branches: dict[HaltingBranch, PackedHalting]


def _pack_block(
    block: AdaptiveBlock, dtype: torch.dtype, done_with: Callable[[BottleneckUnit], object] = lambda unit: None
) -> PackedBlock:
    packed = PackedBlock({}, {})
    for unit in block.units:
        assert isinstance(unit, BottleneckUnit)
        packed.units[unit] = pack_unit(unit, dtype)
        if isinstance(unit.halting, SpatialHalting):
            packed.branches[unit.halting] = pack_halting(unit.halting)
        done_with(unit)
    return packed


# By the type of the factors: folds and packs a block of BottleneckUnits; done_with(unit) is called behind each. One
# function for each type: a WeightCache knows what it has made by who made it.
pack_block: dict[torch.dtype, Callable[..., PackedBlock]] = {
    dtype: partial(_pack_block, dtype=dtype) for dtype in FACTOR_TYPES
}


@dataclass(frozen=True, eq=False)
class PackedStem:
    """A stem for the kernels.

    Attributes:
        struct: with the addresses of `tensors`.
    """

    struct: calls.Stem
    tensors: tuple[Tensor, Tensor]


@torch.no_grad()
def _pack_stem(stem: Stem, dtype: torch.dtype) -> PackedStem:
    assert stem.conv.bias is not None
    lanes = calls.kernels().lanes()
    channels = len(stem.conv.bias)
    rows = stem.conv.weight.permute(0, 2, 3, 1).flatten(2)
    conv = _packed((rows if dtype == torch.float32 else F.pad(rows, (0, 1))).flatten(1), dtype)
    bias = F.pad(stem.conv.bias.float(), (0, -channels % lanes))
    same, bfloat16 = stem.pool is not symmetric_max_pool, dtype == torch.bfloat16
    return PackedStem(calls.Stem(channels, address(conv, dtype), address(bias), same, bfloat16), (conv, bias))


# By the type of the factors: packs the root convolution.
pack_stem: dict[torch.dtype, Callable[[Stem], PackedStem]] = {
    dtype: partial(_pack_stem, dtype=dtype) for dtype in FACTOR_TYPES
}
