"""Modules whose values tell from where each came."""

from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def filled(module: Module, seed: int = 1) -> Module:
    """The module with different values everywhere, norms included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point():
                value.uniform_(0.1, 1, generator=generator)
    return module
