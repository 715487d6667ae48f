"""Memory that is used again and again: fresh pages cost more than many a residual unit."""

import math
import threading
import weakref

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self

from sact_det.execution.cpu.memory import empty, plain


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
        return self._memory(name, size)[:size].view(shape)

    def room(self, name: str, *shape: int) -> int:
        """The address of what `take` returns."""
        return self._memory(name, math.prod(shape)).data_ptr()

    def _memory(self, name: str, size: int) -> Tensor:
        """What was taken under that name before, or else what is free; as long as `size` at least."""
        memory = self._taken.pop(name, None)
        if memory is None:
            memory = _pool.free.pop(name, None)
        if memory is None or memory.numel() < size:
            with torch.inference_mode(False):  # what is made in that mode cannot be written to in another
                memory = empty(size)
        self._taken[name] = memory
        return memory

    def rows(self, name: str, x: Tensor, as_it_is: bool = False) -> Tensor:
        """A feature map [N, C, H, W] as rows [N, H, W, C]: itself if it can be, or else what `take` returns.

        They are of float32, unless x is to stay as it is.
        """
        rows = x.permute(0, 2, 3, 1)
        return plain(rows) if as_it_is or x.dtype == torch.float32 else self.take(name, *rows.shape).copy_(rows)

    def give_back(self) -> None:
        """Ends the use of everything that was taken."""
        _pool.free.update(self._taken)
        self._taken = {}


def free_memory(*names: str) -> None:
    """Lets go of this thread's unused memory of these names."""
    for name in names:
        _pool.free.pop(name, None)


_MOST_KEPT = 2**29  # bytes of memory that is kept for later; of more, the rest of the program may be in need

_returned: dict[int, list[np.ndarray]] = {}  # memory that is in no tensor at present, by its size, a power of two


def lend_rows(number: int, height: int, width: int, channels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """An uninitialised tensor [number, channels, height, width], channels last, on the CPU.

    Its memory serves later ones as soon as no tensor lies in it.
    """
    shape, elements = (number, height, width, channels), np.float32 if dtype == torch.float32 else np.int16
    size = math.prod(shape) * dtype.itemsize
    room = 1 << size.bit_length()  # what is never written to takes no memory
    returned = _returned.setdefault(room, [])
    try:
        memory = returned.pop()
    except IndexError:
        memory = np.empty(room, np.uint8)
    rows = memory[:size].view(elements).reshape(shape).transpose(0, 3, 1, 2)
    if room <= _MOST_KEPT:
        weakref.finalize(rows, returned.append, memory).atexit = False
    tensor = torch.from_numpy(rows)  # which keeps the array for as long as any tensor lies in it
    return tensor if dtype == torch.float32 else tensor.view(dtype)
