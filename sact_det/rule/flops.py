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

import torch.nn.functional as F
from torch import Tensor, nn

MULTIPLY_ADD = 2


def conv_flops(conv: nn.Conv2d) -> int:
    """FLOPs of one output position of a convolution."""
    return MULTIPLY_ADD * conv.weight.numel()


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
