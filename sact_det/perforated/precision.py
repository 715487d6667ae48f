"""The type in which PyTorch would compute, autocast considered."""

import torch
from torch import Tensor


def compute_type(x: Tensor) -> torch.dtype:
    """That of convolutions of x."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
