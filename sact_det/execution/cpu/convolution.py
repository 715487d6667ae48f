"""3x3 convolutions of heads on a CPU in inference, from rows to rows (convolution.cpp)."""

from typing import Optional

import torch
from torch import Tensor, nn

from sact_det.base.precision import compute_type
from sact_det.execution.cpu import calls
from sact_det.execution.cpu.buffers import lend_rows
from sact_det.execution.cpu.conditions import why_not_here
from sact_det.execution.cpu.memory import address, plain, zeros
from sact_det.execution.cpu.packed import Packed, pack_convolution
from sact_det.execution.packing import WeightCache
from sact_det.execution.positions.head import why_not_gathered


def why_not_convolved(conv: nn.Conv2d, x: Tensor) -> Optional[str]:
    """Why the kernels cannot compute conv(x), or None if they can; arguments as of Plan.convolve."""
    if conv.bias is None:
        return "they convolve with a bias"
    if compute_type(x) != torch.float32:
        return "they convolve in float32"
    return why_not_gathered(conv) or why_not_here(conv, x, conv.weight)


def convolve(conv: nn.Conv2d, cache: WeightCache, x: Tensor, active: Optional[Tensor] = None) -> Tensor:
    """conv(x), which is rectified.

    Args:
        conv: for which, with x, why_not_convolved is None.
        cache: keeps what is packed from its weights.
        x: [N, C, H, W].
        active: bool [N, H, W], where it is evaluated; None: everywhere.

    Returns:
        float32 [N, D, H, W], channels last; uninitialised where it is not evaluated.
    """
    packed: Packed[calls.Convolution] = cache.get(conv, pack_convolution)
    images, channels, height, width = x.shape
    rows, beyond = plain(x.float().permute(0, 2, 3, 1)), zeros(channels)
    listed = None if active is None else plain(active).flatten().nonzero()[:, 0]
    count = images * height * width if listed is None else len(listed)
    y = lend_rows(images, height, width, packed.struct.out_channels)
    maps = calls.Maps(
        *(images, height, width, address(rows), address(beyond), address(listed, torch.int64), count),
        address(y, strided=True),
    )
    calls.kernels().convolve(packed.struct, maps, torch.get_num_threads())
    return y
