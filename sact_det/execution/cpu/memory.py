"""Tensors whose memory the kernels read and write: on the CPU, of one type, number beside number.

What PyTorch makes by default is of the type and on the device that a program last chose (torch.set_default_dtype,
torch.set_default_device); what a kernel is given is of the type that its C++ declares.
"""

from typing import Optional

import torch
from torch import Tensor


def empty(
    *shape: int, dtype: torch.dtype = torch.float32, memory_format: torch.memory_format = torch.contiguous_format
) -> Tensor:
    """An uninitialised tensor [*shape]."""
    return torch.empty(shape, dtype=dtype, device="cpu", memory_format=memory_format)


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor [*shape] of zeros."""
    return torch.zeros(shape, dtype=dtype, device="cpu")


def ones(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor [*shape] of ones."""
    return torch.ones(shape, dtype=dtype, device="cpu")


def plain(tensor: Tensor) -> Tensor:
    """The same numbers side by side in memory: contiguous, and with no sign still to be changed (Tensor.is_neg)."""
    return tensor.resolve_neg().contiguous()


def address(tensor: Optional[Tensor], dtype: torch.dtype = torch.float32, strided: bool = False) -> Optional[int]:
    """Where a tensor's numbers lie, for a kernel; None for None.

    Args:
        tensor: what the kernel reads or writes.
        dtype: what it takes the numbers for.
        strided: whether it knows the strides; else the numbers must lie side by side.

    Raises:
        ValueError: it would read something else there.
    """
    if tensor is None:
        return None
    fits = tensor.dtype == dtype and tensor.is_cpu and not tensor.is_neg()
    if not fits or not (strided or tensor.is_contiguous()):
        raise ValueError(
            f"a kernel takes {dtype} on the CPU, with no sign pending{'' if strided else ' and contiguous'}; got "
            f"{tensor.dtype} {list(tensor.shape)} on {tensor.device} with strides {tensor.stride()}"
        )
    return tensor.data_ptr()


def addresses(dtype: torch.dtype = torch.float32, **tensors: Optional[Tensor]) -> dict[str, Optional[int]]:
    """`address` of several contiguous tensors of one type, by name: fields of a structure."""
    return {name: address(tensor, dtype) for name, tensor in tensors.items()}
