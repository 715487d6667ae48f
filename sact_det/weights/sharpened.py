"""Halting scores that are steeper: nearer to 0 or 1, on the same sides of a half.

A position's features are its units' outputs, weighted by the halting distribution p^l (eq. 9). What was trained in a
plain network knows the last output alone: the steeper the scores, the more of the weight lies on the unit where a
position halts, and the less is left to learn.
"""

import re
from typing import Mapping

from torch import Tensor

# What makes the logits of SACT's and ACT's halting branches (sact_det/network/branch.py); prices are added to them.
_LOGITS = re.compile(r"(?:^|\.)halting\.(?:(?:local|global)_conv\.(?:weight|bias)|price_weight)$")


def sharpened(state_dict: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
    """The same weights, but that every halting branch's logit, sigma^-1(h), is `factor` times as large.

    Where positions halt changes with it: a budget is calibrated anew, or drawn in a training.

    Args:
        state_dict: of a classifier or a detector that halts.
        factor: positive.

    Raises:
        ValueError: there is no halting branch, or the factor is not positive and finite.
    """
    if not 0 < factor < float("inf"):
        raise ValueError(f"`factor` must be positive and finite; got {factor:g}")
    names = {name for name in state_dict if _LOGITS.search(name)}
    if not names:
        raise ValueError("has no halting branches, whose scores could be steeper")
    return {name: value * factor if name in names else value for name, value in state_dict.items()}
