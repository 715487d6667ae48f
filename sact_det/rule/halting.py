"""Adaptive computation time as tensor arithmetic: equations 4-13 and algorithms 1 and 2 of the paper.

Figurnov et al., "Spatially Adaptive Computation Time for Residual Networks", CVPR 2017, https://arxiv.org/abs/1612.02297.

Nothing here knows about layers: a caller feeds the halting scores h^l of one residual unit after the other, for any
shape of "positions" (ACT: one per image, SACT: one per feature-map cell), and gets the weights p^l back.

Symbols:
    h^l    halting score of unit l, in [0, 1]; h^L = 1                    (eq. 4, 5)
    c      cumulative halting score                                       (alg. 1, 2)
    N      number of evaluated units                                      (eq. 7)
    R      remainder 1 - sum_{l<N} h^l                                    (eq. 8)
    p^l    halting distribution: h^l before N, R at N, 0 after            (eq. 9)
    rho    ponder cost N + R                                              (eq. 11)
    a      active flag: not yet halted                                    (alg. 2)
"""

from dataclasses import dataclass
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor

DEFAULT_EPS = 0.01


@dataclass(frozen=True)
class HaltingState:
    """What algorithm 2 knows after some units; every tensor has the shape of the positions, real numbers one type.

    Attributes:
        cumulative: c.
        remainder: R, in [0, 1].
        ponder_cost: rho so far; its gradient is d rho / d h^l = -1 for l < N, else 0 (eq. 12).
        num_units: N so far, int64; carries no gradient.
        active: a, bool.
    """

    cumulative: Tensor
    remainder: Tensor
    ponder_cost: Tensor
    num_units: Tensor
    active: Tensor


def start_halting(exists: Tensor, dtype: torch.dtype = torch.float32) -> HaltingState:
    """The state before the first unit.

    Args:
        exists: bool, False where there is no position at all (padding).
        dtype: of the halting scores, float32 or float64.
    """
    zeros = torch.zeros(exists.shape, dtype=dtype, device=exists.device)
    return HaltingState(
        cumulative=zeros,
        remainder=torch.ones_like(zeros),
        ponder_cost=zeros,
        num_units=torch.zeros_like(exists, dtype=torch.int64),
        active=exists,
    )


def halting_step(state: HaltingState, h: Optional[Tensor], eps: float = DEFAULT_EPS) -> tuple[Tensor, HaltingState]:
    """Lines 18-34 of algorithm 2 (10-20 of algorithm 1) for one unit at all positions.

    Args:
        state: the state before this unit.
        h: halting scores h^l, of the state's type and shape; None for the last unit (h^L = 1).
        eps: the threshold is c >= 1 - eps, rounded to that type.

    Returns:
        p^l, the weight of this unit's output at each position, and the state after the unit.
    """
    h = torch.ones_like(state.remainder) if h is None else h
    cumulative = torch.where(state.active, state.cumulative + h.detach(), state.cumulative)
    halts = state.active & (cumulative >= 1.0 - eps)
    continues = state.active & ~halts
    zero = torch.zeros_like(h)
    spent = torch.where(halts, state.remainder, zero)
    return (
        torch.where(continues, h, spent),
        HaltingState(
            cumulative=cumulative,
            remainder=torch.where(continues, state.remainder - h, state.remainder),
            ponder_cost=state.ponder_cost + state.active.to(h.dtype) + spent,
            num_units=state.num_units + state.active,
            active=continues,
        ),
    )


def share_in_tiles(h: Tensor, tile: int, valid: Optional[Tensor] = None) -> Tensor:
    """Averages halting scores over tile x tile cells, so that a tile halts as one (section 2.3).

    Args:
        h: halting scores [N, H, W]; tiles at the right and bottom border may be smaller.
        tile: k, in cells; 1 returns h itself.
        valid: bool [N, H, W] or None; cells that are padding are left out of the averages.

    Raises:
        ValueError: tile is smaller than 1.
    """
    if tile < 1:
        raise ValueError(f"`tile` must be at least 1; got {tile}")
    if tile == 1:
        return h

    def pool(t: Tensor) -> Tensor:
        return F.avg_pool2d(t[:, None], tile, tile, ceil_mode=True, count_include_pad=False)[:, 0]

    if valid is None:
        shared = pool(h)
    else:
        share = valid.to(h.dtype)
        shared = pool(h * share) / pool(share).clamp(min=1.0 / tile**2)
    height, width = h.shape[-2:]
    return shared.repeat_interleave(tile, -2).repeat_interleave(tile, -1)[:, :height, :width]
