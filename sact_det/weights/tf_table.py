"""Sorted string tables, the file format of TensorFlow's checkpoint index (and of whole checkpoints before V2).

The format is LevelDB's (https://github.com/google/leveldb/blob/main/doc/table_format.md): blocks of sorted, prefix-
compressed entries, an index block that names the last key and the place of each, and a footer. Every block ends in its
compression and a checksum: CRC32C of the block and that byte, masked.
"""

import os
import struct
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Iterator, Union

import google_crc32c
import numpy as np

from sact_det.base.errors import InputError, naming
from sact_det.base.files import check_input, why_not_regular
from sact_det.weights.protobuf import read_varint

_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER_SIZE = 48
_TRAILER_SIZE = 5
_COMPRESSIONS = {1: "Snappy", 2: "Zstandard"}
_Handle = tuple[int, int]


def masked_crc32c(data: Union[bytes, np.ndarray]) -> int:
    """CRC32C as TensorFlow and LevelDB store it: rotated and shifted, so that checksums of checksums stay sound."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def is_table(path: Union[str, Path]) -> bool:
    """Whether a path is a regular file that ends as tables do."""
    try:
        if why_not_regular(path) is not None:
            return False
        with open(path, "rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - len(_MAGIC), 0))
            return file.read() == _MAGIC
    except (OSError, ValueError):  # ValueError: no name of a file
        return False


class Table:
    """The entries of a table file, read block by block.

    Raises:
        InputError: from every method too, the file is missing, no table, truncated, damaged or compressed.
    """

    def __init__(self, path: Union[str, Path]):
        self.path = Path(path)
        with self._open() as file:
            self._size = os.fstat(file.fileno()).st_size
            file.seek(max(self._size - _FOOTER_SIZE, 0))
            footer = file.read()
            if len(footer) < _FOOTER_SIZE or footer[-len(_MAGIC) :] != _MAGIC:
                raise InputError(
                    f"{self.path}: not a TensorFlow checkpoint's table, or truncated: its {self._size} bytes "
                    f"end in {footer[-8:].hex() or 'nothing'}; expected {_MAGIC.hex()}"
                )
            with self._damaged():
                _, position = _read_handle(footer, 0)  # the meta-index, which TensorFlow leaves empty
                index, _ = _read_handle(footer, position)
                self._handles = [_read_handle(value, 0)[0] for _, value in self._entries(self._block(file, index))]

    @property
    def num_blocks(self) -> int:
        """How many blocks of entries there are."""
        return len(self._handles)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Key and value of all entries, in the order of the file, which is that of the keys."""
        for block in range(self.num_blocks):
            yield from self.read(block)

    def read(self, block: int) -> list[tuple[bytes, bytes]]:
        """Key and value of the entries of one block, counted from 0."""
        with self._open() as file, self._damaged():
            return list(self._entries(self._block(file, self._handles[block])))

    def _open(self) -> BinaryIO:
        check_input(self.path, missing="no such file; expected a TensorFlow checkpoint's table")
        return open(self.path, "rb")

    def _block(self, file: BinaryIO, handle: _Handle) -> bytes:
        offset, size = handle
        if offset + size + _TRAILER_SIZE > self._size:
            raise ValueError(f"a block of {size} bytes at {offset} ends beyond the file's {self._size} bytes")
        file.seek(offset)
        block = file.read(size + _TRAILER_SIZE)
        if len(block) != size + _TRAILER_SIZE:
            raise ValueError(f"the block at {offset} is cut off")
        compression, stored = block[size], int.from_bytes(block[size + 1 :], "little")
        found = masked_crc32c(block[: size + 1])
        if found != stored:
            raise ValueError(f"the checksum of the block at {offset} is {found:08x}; expected {stored:08x}")
        if compression:
            name = _COMPRESSIONS.get(compression, f"method {compression}")
            raise InputError(f"{self.path}: compressed ({name}); expected an uncompressed table, as TensorFlow writes")
        return block[:size]

    @staticmethod
    def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Entries (shared, unshared, value size, rest of the key, value), then restart offsets and their number."""
        if len(block) < 4:
            raise ValueError("a block without restarts")
        (num_restarts,) = struct.unpack("<I", block[-4:])
        end = len(block) - 4 * (num_restarts + 1)
        if end < 0:
            raise ValueError(f"a block of {len(block)} bytes with {num_restarts} restarts")
        key, position = b"", 0
        while position < end:
            shared, position = read_varint(block, position)
            unshared, position = read_varint(block, position)
            value_size, position = read_varint(block, position)
            if shared > len(key) or unshared + value_size > end - position:
                raise ValueError("an entry does not fit its block")
            key = key[:shared] + block[position : position + unshared]
            position += unshared
            yield key, block[position : position + value_size]
            position += value_size

    def _damaged(self) -> AbstractContextManager[None]:
        return naming(f"{self.path}: damaged or truncated", ValueError)


def _read_handle(data: bytes, position: int) -> tuple[_Handle, int]:
    """Where a block is, as (offset, size without trailer), and the position behind that."""
    offset, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return (offset, size), position
