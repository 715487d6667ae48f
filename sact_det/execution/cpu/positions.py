"""Lists of positions for the kernels (positions.cpp)."""

import ctypes

import torch
from torch import Tensor

from sact_det.execution.cpu.calls import kernels
from sact_det.execution.cpu.memory import address, ones, plain
from sact_det.rule.padding import Mask


def mask_of_positions(valid: Mask, shape: tuple[int, ...]) -> Tensor:
    """Which positions of a map there are: bool, of shape (N, H, W), contiguous; `valid` is False at padding."""
    return ones(*shape, dtype=torch.bool) if valid is None else valid[:, 0].contiguous()


def list_positions(active: Tensor, exists: Tensor, actives: Tensor, reads: Tensor) -> tuple[int, int]:
    """Writes lists of the active positions, and of those that a 3x3 convolution reads there; both ascending.

    Args:
        active, exists: bool [N, H, W]; only what exists is listed.
        actives, reads: int64 [N * H * W], written from their beginning on.

    Returns:
        The lengths of both lists.
    """
    masks = [plain(mask) for mask in (active, exists)]
    count = ctypes.c_int64()
    around = kernels().list_positions(
        *(address(mask, torch.bool) for mask in masks),
        *active.shape,
        address(actives, torch.int64),
        count,
        address(reads, torch.int64),
    )
    return count.value, around
