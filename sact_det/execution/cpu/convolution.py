"""Convolutions of pyramids and heads on a CPU in inference, from rows to rows (convolution.cpp)."""

from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sact_det.base.precision import compute_type
from sact_det.execution.cpu import calls
from sact_det.execution.cpu.buffers import lend_rows
from sact_det.execution.cpu.conditions import why_not_here, why_not_plain
from sact_det.execution.cpu.memory import address, plain, zeros
from sact_det.execution.cpu.packed import Packed, pack_convolution
from sact_det.execution.packing import WeightCache

_PADDING: dict[tuple[int, ...], tuple[int, ...]] = {(1, 1): (0, 0), (3, 3): (1, 1)}


def why_not_convolved(conv: nn.Conv2d, x: Tensor) -> Optional[str]:
    """Why the kernels cannot compute conv(x), or None if they can; arguments as of Plan.convolve."""
    shape = (conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode)
    if shape != ((1, 1), _PADDING.get(conv.kernel_size), (1, 1), 1, "zeros"):
        return "they compute 1x1 convolutions and 3x3 convolutions padded by 1, of stride 1"
    if getattr(conv, "norm", None) is not None:
        return "they convolve without a norm"
    if _activation(conv) is not None and not _rectifies(conv):
        return "they rectify, or leave what they computed as it is"
    if compute_type(x) != torch.float32:
        return "they convolve in float32"
    return why_not_here(conv, x, conv.weight)


def why_not_merged(conv: nn.Conv2d, x: Tensor, coarser: Tensor) -> Optional[str]:
    """Why the kernels cannot compute Plan.merge, or None if they can."""
    if _activation(conv) is not None or 2 * coarser.shape[2] != x.shape[2] or 2 * coarser.shape[3] != x.shape[3]:
        return "they add a map of half the size to what is not rectified"
    if coarser.dtype != torch.float32 or (torch.is_grad_enabled() and coarser.requires_grad):
        return "they add float32 without gradients"
    return why_not_convolved(conv, x) or why_not_plain(coarser)


def convolve(
    conv: nn.Conv2d,
    cache: WeightCache,
    x: Tensor,
    active: Optional[Tensor] = None,
    coarser: Optional[Tensor] = None,
) -> Tensor:
    """conv(x), rectified if its activation says so.

    Args:
        conv: for which, with x, why_not_convolved is None.
        cache: keeps what is packed from its weights.
        x: [N, C, H, W].
        active: bool [N, H, W], where it is evaluated; None: everywhere.
        coarser: [N, D, H / 2, W / 2], added as Plan.merge does, why_not_merged being None.

    Returns:
        float32 [N, D, H, W], channels last; uninitialised where it is not evaluated.
    """
    packed: Packed[calls.Convolution] = cache.get(conv, pack_convolution, _rectifies(conv))
    images, channels, height, width = x.shape
    rows, beyond = plain(x.float().permute(0, 2, 3, 1)), zeros(channels)
    listed = None if active is None else plain(active).flatten().nonzero()[:, 0]
    added = None if coarser is None else plain(coarser.permute(0, 2, 3, 1))
    count = images * height * width if listed is None else len(listed)
    y = lend_rows(images, height, width, packed.struct.out_channels)
    maps = calls.Maps(
        *(images, height, width, address(rows), address(beyond), address(listed, torch.int64), count),
        *(address(added), address(y, strided=True)),
    )
    calls.kernels().convolve(packed.struct, maps, torch.get_num_threads())
    return y


def _activation(conv: nn.Conv2d) -> Any:
    return getattr(conv, "activation", None)


def _rectifies(conv: nn.Conv2d) -> bool:
    return _activation(conv) is F.relu or type(_activation(conv)) is nn.ReLU
