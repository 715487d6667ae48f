"""Weights as the Triton kernels read them."""

from dataclasses import dataclass
from functools import partial
from typing import Callable

import torch
from torch import Tensor

from sact_det.execution.folded import FoldedHalting, fold_halting, fold_unit
from sact_det.network.block import AdaptiveBlock, HaltingBranch, ResidualUnit
from sact_det.network.branch import SpatialHalting
from sact_det.network.resnet_v2 import BottleneckUnit

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, eq=False)
class PackedUnit:
    """A folded unit with identity shortcut: matrices [columns, depth] in the dtype of the products, the rest float32.

    Attributes: as of FoldedUnit.
    """

    scale: Tensor
    shift: Tensor
    conv1: Tensor
    bias1: Tensor
    conv2: Tensor
    bias2: Tensor
    conv3: Tensor
    bias3: Tensor


@dataclass(frozen=True, eq=False)
class PackedBlock:
    """The units of a block behind the first, and the halting branches of all of them, SACT's only."""

    units: dict[ResidualUnit, PackedUnit]
    branches: dict[HaltingBranch, FoldedHalting]


def _pack_unit(unit: BottleneckUnit, dtype: torch.dtype) -> PackedUnit:
    folded = fold_unit(unit)
    return PackedUnit(
        **{name: getattr(folded, name).contiguous() for name in ("scale", "shift", "bias1", "bias2", "bias3")},
        **{name: getattr(folded, name).to(dtype).contiguous() for name in ("conv1", "conv2", "conv3")},
    )


def _pack_branch(branch: SpatialHalting) -> FoldedHalting:
    folded = fold_halting(branch)
    return FoldedHalting(folded.taps.contiguous(), folded.bias, folded.pooled, folded.constant)


def _pack_block(block: AdaptiveBlock, dtype: torch.dtype) -> PackedBlock:
    branches = [unit.halting for unit in block.units]
    return PackedBlock(
        units={unit: _pack_unit(unit, dtype) for unit in block.units[1:] if isinstance(unit, BottleneckUnit)},
        branches={branch: _pack_branch(branch) for branch in branches if isinstance(branch, SpatialHalting)},
    )


# Folds and packs a block of BottleneckUnits for products in a dtype. One function for each: a WeightCache knows what it
# has made by who made it.
pack_block: dict[torch.dtype, Callable[[AdaptiveBlock], PackedBlock]] = {
    dtype: partial(_pack_block, dtype=dtype) for dtype in DTYPES
}
