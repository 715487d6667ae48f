"""Weights as the Triton kernels read them."""

from dataclasses import dataclass, replace

import torch

from sact_det.execution.folded import FoldedHalting, FoldedUnit, fold_halting, fold_unit
from sact_det.network.branch import SpatialHalting
from sact_det.network.plan import PlannedBlock
from sact_det.network.resnet_v2 import BottleneckUnit
from sact_det.network.unit import HaltingBranch, ResidualUnit

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, eq=False)
class PackedBlock:
    """What the kernels read of a block.

    Attributes:
        units: all but the first, with identity shortcuts; matrices in the type of the products.
        branches: SACT's halting branches of all units.
    """

    units: dict[ResidualUnit, FoldedUnit]
    branches: dict[HaltingBranch, FoldedHalting]


def pack_unit(unit: BottleneckUnit, dtype: torch.dtype) -> FoldedUnit:
    """Folds a unit for products of dtype."""
    folded = fold_unit(unit)
    return replace(folded, **{name: getattr(folded, name).to(dtype) for name in ("conv1", "conv2", "conv3")})


def pack_block(block: PlannedBlock, dtype: torch.dtype) -> PackedBlock:
    """Folds and packs a block of BottleneckUnits for products of dtype, one of DTYPES."""
    branches = [unit.halting for unit in block.units]
    return PackedBlock(
        units={unit: pack_unit(unit, dtype) for unit in block.units[1:] if isinstance(unit, BottleneckUnit)},
        branches={branch: fold_halting(branch) for branch in branches if isinstance(branch, SpatialHalting)},
    )
