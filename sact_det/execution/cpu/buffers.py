"""Memory that is used again and again: fresh pages cost more than many a residual unit."""

import math
import threading
import weakref

import numpy as np
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


_MOST_SLACK = 2  # memory so many times as large as needed is not spent on a tensor

_returned: dict[int, np.ndarray] = {}  # lent before, and in no tensor at present


def lend_rows(number: int, height: int, width: int, channels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """An uninitialised tensor [number, channels, height, width], channels last, on the CPU.

    Its memory serves later ones as soon as no tensor lies in it. What has come back and fits none of them is let go of.
    """
    shape, elements = (number, height, width, channels), np.dtype(np.float32 if dtype == torch.float32 else np.int16)
    size = math.prod(shape) * elements.itemsize
    fitting = [memory for memory in list(_returned.values()) if size <= memory.nbytes <= _MOST_SLACK * size]
    memory = _returned.pop(id(min(fitting, key=len)), None) if fitting else None
    if memory is None:
        _returned.clear()
        memory = np.empty(size, np.uint8)
    rows = memory[:size].view(elements).reshape(shape).transpose(0, 3, 1, 2)
    weakref.finalize(rows, _returned.__setitem__, id(memory), memory).atexit = False
    with torch.inference_mode(False):
        tensor = torch.from_numpy(rows)  # which keeps the array for as long as any tensor lies in it
        return tensor if dtype == torch.float32 else tensor.view(dtype)
