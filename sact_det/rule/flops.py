"""The paper's FLOP count, in one place, as exact integers.

The rule (section 4.1, "we treat multiply-add as two floating point operations ... just for the convolution operations
(perforated convolution for SACT)"), with the details of the original program:

* a convolution costs 2 * (weights) per output position; biases, norms, pooling and additions cost nothing;
* the first unit of a block is computed everywhere;
* in a later unit, conv1 counts the active positions dilated 3x3, because conv2 reads them; conv2, conv3 and the local
  halting convolution count the active positions (CIFAR units, of two 3x3 convolutions, likewise);
* the shortcut, the global halting convolution, the root convolution and the logits count dense. In ACT a unit, its
  halting branch included, counts only for images that evaluate it.

What the number is NOT: a run time, nor what a dense execution spends; and one fused multiply-add counts two (fvcore's
counter says one and cannot see masks).

    >>> import torch
    >>> from sact_det import build_classifier
    >>> model = build_classifier(depth=101, halting="none").eval()
    >>> model(torch.zeros(1, 3, 224, 224)).ponder.flops
    tensor([15602814976])
"""

from typing import Optional, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

MULTIPLY_ADD = 2


def conv_flops(conv: nn.Conv2d) -> int:
    """FLOPs of one output position of a convolution."""
    return MULTIPLY_ADD * conv.weight.numel()


class Bottleneck(Protocol):
    """The convolutions of a residual unit; shortcut is None for the identity."""

    conv1: nn.Conv2d
    conv2: nn.Conv2d
    conv3: nn.Conv2d
    shortcut: Optional[nn.Conv2d]


class Basic(Protocol):
    """The convolutions of a CIFAR unit."""

    conv1: nn.Conv2d
    conv2: nn.Conv2d


def count(mask: Tensor) -> Tensor:
    """bool [N, H, W] -> int64 [N]: the number of True positions of each image."""
    return mask.flatten(1).sum(1)


def dilate(active: Tensor) -> Tensor:
    """bool [N, H, W] -> the same dilated 3x3: every position that a 3x3 convolution at the active positions reads."""
    above_and_below = F.pad(active, (0, 0, 1, 1))
    rows = above_and_below[:, 2:] | active | above_and_below[:, :-2]
    beside = F.pad(rows, (1, 1))
    return beside[:, :, 2:] | rows | beside[:, :, :-2]


def active_positions(active: Tensor, exists: Tensor) -> tuple[Tensor, Tensor]:
    """Counts of the active positions and of their 3x3 dilation, per image.

    Args:
        active: bool [N, H, W] (SACT) or [N, 1, 1] (ACT: the whole image).
        exists: bool [N, H, W], False at padding.

    Returns:
        two int64 [N].
    """
    active = active & exists
    return count(active), count(dilate(active) & exists)


def bottleneck_unit_flops(
    unit: Bottleneck,
    dense_in: Tensor,
    dense_out: Tensor,
    active: Optional[Tensor] = None,
    dilated: Optional[Tensor] = None,
) -> Tensor:
    """FLOPs of a bottleneck unit's convolutions, int64 [N].

    Args:
        unit: the unit; its halting branch counts itself.
        dense_in, dense_out: int64 [N], positions of each image at the unit's input and output resolution.
        active, dilated: int64 [N], active positions and their dilation; None for a unit computed everywhere.
    """
    at_conv1 = dense_in if dilated is None else dilated
    at_conv2 = dense_out if active is None else active
    flops = conv_flops(unit.conv1) * at_conv1 + (conv_flops(unit.conv2) + conv_flops(unit.conv3)) * at_conv2
    if unit.shortcut is not None:
        flops = flops + conv_flops(unit.shortcut) * dense_out
    return flops


def basic_unit_flops(
    unit: Basic, dense_out: Tensor, active: Optional[Tensor] = None, dilated: Optional[Tensor] = None
) -> Tensor:
    """FLOPs of the two 3x3 convolutions of a CIFAR unit, int64 [N]; its shortcut has no convolution.

    Args: as in `bottleneck_unit_flops`.
    """
    at_conv1 = dense_out if dilated is None else dilated
    at_conv2 = dense_out if active is None else active
    return conv_flops(unit.conv1) * at_conv1 + conv_flops(unit.conv2) * at_conv2
