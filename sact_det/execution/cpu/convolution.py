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


def why_not_convolved(conv: nn.Conv2d, x: Tensor) -> Optional[str]:
    """Why the kernels cannot compute conv(x), or None if they can; arguments as of Plan.convolve."""
    shape = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode)
    if shape != ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros") or conv.bias is None:
        return "they compute 3x3 convolutions of stride 1, padded by 1, with a bias"
    if getattr(conv, "norm", None) is not None or type(getattr(conv, "activation", None)) is not nn.ReLU:
        return "they rectify, without a norm"
    if compute_type(x) != torch.float32:
        return "they convolve in float32"
    return why_not_here(conv, x, conv.weight)


def convolve(conv: nn.Conv2d, cache: WeightCache, x: Tensor) -> Tensor:
    """conv(x), which is rectified.

    Args:
        conv: for which, with x, why_not_convolved is None.
        cache: keeps what is packed from its weights.
        x: [N, C, H, W].

    Returns:
        float32 [N, D, H, W], channels last.
    """
    packed: Packed[calls.Convolution] = cache.get(conv, pack_convolution)
    images, channels, height, width = x.shape
    rows, beyond = plain(x.float().permute(0, 2, 3, 1)), zeros(channels)
    y = lend_rows(images, height, width, packed.struct.out_channels)
    maps = calls.Maps(images, height, width, address(rows), address(beyond), address(y, strided=True))
    calls.kernels().convolve(packed.struct, maps, torch.get_num_threads())
    return y
