"""Parts of a network that a training leaves as they are.

MODEL.BACKBONE.FREEZE_AT, MODEL.SACT.FREEZE_HALTING and FREEZE_NETWORK ask for it.
"""

from typing import Sequence

from torch import nn

from sact_det.network.norm import BatchNorm2d, freeze_norms, frozen_norm
from sact_det.network.unit import ScoringBranch


def halting_branches(model: nn.Module) -> tuple[str, ...]:
    """The names of all halting branches, each with the dot that parameters have behind it."""
    return tuple(f"{name}." for name, part in model.named_modules() if isinstance(part, ScoringBranch))


def freeze(parts: Sequence[nn.Module], freeze_at: int) -> None:
    """Fixes the weights and norms of the first parts of a network, in place.

    Their halting branches still learn, because they must answer to the ponder cost.

    Args:
        parts: stem and blocks, in order.
        freeze_at: 0: nothing; 1: the stem; 2: also block 1, and so on.

    Raises:
        ValueError: freeze_at is negative.
    """
    if freeze_at < 0:
        raise ValueError(f"`freeze_at` must be 0 or more; got {freeze_at}")
    for part in parts[:freeze_at]:
        branches = halting_branches(part)
        for name, parameter in part.named_parameters():
            if not name.startswith(branches):
                parameter.requires_grad_(False)
        freeze_norms(part, skip="halting")


def freeze_halting(model: nn.Module) -> None:
    """Fixes what halts in a model, in place: branches keep their weights, and their scores are constants.

    No gradient passes through a score, so that features are not drawn to where they would halt later, or never: under
    drawn shifts that is how a network escapes them. Units learn to be good wherever positions halt. Norms of branches
    that follow their features ("MovingBN") still do, so that scores stay as they are while units drift.
    """
    for branch in model.modules():
        if isinstance(branch, ScoringBranch):
            branch.fixed = True
            branch.requires_grad_(False)


def freeze_network(model: nn.Module) -> None:
    """Fixes all of a model but its halting branches, in place: weights, and the moving statistics of norms.

    A trained network learns where its positions can halt, and nothing else. Where nothing halts it is what it was.
    Norms stay what they are, so that budgets may have other statistics for them.
    """
    branches = halting_branches(model)
    for name, parameter in model.named_parameters():
        if not name.startswith(branches):
            parameter.requires_grad_(False)
    for name, part in list(model.named_modules()):
        for child_name, child in part.named_children():
            if f"{name}.{child_name}.".lstrip(".").startswith(branches):
                continue
            if isinstance(child, BatchNorm2d):
                child.fixed = True
                child.eval()
            else:
                setattr(part, child_name, frozen_norm(child))
