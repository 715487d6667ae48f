"""Convolutions as the original program makes and pads them."""

import torch.nn.functional as F
from torch import Tensor, nn

TAPS = 9  # of a 3x3 convolution, numbered row by row


def init_conv(conv: nn.Conv2d, bias: float = 0.0) -> nn.Conv2d:
    """The original's initialisation: truncated normal of variance 1.3 * 2 / fan_in, cut at two deviations."""
    std = (1.3 * 2 / conv.weight[0].numel()) ** 0.5
    nn.init.trunc_normal_(conv.weight, std=std, a=-2 * std, b=2 * std)
    if conv.bias is not None:
        nn.init.constant_(conv.bias, bias)
    return conv


def pad_same(x: Tensor, value: float = 0.0) -> Tensor:
    """Pads [N, C, H, W] as TensorFlow's SAME does for a 3x3 window of stride 2.

    An even side gets 0 before and 1 after, an odd one 1 and 1, so that the windows start at every second position:
    ceil(side / 2) of them.
    """
    return F.pad(x, (x.shape[3] % 2, 1, x.shape[2] % 2, 1), value=value)
