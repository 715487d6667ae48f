"""Weights as the kernels for inference read them."""

from dataclasses import dataclass
from typing import Callable, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sact_det.execution.cpu import calls
from sact_det.execution.cpu.memory import address, addresses, zeros
from sact_det.execution.folded import FoldedHalting, FoldedUnit, fold_halting, fold_second_part, fold_unit
from sact_det.network.branch import SpatialHalting
from sact_det.network.plan import PlannedBlock, PlannedStem
from sact_det.network.resnet_v2 import BottleneckUnit, symmetric_max_pool
from sact_det.network.unit import HaltingBranch, ResidualUnit

Struct = TypeVar("Struct")

# Types of the factors of the products in a unit. Sums, features and halting scores are float32.
FACTOR_TYPES = (torch.float32, torch.bfloat16)


def factor_type(dtype: torch.dtype) -> torch.dtype:
    """One of FACTOR_TYPES, as precise as `dtype` at least, that this processor multiplies."""
    return dtype if dtype in FACTOR_TYPES and calls.kernels().has_bfloat16() else torch.float32


def _whole_vectors(bias: Tensor) -> Tensor:
    """A bias [columns] with zeros behind it, up to whole vectors."""
    return F.pad(bias, (0, calls.whole_vectors(len(bias)) - len(bias)))


def _packed(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A matrix [columns, depth] in panels (gemm.h), one-dimensional; the depth must be even if dtype is bfloat16."""
    lanes, panel = calls.kernels().lanes(), calls.kernels().panel()
    step = 1 if dtype == torch.float32 else 2
    padded = F.pad(weight, (0, 0, 0, -len(weight) % lanes)).to(dtype).unflatten(1, (-1, step))
    return torch.cat([part.transpose(0, 1).reshape(-1) for part in padded.split(panel)])


@dataclass(frozen=True, eq=False)
class Packed(Generic[Struct]):
    """Weights for the kernels: a structure, and the tensors whose addresses are in it."""

    struct: Struct
    tensors: tuple[Tensor, ...]


def _pack_unit(folded: FoldedUnit, dtype: torch.dtype) -> Packed[calls.Unit]:
    """Packs a unit with factors of dtype, or float32 if an odd number of channels cannot be read in pairs."""
    width, in_channels = len(folded.conv1), len(folded.scale)
    if width % 2 or in_channels % 2:
        dtype = torch.float32
    vectors = {name: getattr(folded, name) for name in ("scale", "shift", "bias1", "bias2", "bias3")}
    factors = {name: getattr(folded, name) for name in ("conv1", "conv2", "conv3")}
    factors = {name: _packed(factor, dtype) for name, factor in factors.items() if factor.numel()}
    struct = calls.Unit(
        in_channels=in_channels,
        width=width,
        out_channels=len(folded.conv3),
        stride=folded.stride,
        dilation=folded.dilation,
        projects=folded.projects,
        bfloat16=dtype == torch.bfloat16,
        **addresses(**vectors),
        **addresses(dtype, **factors),
    )
    return Packed(struct, (*vectors.values(), *factors.values()))


def _pack_halting(folded: FoldedHalting) -> Packed[calls.Halting]:
    tensors = folded.taps, _whole_vectors(folded.bias), folded.mean_weights
    return Packed(calls.Halting(len(folded.mean_weights), *map(address, tensors), float(folded.constant)), tensors)


@dataclass(frozen=True, eq=False)
class PackedBlock:
    """The units of a block and SACT's halting branches, with the latters' price weights (ScoringBranch.added)."""

    units: dict[ResidualUnit, Packed[calls.Unit]]
    branches: dict[HaltingBranch, Packed[calls.Halting]]
    price_weights: dict[HaltingBranch, float]


def pack_block(
    block: PlannedBlock, dtype: torch.dtype, done_with: Callable[[BottleneckUnit], object] = lambda unit: None
) -> PackedBlock:
    """Folds and packs a block of BottleneckUnits, with factors of dtype; calls done_with(unit) after each."""
    packed = PackedBlock({}, {}, {})
    for unit in block.units:
        assert isinstance(unit, BottleneckUnit)
        reads_products = block.reads_products and unit is block.units[0]
        packed.units[unit] = _pack_unit(fold_second_part(unit) if reads_products else fold_unit(unit), dtype)
        if isinstance(unit.halting, SpatialHalting):
            folded = fold_halting(unit.halting)
            packed.branches[unit.halting] = _pack_halting(folded)
            packed.price_weights[unit.halting] = folded.price_weight
        done_with(unit)
    return packed


@torch.no_grad()
def pack_stem(stem: PlannedStem, dtype: torch.dtype) -> Packed[calls.Stem]:
    """Packs a stem, with factors of dtype."""
    assert stem.conv.bias is not None
    rows = stem.conv.weight.permute(0, 2, 3, 1).flatten(2)
    conv = _packed((rows if dtype == torch.float32 else F.pad(rows, (0, 1))).flatten(1), dtype)
    bias = _whole_vectors(stem.conv.bias.float())
    same, bfloat16 = stem.pool is not symmetric_max_pool, dtype == torch.bfloat16
    struct = calls.Stem(len(stem.conv.bias), address(conv, dtype), address(bias), same, bfloat16)
    return Packed(struct, (conv, bias))


@torch.no_grad()
def pack_convolution(conv: nn.Conv2d, rectify: bool) -> Packed[calls.Convolution]:
    """Packs a convolution, with or without a bias; `rectify`: whether ReLU follows."""
    weight = _packed(conv.weight.float().permute(0, 2, 3, 1).flatten(1), torch.float32)
    bias = _whole_vectors(zeros(conv.out_channels) if conv.bias is None else conv.bias.float())
    taps = conv.weight[0, 0].numel()
    struct = calls.Convolution(conv.in_channels, conv.out_channels, taps, rectify, address(weight), address(bias))
    return Packed(struct, (weight, bias))
