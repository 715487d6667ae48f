"""The matched-units baseline: a plain network as deep as an adaptive one is on average (section 4.1).

The mean number of units per block, over images and for SACT over positions too, is rounded. The plain network starts
from the first units of each block.
"""

import math
import re
from typing import Mapping, Sequence

from torch import Tensor

_UNIT = re.compile(r"(?:^|\.)block(\d)\.units\.(\d+)\.")


def matched_units(mean_units: Sequence[float]) -> tuple[int, ...]:
    """Units per block of the plain network, from the means over images and positions; halves round up.

    Raises:
        ValueError: a mean is below 1: the first unit of a block is always evaluated.
    """
    if any(not mean >= 1 for mean in mean_units):
        raise ValueError(f"`mean_units` must be 1 or more; got {tuple(mean_units)}")
    return tuple(math.floor(mean + 0.5) for mean in mean_units)


def first_units(state_dict: Mapping[str, Tensor], units: Sequence[int]) -> dict[str, Tensor]:
    """The weights of the plain network with so many units per block: the first ones of each, without halting branches.

    Args:
        state_dict: of a classifier or a detector.
        units: units to keep of block 1, 2, ...

    Raises:
        ValueError: a block has fewer units.
    """
    kept: dict[str, Tensor] = {}
    present = dict.fromkeys(range(1, len(units) + 1), 0)
    for name, value in state_dict.items():
        match = _UNIT.search(name)
        block, unit = (int(match[1]), int(match[2])) if match else (0, 0)
        if block:
            present[block] = max(present[block], unit + 1)
        if ".halting." not in name and (not block or unit < units[block - 1]):
            kept[name] = value
    for block, wanted in enumerate(units, 1):
        if present[block] < wanted:
            raise ValueError(f"`units` asks for {wanted} units of block {block}; there are {present[block]}")
    return kept
