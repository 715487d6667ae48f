"""Memory that is used again and again: fresh pages cost more than many a residual unit."""

import math
import threading

import torch
from torch import Tensor

from sact_det.execution.cpu.memory import empty


class Workspace(threading.local):
    """What one thread's runs hand from one to the next, by name."""

    def __init__(self) -> None:
        self._free: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """An uninitialised float32 tensor that belongs to the caller until given back."""
        size = math.prod(shape)
        return self.take_flat(name, size)[:size].view(shape)

    def take_flat(self, name: str, size: int) -> Tensor:
        """As `take`, in one dimension and perhaps longer."""
        memory = self._free.pop(name, None)
        if memory is None or memory.numel() < size:
            with torch.inference_mode(False):  # what is made in that mode cannot be written to in another
                memory = empty(size)
        return memory

    def give_back(self, name: str, tensor: Tensor) -> None:
        """Returns what was taken under a name."""
        self._free[name] = (tensor if tensor._base is None else tensor._base).view(-1)

    def forget(self, *names: str) -> None:
        """Lets go of what was given back under these names."""
        for name in names:
            self._free.pop(name, None)


workspace = Workspace()
