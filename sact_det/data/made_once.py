"""What all processes of a machine need of a data set is made by one of them; the others read its memory.

A file in COCO format of 118,000 images takes a process half a minute of a core and nearly 2 GB.
"""

import logging
import mmap
import os
import pickle
from typing import Any, Callable, NamedTuple, Optional, Sequence, TypeVar

import numpy as np
import torch
from detectron2.data.common import DatasetFromList
from detectron2.utils import comm
from torch.utils.data import Dataset

from sact_det.base.errors import InputError, one_line

T = TypeVar("T")
_ADDRESS = np.dtype(np.int64)
logger = logging.getLogger(__name__)


class _Memory(NamedTuple):
    """Anonymous memory of a process, which other processes of its user can open while it lives."""

    process: int
    descriptor: int
    number: int  # of what is packed there


class PackedList(Dataset):
    """Items that lie pickled one behind the other in memory, as in Detectron2's DatasetFromList, and one value more.

    Args:
        descriptor: of the memory, which is mapped; it may be closed then.
        count: of the items with the value behind them.

    Attributes:
        rest: that value.
    """

    def __init__(self, descriptor: int, count: int):
        memory = mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)  # nobody writes: pages stay shared
        content = np.frombuffer(memory, np.uint8)
        # As tensors, so that a loader's processes get them whatever starts these.
        self._bytes = torch.from_numpy(content)
        self._ends = torch.from_numpy(content[-count * _ADDRESS.itemsize :].view(_ADDRESS).copy())
        self.rest = self._value(count - 1)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._value(index)

    def _value(self, index: int) -> Any:
        start = int(self._ends[index - 1]) if index else 0
        return pickle.loads(self._bytes[start : int(self._ends[index])].numpy().data)  # what our own process pickled


def _pack(items: Sequence[Any], rest: Any) -> _Memory:
    """Puts them into new memory, for PackedList. Raises OSError if there is too little of it."""
    descriptor = os.memfd_create("sact_det")
    ends, end = [], 0
    with open(descriptor, "wb", closefd=False) as file:
        for index in range(len(items) + 1):
            end += file.write(pickle.dumps(items[index] if index < len(items) else rest, protocol=-1))
            ends.append(end)
        file.write(bytes(-end % _ADDRESS.itemsize))
        file.write(np.array(ends, _ADDRESS).tobytes())
    return _Memory(os.getpid(), descriptor, len(ends))


def made_once(make: Callable[[], T]) -> T:
    """make(), called by the first process of every machine; the others get a copy of what it returns.

    All processes of a training call it together. Without several on a machine it is make() alone.

    Args:
        make: what it returns can be pickled.

    Raises:
        Exception: of `make`, in all processes of its machine.
    """
    if _alone():
        return make()
    return _told_to_all(make)


def list_made_once(make: Callable[[], tuple[list[Any], T]]) -> tuple[Any, T]:
    """The items that make() returns, serialized, and its other value; as of `made_once`, but for the copies of items.

    One process of a machine has called `make` and packed the items; all read them in its memory. A process that must
    not look there (another container, say) calls `make` itself.
    """
    if _alone() or not hasattr(os, "memfd_create"):
        items, rest = make()
        return DatasetFromList(items, copy=False), rest
    memory = _told_to_all(lambda: _pack(*make()))
    packed = _attached(memory)
    comm.synchronize()  # nobody needs to open it any more
    if memory.process == os.getpid():
        os.close(memory.descriptor)
    if packed is not None:
        return packed, packed.rest
    items, rest = make()
    return DatasetFromList(items, copy=False), rest


def _alone() -> bool:
    return comm.get_world_size() == 1 or comm._LOCAL_PROCESS_GROUP is None


def _attached(memory: _Memory) -> Optional[PackedList]:
    try:
        descriptor = os.open(f"/proc/{memory.process}/fd/{memory.descriptor}", os.O_RDONLY)
    except OSError as error:
        logger.warning("The data set is read by this process, too: %s", one_line(error))
        return None
    try:
        return PackedList(descriptor, memory.number)
    finally:
        os.close(descriptor)


def _told_to_all(make: Callable[[], T]) -> T:
    """What the first process of the machine made. Raises, in each of them, what `make` raised."""
    made, failed = None, None
    if comm.get_local_rank() == 0:
        try:
            made = make()
        except Exception as error:
            failed = error
    told = failed if failed is None or isinstance(failed, (InputError, OSError)) else InputError(one_line(failed))
    of_all = comm.all_gather((made, told))
    made, told = of_all[comm.get_rank() - comm.get_local_rank()]
    if told is not None:
        raise failed or told
    return made
