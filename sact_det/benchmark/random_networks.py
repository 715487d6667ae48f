"""Networks with random weights under which positions halt at different units: to compare executions with."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from sact_det.network.norm import TF_DECAY

Module = TypeVar("Module", bound=nn.Module)


def noise(batch: int, height: int, width: int, channels: int = 3, seed: int = 0) -> Tensor:
    """Gaussian noise, float32 [N, C, H, W], the same for the same arguments."""
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def randomize(module: Module, x: Tensor, seed: int = 0, halting_bias: float = 0.0) -> Module:
    """Random weights, norms with the statistics of the batch x, and halting scores from nearly 0 to nearly 1.

    Args:
        module: changed in place; its norms must learn.
        x: its input, [N, C, H, W].
        seed: of the weights.
        halting_bias: a higher one makes positions halt earlier.

    Returns:
        the module, in evaluation mode.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.uniform_(0.5, 1.5, generator=generator)
        norm.bias.normal_(0, 0.2, generator=generator)
        norm.momentum = 1.0
    for conv in (part for part in module.modules() if isinstance(part, nn.Conv2d)):
        halting = conv.out_channels == 1
        conv.weight.normal_(0, (4 if halting else 1) * conv.weight[0].numel() ** -0.5, generator=generator)
        if conv.bias is not None:
            conv.bias.normal_(halting_bias if halting else 0, 0.1, generator=generator)
    module.train()(x)
    for norm in norms:
        norm.momentum = 1 - TF_DECAY
    return module.eval()
