"""Weights as the kernels for inference read them."""

import ctypes
from dataclasses import dataclass
from typing import Callable, Generic, NamedTuple, Optional, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sact_det.execution.cpu import calls
from sact_det.execution.cpu.memory import address, addresses, zeros
from sact_det.execution.folded import FoldedHalting, fold_halting, unit_matrices, unit_vectors
from sact_det.execution.packing import refuse_released, weight_versions
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


class PackedMatrices(NamedTuple):
    """The convolutions of a unit as the kernels read them, and what they were made of.

    Attributes:
        versions: of the convolutions' weights (packing.py).
        dtype: of the elements.
        panels: name -> a matrix; without conv1 where its product is read.
    """

    versions: list[list[object]]
    dtype: torch.dtype
    panels: dict[str, Tensor]


def _matrix_versions(unit: BottleneckUnit) -> list[list[object]]:
    return [weight_versions(conv) for conv in (unit.conv1, unit.conv2, unit.conv3, unit.shortcut) if conv is not None]


def _pack_matrices(
    unit: BottleneckUnit, dtype: torch.dtype, second_part: bool, before: Optional[PackedMatrices]
) -> PackedMatrices:
    """Packs matrices of dtype, or float32 if an odd number of channels cannot be read in pairs, unless they are.

    Raises:
        RuntimeError: they are not, and the convolutions' weights are gone.
    """
    versions = _matrix_versions(unit)
    if before is not None and before.versions == versions:
        return before
    refuse_released(unit, "to pack them")
    matrices = unit_matrices(unit)
    width, in_channels = matrices.conv1.shape
    read = matrices._asdict()
    if second_part:
        in_channels = width
        read = {"conv2": matrices.conv2, "conv3": matrices.conv3[:, :width]}
    if width % 2 or in_channels % 2:
        dtype = torch.float32
    return PackedMatrices(versions, dtype, {name: _packed(matrix.float(), dtype) for name, matrix in read.items()})


def _pack_unit(unit: BottleneckUnit, matrices: PackedMatrices, second_part: bool) -> Packed[calls.Unit]:
    """A unit, or of a projecting one the second part (SplitUnit): it reads w channels and adds to a given shortcut."""
    vectors = unit_vectors(unit)
    if second_part:  # what it begins with is norm1; bias1 and what it would be added to are not read
        vectors = vectors._replace(scale=vectors.scale1, shift=vectors.bias1)
    tensors = {name: vector.float().contiguous() for name, vector in vectors._asdict().items()}
    struct = calls.Unit(
        in_channels=len(vectors.scale),
        width=len(vectors.scale1),
        out_channels=len(vectors.bias3),
        stride=unit.stride,
        dilation=unit.conv2.dilation[0],
        projects=unit.shortcut is not None and not second_part,
        bfloat16=matrices.dtype == torch.bfloat16,
        **addresses(**tensors),
        **addresses(matrices.dtype, **matrices.panels),
    )
    return Packed(struct, (*tensors.values(), *matrices.panels.values()))


def _pack_halting(folded: FoldedHalting) -> Packed[calls.Halting]:
    tensors = folded.taps, _whole_vectors(folded.bias), folded.mean_weights
    return Packed(calls.Halting(len(folded.mean_weights), *map(address, tensors), float(folded.constant)), tensors)


@dataclass(frozen=True, eq=False)
class PackedBlock:
    """The units of a block and SACT's halting branches.

    Attributes:
        matrices: of the units, which a change of norms leaves as they are.
        units: whole.
        branches: of the units that have one.
        price_weights: of the branches (ScoringBranch.added); None of those that read no price.
        in_order: structures of all units, side by side.
        branches_in_order: of all branches, where their units are in `in_order`.
    """

    matrices: dict[ResidualUnit, PackedMatrices]
    units: dict[ResidualUnit, Packed[calls.Unit]]
    branches: dict[HaltingBranch, Packed[calls.Halting]]
    price_weights: dict[HaltingBranch, Optional[float]]
    in_order: ctypes.Array[calls.Unit]
    branches_in_order: ctypes.Array[calls.Halting]

    def branch(self, branch: SpatialHalting) -> calls.Halting:
        """One of `branches` with its present shift."""
        return self.branches[branch].struct.shifted(self.added(branch))

    def added(self, branch: SpatialHalting) -> float:
        """What every logit of one of `branches` has more at its present shift."""
        weight = self.price_weights[branch]
        return float(branch.shift if weight is None else branch.added(weight))


@torch.no_grad()
def pack_block(
    block: PlannedBlock,
    dtype: torch.dtype,
    before: Optional[PackedBlock] = None,
    done_with: Callable[[BottleneckUnit], object] = lambda unit: None,
) -> PackedBlock:
    """Packs a block of BottleneckUnits, with factors of dtype.

    Args:
        block: whose norms do not depend on the batch.
        dtype: one of FACTOR_TYPES.
        before: the same block's, of which matrices are taken whose convolutions have not changed.
        done_with: is called behind each unit, and may let go of its convolutions' weights.

    Raises:
        RuntimeError: matrices would have to be packed of weights that are gone.
    """
    count = len(block.units)
    packed = PackedBlock({}, {}, {}, {}, (count * calls.Unit)(), (count * calls.Halting)())
    for index, unit in enumerate(block.units):
        assert isinstance(unit, BottleneckUnit)
        second_part = block.reads_products and unit is block.units[0]
        known = None if before is None else before.matrices.get(unit)
        packed.matrices[unit] = _pack_matrices(unit, dtype, second_part, known)
        packed.units[unit] = _pack_unit(unit, packed.matrices[unit], second_part)
        packed.in_order[index] = packed.units[unit].struct
        if isinstance(unit.halting, SpatialHalting):
            folded = fold_halting(unit.halting)
            packed.branches[unit.halting] = _pack_halting(folded)
            packed.branches_in_order[index] = packed.branches[unit.halting].struct
            packed.price_weights[unit.halting] = folded.price_weight
        done_with(unit)
        packed.matrices[unit] = packed.matrices[unit]._replace(versions=_matrix_versions(unit))
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
