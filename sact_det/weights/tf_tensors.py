"""What both formats of TensorFlow's checkpoints say of a tensor, and what reading one by its name means."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Mapping, Optional

import numpy as np

from sact_det.base.errors import InputError
from sact_det.weights.protobuf import Message

# tensorflow/core/framework/types.proto: what numpy can hold, and names for the rest.
NUMPY_TYPES: dict[int, np.dtype] = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    4: np.dtype("u1"),
    5: np.dtype("<i2"),
    6: np.dtype("i1"),
    9: np.dtype("<i8"),
    10: np.dtype("?"),
    17: np.dtype("<u2"),
    19: np.dtype("<f2"),
    22: np.dtype("<u4"),
    23: np.dtype("<u8"),
}
_OTHER_TYPES = {7: "string", 8: "complex64", 14: "bfloat16", 18: "complex128", 20: "resource", 21: "variant"}

_MAX_SIDES = 32


@dataclass(frozen=True)
class TensorEntry:
    """What a checkpoint's index says of one tensor.

    Attributes:
        dtype: its type, or None if numpy has none for it; `type_name` always names it.
        shape: its sides.
        shard, offset, size: number of the file with its bytes, and which bytes of it.
        crc32c: masked CRC32C of the bytes.
        sliced: whether its values are spread over the slices of a partitioned variable.
    """

    dtype: Optional[np.dtype]
    type_name: str
    shape: tuple[int, ...]
    shard: int = 0
    offset: int = 0
    size: int = 0
    crc32c: int = 0
    sliced: bool = False


def type_of(number: int) -> tuple[Optional[np.dtype], str]:
    """Numpy's type, or None, and a name for a tensorflow.DataType."""
    dtype = NUMPY_TYPES.get(number)
    return dtype, str(dtype) if dtype is not None else _OTHER_TYPES.get(number, f"type {number}")


def parse_shape(data: memoryview) -> tuple[int, ...]:
    """Sides of a TensorShapeProto. Raises ValueError if it is damaged or of unknown size."""
    message = Message(data)
    shape = tuple(Message(dim).integer(1) for dim in message.repeated(2))
    if message.integer(3) or any(side < 0 for side in shape):
        raise ValueError(f"the shape {list(shape)} is not fully known")
    if len(shape) > _MAX_SIDES:
        raise ValueError(f"a shape of {len(shape)} sides; expected up to {_MAX_SIDES}")
    return shape


class Checkpoint(Mapping[str, np.ndarray]):
    """The tensors of a checkpoint by name. Only what is asked for is read.

    Attributes:
        prefix: of the files.
        entries: name -> TensorEntry, sorted by name.

    Raises:
        InputError: `checkpoint[name]` raises it if the tensor is damaged, partitioned or of a type that numpy lacks
            (KeyError if there is no such tensor).
    """

    prefix: str
    entries: dict[str, TensorEntry]

    @property
    @abstractmethod
    def files(self) -> list[Path]:
        """The files that are read: an index and the shards that hold tensors, or a single one."""

    @abstractmethod
    def _tensor(self, name: str, entry: TensorEntry, dtype: np.dtype) -> np.ndarray:
        """A copy of the tensor, of its shape and type. Raises InputError."""

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self.entries[name]
        if entry.sliced:
            raise InputError(f"{self.prefix}: {name} is a partitioned variable; expected whole ones")
        if entry.dtype is None:
            raise InputError(f"{self.prefix}: {name} is of type {entry.type_name}; expected numbers")
        return self._tensor(name, entry, entry.dtype)
