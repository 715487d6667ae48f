"""Parts of a network that a training leaves as they are (MODEL.BACKBONE.FREEZE_AT)."""

from typing import Iterable

from torch import nn

from sact_det.norm import freeze_norms


def freeze(parts: Iterable[nn.Module]) -> None:
    """Fixes the weights and norms of stem and blocks, in place.

    Their halting branches still learn, because they must answer to the ponder cost.
    """
    for part in parts:
        for name, parameter in part.named_parameters():
            if ".halting." not in name:
                parameter.requires_grad_(False)
        freeze_norms(part, skip="halting")
