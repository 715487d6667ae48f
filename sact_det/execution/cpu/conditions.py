"""What the kernels for CPUs require of an input, for blocks and stems alike."""

from typing import Optional

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor

from sact_det.base.precision import compute_type
from sact_det.execution.cpu import library
from sact_det.execution.cpu.calls import kernels

_INPUT_TYPES = {torch.float32, torch.bfloat16, torch.float16}  # of inference


def why_not_on(x: Tensor, weight: Tensor) -> Optional[str]:
    """Why the kernels for training cannot evaluate a block at x, or None.

    Args:
        x: the block's input.
        weight: of the convolution that reads x first, [., C, ., .].
    """
    if x.device.type == "cpu" and (x.dtype != torch.float32 or torch.is_autocast_enabled("cpu")):
        return "they compute in float32 only"
    return _why_unreadable(x, weight)


def why_not_here(module: nn.Module, x: Tensor, weight: Tensor) -> Optional[str]:
    """Why the kernels for inference cannot evaluate a block or stem at x, or None; arguments as of why_not_on."""
    if torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in module.parameters())):
        return "they carry no gradients"
    dtype = compute_type(x)
    if x.device.type == "cpu" and not {x.dtype, dtype, weight.dtype} <= _INPUT_TYPES:
        return "they compute in float32 and in 16 bits"
    return _why_unreadable(x, weight) or _why_slower(dtype)


def _why_slower(dtype: torch.dtype) -> Optional[str]:
    """Why PyTorch is faster where it computes in dtype, or None."""
    if dtype == torch.bfloat16 and kernels().has_bfloat16_tiles():
        return "PyTorch multiplies bfloat16 in tiles (AMX) on this processor, which they cannot"
    if dtype == torch.float16 and kernels().has_float16():
        return "PyTorch multiplies float16 on this processor, which they cannot"
    return None


def _why_unreadable(x: Tensor, weight: Tensor) -> Optional[str]:
    """Why no kernel can read x, or None. PyTorch gets what is refused here; it has its own messages for mistakes."""
    for tensor in (x, weight):
        if tensor.device.type not in ("cpu", "meta" if tensor is weight else "cpu"):  # released weights are on "meta"
            return f"they are for CPUs, not for {tensor.device.type}"
    channels = weight.shape[1]
    if x.dim() != 4 or x.shape[1] != channels or 0 in x.shape[1:]:
        return f"they read maps [N, {channels}, H, W], not {list(x.shape)}"
    if x.dtype != weight.dtype and not torch.is_autocast_enabled("cpu"):
        return f"the weights are {weight.dtype} and what they are multiplied with is {x.dtype}"
    return why_not_plain(x)


def why_not_plain(x: Tensor) -> Optional[str]:
    """Why no kernel can read x, whatever is in it, or None."""
    if type(x) not in (Tensor, nn.Parameter) or x.layout is not torch.strided or is_functorch_wrapped_tensor(x):
        return f"they read plain tensors, not {x.layout} ones of type {type(x).__name__} or within torch.func"
    return library.why_unavailable()
