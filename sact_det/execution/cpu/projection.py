"""Linear layers that read regions on a CPU in inference, as rows; PyTorch multiplies the matrices."""

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sact_det.base.precision import compute_type
from sact_det.execution.cpu.conditions import why_not_plain
from sact_det.execution.packing import WeightCache


def why_not_projected(linear: nn.Linear, x: Tensor) -> Optional[str]:
    """Why `project` has nothing to gain, or cannot be; None if it can. Arguments as of Plan.project."""
    if x.device.type != "cpu" or x.dim() != 4 or not x.is_contiguous(memory_format=torch.channels_last):
        return "regions are rows on a CPU"
    if torch.is_grad_enabled() and (x.requires_grad or any(own.requires_grad for own in linear.parameters())):
        return "weights in another order have no gradients"
    if not torch.float32 == x.dtype == linear.weight.dtype == compute_type(x):
        return "they are multiplied in float32"
    if len(x) == 0 or x[0].numel() != linear.in_features:
        return f"they read regions of {linear.in_features} numbers"
    return why_not_plain(x)


def project(linear: nn.Linear, cache: WeightCache, x: Tensor) -> Tensor:
    """The layer at regions whose numbers stay where they are, [R, C, H, W] -> [R, D]; why_not_projected is None."""
    weight = cache.get(linear, _by_rows, x.shape[1:])
    return F.linear(x.permute(0, 2, 3, 1).flatten(1), weight, linear.bias)


@torch.no_grad()
def _by_rows(linear: nn.Linear, shape: torch.Size) -> Tensor:
    """The weights [D, C * H * W] in the order of rows, [D, H * W * C]."""
    return linear.weight.unflatten(1, shape).permute(0, 2, 3, 1).flatten(1)
