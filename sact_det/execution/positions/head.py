"""Convolutions of an RPN's head at a set of positions: gather rows, multiply matrices. Any device, any dtype.

Every function is differentiable in features and parameters. Shape shorthand in this module:
    N: images; C, D: channels before and behind; H, W: feature map; a, d: active positions, and those read there.
"""

from typing import Optional

from torch import Tensor, nn

from sact_det.execution.positions.active_set import ActiveSet
from sact_det.execution.positions.gather_gemm import conv1x1, conv3x3


def why_not_gathered(conv: nn.Conv2d) -> Optional[str]:
    """Why rows of positions cannot serve a convolution of a head, or None if they can."""
    shape = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode)
    if shape != ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros"):
        return "they compute 3x3 convolutions of stride 1, padded by 1"
    if getattr(conv, "norm", None) is not None or type(getattr(conv, "activation", None)) is not nn.ReLU:
        return "they rectify, without a norm"
    return None


def convolve_at(conv: nn.Conv2d, x: Tensor, active: Tensor) -> Tensor:
    """conv(x), which is rectified, at the active positions, and 0 elsewhere.

    Args:
        conv: for which why_not_gathered is None.
        x: [N, C, H, W].
        active: bool [N, H, W].

    Returns:
        [N, D, H, W], channels last.
    """
    own = ActiveSet(active, None, 1)
    inner, outer = own.rings
    rows = _rows(x).index_select(0, outer)
    return _spread(conv3x3(rows, own.neighbours(0), conv).relu(), inner, active, 0)


def predict_at(conv: nn.Conv2d, x: Tensor, active: Tensor, elsewhere: float) -> Tensor:
    """A 1x1 convolution at the active positions; arguments as of Plan.predict, [N, D, H, W] channels last comes out."""
    positions = active.flatten().nonzero()[:, 0]
    return _spread(conv1x1(_rows(x).index_select(0, positions), conv), positions, active, elsewhere)


def _rows(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N * H * W, C]."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def _spread(rows: Tensor, positions: Tensor, active: Tensor, elsewhere: float) -> Tensor:
    """Rows [a, D] at their positions on a map of `elsewhere`, [N, D, H, W]."""
    spread = rows.new_full((active.numel(), rows.shape[1]), elsewhere).index_copy(0, positions, rows)
    return spread.view(*active.shape, -1).permute(0, 3, 1, 2)
