"""The wire format of protocol buffers, as far as TensorFlow's checkpoints need it.

https://protobuf.dev/programming-guides/encoding: a message is a sequence of keys and values; a key is a varint of
field number << 3 | wire type. Which fields there are is the caller's knowledge. As in every reader of the format, the
last value of a field counts, and fields that nobody asks for, or of another wire type, are skipped.
"""

from collections import defaultdict
from typing import Any, Union

Buffer = Union[bytes, memoryview]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZE = {_FIXED64: 8, _FIXED32: 4}


def read_varint(data: Buffer, position: int) -> tuple[int, int]:
    """The unsigned 64-bit number at `position`, and the position behind it. Raises ValueError if it does not end."""
    value = 0
    for count in range(10):
        if position + count >= len(data):
            raise ValueError("a number is cut off")
        byte = data[position + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value & (2**64 - 1), position + count + 1
    raise ValueError("a number of more than 10 bytes")


def signed(value: int) -> int:
    """The int32 or int64 that an unsigned number stands for."""
    return value - 2**64 if value >= 2**63 else value


class Message:
    """The fields of one serialised message. Raises ValueError if the bytes are none."""

    def __init__(self, data: Buffer):
        self._values: dict[tuple[int, int], list[Any]] = defaultdict(list)
        data, position = memoryview(data), 0
        while position < len(data):
            key, position = read_varint(data, position)
            number, wire_type = key >> 3, key & 7
            if wire_type == _VARINT:
                value, position = read_varint(data, position)
                self._values[number, wire_type].append(value)
                continue
            if wire_type == _BYTES:
                size, position = read_varint(data, position)
            elif wire_type in _FIXED_SIZE:
                size = _FIXED_SIZE[wire_type]
            else:
                raise ValueError(f"field {number} has the unknown wire type {wire_type}")
            if size > len(data) - position:
                raise ValueError(f"field {number} is cut off")
            self._values[number, wire_type].append(data[position : position + size])
            position += size

    def integer(self, number: int) -> int:
        """An int32, int64, bool or enum; 0 if absent."""
        return signed(self._all(number, _VARINT)[-1]) if self._all(number, _VARINT) else 0

    def fixed32(self, number: int) -> int:
        """An unsigned 32-bit number; 0 if absent."""
        return int.from_bytes(self._all(number, _FIXED32)[-1], "little") if self._all(number, _FIXED32) else 0

    def bytes(self, number: int) -> memoryview:
        """A string or an embedded message; empty if absent."""
        return self.repeated(number)[-1] if self.repeated(number) else memoryview(b"")

    def repeated(self, number: int) -> list[memoryview]:
        """All strings, embedded messages or runs of packed numbers of a repeated field."""
        return self._all(number, _BYTES)

    def _all(self, number: int, wire_type: int) -> list[Any]:
        return self._values.get((number, wire_type), [])
