"""What the kernels for CPUs ask for, whatever they evaluate."""

from typing import Optional

import torch
from torch import Tensor, nn

from sact_det.block import ResidualUnit
from sact_det.halting_branch import SpatialHalting, linear
from sact_det.norm import depends_on_batch
from sact_det.perforated.cpu import library
from sact_det.perforated.cpu.calls import kernels
from sact_det.precision import compute_type
from sact_det.resnet_v2 import BottleneckUnit

_INPUT_TYPES = {torch.float32, torch.bfloat16, torch.float16}  # of inference


def why_not_on(x: Tensor) -> Optional[str]:
    """Why the kernels for training cannot read x, or None."""
    if x.device.type == "cpu" and (x.dtype != torch.float32 or torch.is_autocast_enabled("cpu")):
        return "they compute in float32 only"
    return _why_not_at_all(x)


def why_not_here(module: nn.Module, x: Tensor) -> Optional[str]:
    """Why the kernels for inference cannot evaluate a module's part of a network at x, or None."""
    if torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in module.parameters())):
        return "they carry no gradients"
    dtype = compute_type(x)
    if x.device.type == "cpu" and not {x.dtype, dtype} <= _INPUT_TYPES:
        return "they compute in float32 and in 16 bits"
    return _why_not_at_all(x) or _why_slower(dtype)


def _why_slower(dtype: torch.dtype) -> Optional[str]:
    """Why the kernels are slower than PyTorch where it computes in dtype, or None."""
    if dtype == torch.bfloat16 and kernels().has_bfloat16_tiles():
        return "PyTorch multiplies bfloat16 in tiles (AMX) on this processor, which they cannot"
    if dtype == torch.float16 and kernels().has_float16():
        return "PyTorch multiplies float16 on this processor, which they cannot"
    return None


def _why_not_at_all(x: Tensor) -> Optional[str]:
    if x.device.type != "cpu":
        return f"they are for CPUs, not for {x.device.type}"
    return library.why_unavailable()


def why_not_unit(unit: ResidualUnit) -> Optional[str]:
    """Why the kernels cannot evaluate units of this kind or their halting branches, or None."""
    if type(unit) is not BottleneckUnit:
        return f"there are none for {type(unit).__name__}"
    branch = unit.halting
    if isinstance(branch, SpatialHalting):
        if branch.activate is not linear:
            return "there are none for halting branches with an activation"
        if any(map(depends_on_batch, (branch.local_norm, branch.global_norm))):
            return "norms that learn from the batch need PyTorch"
    return None
