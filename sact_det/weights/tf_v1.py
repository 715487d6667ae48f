"""TensorFlow's V1 checkpoints: one file, as the published resnet_v2_{50,101,152}.ckpt of TF-Slim; no TensorFlow.

The file is a table (sact_det/weights/tf_table.py) of SavedTensorSlices (tensorflow/core/util/saved_tensor_slice.proto).
The first, under the key "", lists names, types and shapes; each of the others has the values of one tensor as packed
numbers. The checksums are those of the table's blocks.
"""

import math
from functools import cached_property
from pathlib import Path
from typing import Union

import numpy as np
from typing_extensions import override

from sact_det.base.errors import InputError, naming
from sact_det.weights.protobuf import Message, read_varint, signed
from sact_det.weights.tf_table import Table
from sact_det.weights.tf_tensors import Checkpoint, TensorEntry, parse_shape, type_of

# Fields of TensorProto. Numbers of fixed size are as in memory; the others, and the bits of a half, are varints.
_FIXED_FIELDS = {"float32": 5, "float64": 6}
_VARINT_FIELDS = {"int64": 10, "bool": 11, "float16": 13, "uint32": 16, "uint64": 17}
_SMALL_INTEGERS = 7
_VERSION = 1


class V1Checkpoint(Checkpoint):
    """The tensors of a V1 checkpoint by name, read one at a time.

    Attributes:
        prefix: the path.
        entries: of which type, shape and `sliced` are meaningful.

    Raises:
        InputError: the file is missing, damaged, of another format or of a newer version.
    """

    def __init__(self, path: Union[str, Path]):
        self.prefix = str(path)
        self._table = Table(path)
        with naming(f"{path}: not a V1 checkpoint, or damaged", ValueError):
            self.entries = self._contents()

    @override
    def _tensor(self, name: str, entry: TensorEntry, dtype: np.dtype) -> np.ndarray:
        with naming(f"{self.prefix}: damaged values of {name}", ValueError, OverflowError):
            values = _numbers(self._data(name), dtype)
        if values.size != math.prod(entry.shape):
            raise InputError(
                f"{self.prefix}: {name} has {values.size} values; expected {math.prod(entry.shape)} for "
                f"{list(entry.shape)}"
            )
        return values.reshape(entry.shape)

    @property
    @override
    def files(self) -> list[Path]:
        return [Path(self.prefix)]

    def _contents(self) -> dict[str, TensorEntry]:
        key, value = next(self._table.items(), (b"", b""))
        meta = Message(Message(value).bytes(1))
        if key or not meta.repeated(1):
            raise ValueError("no table of contents")
        version = Message(meta.bytes(2)).integer(2)
        if version > _VERSION:
            raise ValueError(f"its version asks for readers of {version} or later; expected up to {_VERSION}")
        entries = {}
        for tensor in map(Message, meta.repeated(1)):
            dtype, type_name = type_of(tensor.integer(3))
            shape = parse_shape(tensor.bytes(2))
            entries[bytes(tensor.bytes(1)).decode()] = TensorEntry(
                dtype, type_name, shape, sliced=len(tensor.repeated(4)) != 1
            )
        return dict(sorted(entries.items()))

    @cached_property
    def _blocks(self) -> dict[str, int]:
        """In which block of the table the values of a tensor are."""
        blocks = {}
        for block in range(self._table.num_blocks):
            for key, value in self._table.read(block):
                if key:
                    blocks[bytes(Message(Message(value).bytes(2)).bytes(1)).decode()] = block
        return blocks

    def _data(self, name: str) -> Message:
        """The TensorProto with the values of a tensor. Raises InputError if they are not in the file."""
        if name not in self._blocks:
            raise InputError(f"{self.prefix}: {name} is in the table of contents, but its values are not in the file")
        for key, value in self._table.read(self._blocks[name]):
            saved = Message(Message(value).bytes(2))
            if key and bytes(saved.bytes(1)).decode() == name:
                return Message(saved.bytes(3))
        raise InputError(f"{self.prefix}: {name} changed while it was read")


def _numbers(data: Message, dtype: np.dtype) -> np.ndarray:
    """The values of a TensorProto, flat. Raises ValueError and OverflowError if they are not of this type."""
    if dtype.name in _FIXED_FIELDS:
        return np.frombuffer(bytearray().join(data.repeated(_FIXED_FIELDS[dtype.name])), dtype)
    packed = b"".join(data.repeated(_VARINT_FIELDS.get(dtype.name, _SMALL_INTEGERS)))
    values, position = [], 0
    while position < len(packed):
        value, position = read_varint(packed, position)
        values.append(value if dtype.kind == "u" else signed(value))
    if dtype.kind == "f":
        return np.array(values, np.uint16).view(dtype)
    return np.array(values, dtype)
