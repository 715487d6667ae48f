"""Memory that is used again and again: fresh pages cost more than many a residual unit."""

import math
import threading

import torch
from torch import Tensor
from typing_extensions import Self

from sact_det.execution.cpu.memory import empty


class _Pool(threading.local):
    """One thread's float32 memory that nobody uses at present, by name, in one dimension."""

    def __init__(self) -> None:
        self.free: dict[str, Tensor] = {}


_pool = _Pool()


class Buffers:
    """Float32 memory for the time of a run, or of a `with`; later ones of the same thread get the same memory again."""

    def __init__(self) -> None:
        self._taken: dict[str, Tensor] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()

    def take(self, name: str, *shape: int) -> Tensor:
        """An uninitialised tensor [*shape], in the place of what was taken under that name before."""
        size = math.prod(shape)
        memory = self._taken.pop(name, None)
        if memory is None:
            memory = _pool.free.pop(name, None)
        if memory is None or memory.numel() < size:
            with torch.inference_mode(False):  # what is made in that mode cannot be written to in another
                memory = empty(size)
        self._taken[name] = memory
        return memory[:size].view(shape)

    def room(self, name: str, *shape: int) -> int:
        """The address of what `take` returns."""
        return self.take(name, *shape).data_ptr()

    def give_back(self) -> None:
        """Ends the use of everything that was taken."""
        _pool.free.update(self._taken)
        self._taken = {}


def free_memory(*names: str) -> None:
    """Lets go of this thread's unused memory of these names."""
    for name in names:
        _pool.free.pop(name, None)
