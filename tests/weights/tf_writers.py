"""Writes small TensorFlow checkpoints, for the tests of the readers; shares no code with them."""

import struct
from pathlib import Path
from typing import Iterable, Mapping, Optional

import numpy as np

MAGIC = bytes.fromhex("57fb808b247547db")
TYPES = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int64": 9, "bool": 10, "float16": 19}
RESTART_INTERVAL = 3
SNAPPY = 1


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC_TABLE = _crc_table()


def masked_crc(data: bytes) -> int:
    """CRC32C by its definition, rotated by 15 and shifted by TensorFlow's constant."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15) + ((crc & 0x7FFF) << 17) + 0xA282EAD8) % 2**32


def varint(value: int) -> bytes:
    value %= 2**64
    groups = []
    while True:
        groups.append(value % 128)
        value //= 128
        if not value:
            return bytes([*(group + 128 for group in groups[:-1]), groups[-1]])


def number(field: int, value: int) -> bytes:
    return varint(field * 8) + varint(value)


def fixed32(field: int, value: int) -> bytes:
    return varint(field * 8 + 5) + struct.pack("<I", value)


def nested(field: int, content: bytes) -> bytes:
    return varint(field * 8 + 2) + varint(len(content)) + content


def shape_proto(shape: Iterable[int]) -> bytes:
    return b"".join(nested(2, number(1, side)) for side in shape)


def block(entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    content, restarts, previous = b"", [], b""
    for index, (key, value) in enumerate(entries):
        shared = 0
        if index % RESTART_INTERVAL == 0:
            restarts.append(len(content))
        else:
            while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
                shared += 1
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        previous = key
    restarts = restarts or [0]
    return content + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def write_table(path: Path, entries: Mapping[bytes, bytes], per_block: int = 5, compression: int = 0) -> None:
    """A table with blocks of `per_block` entries; `compression` is only claimed, not done."""
    file, handles = b"", []
    items = sorted(entries.items())

    def append(content: bytes) -> bytes:
        nonlocal file
        handle = varint(len(file)) + varint(len(content))
        tagged = content + bytes([compression])
        file += tagged + struct.pack("<I", masked_crc(tagged))
        return handle

    for start in range(0, len(items), per_block):
        part = items[start : start + per_block]
        handles.append((part[-1][0] + b"\0", append(block(part))))
    meta, index = append(block([])), append(block(handles))
    path.write_bytes(file + (meta + index).ljust(40, b"\0") + MAGIC)


def entry_proto(value: np.ndarray, shard: int, offset: int, data_type: Optional[int] = None) -> bytes:
    content = value.tobytes()
    return (
        number(1, TYPES[value.dtype.name] if data_type is None else data_type)
        + nested(2, shape_proto(value.shape))
        + (number(3, shard) if shard else b"")
        + (number(4, offset) if offset else b"")
        + number(5, len(content))
        + fixed32(6, masked_crc(content))
    )


def header_proto(num_shards: int, big_endian: bool = False, min_consumer: int = 0) -> bytes:
    return number(1, num_shards) + number(2, big_endian) + nested(3, number(1, 1) + number(2, min_consumer))


def write_bundle(
    prefix: Path,
    tensors: Mapping[str, np.ndarray],
    num_shards: int = 1,
    header: Optional[bytes] = None,
    entries: Mapping[str, bytes] = {},
    compression: int = 0,
) -> None:
    """A V2 checkpoint; tensors go to the shards in turn. `header` and `entries` replace or add what the index says."""
    shards = [b""] * num_shards
    index = {b"": header_proto(num_shards) if header is None else header}
    for position, (name, value) in enumerate(sorted(tensors.items())):
        shard = position % num_shards
        index[name.encode()] = entry_proto(value, shard, len(shards[shard]))
        shards[shard] += value.tobytes()
    index.update({name.encode(): entry for name, entry in entries.items()})
    for shard, content in enumerate(shards):
        Path(f"{prefix}.data-{shard:05d}-of-{num_shards:05d}").write_bytes(content)
    write_table(Path(f"{prefix}.index"), index, compression=compression)


def write_v1(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    min_consumer: int = 0,
    num_slices: int = 1,
    data: Mapping[str, bytes] = {},
) -> None:
    """A V1 checkpoint; `data` replaces the TensorProto of a tensor."""
    slices = {name: b"".join(nested(1, b"") for _ in value.shape) for name, value in tensors.items()}
    contents = b"".join(
        nested(
            1,
            nested(1, name.encode())
            + nested(2, shape_proto(value.shape))
            + number(3, TYPES[value.dtype.name])
            + nested(4, slices[name]) * num_slices,
        )
        for name, value in tensors.items()
    )
    entries = {b"": nested(1, contents + nested(2, number(1, 1) + number(2, min_consumer)))}
    for name, value in tensors.items():
        # Ordered code: 0, the name up to a terminator, the number of sides, and (0, all) for each.
        key = b"\0" + name.encode() + b"\0\1" + bytes([1, value.ndim]) + b"\x80\x7f" * value.ndim
        saved = nested(1, name.encode()) + nested(2, slices[name]) + nested(3, data.get(name, tensor_proto(value)))
        entries[key] = nested(2, saved)
    write_table(path, entries, per_block=2)


def tensor_proto(value: np.ndarray) -> bytes:
    """Values only, neither type nor shape."""
    flat = value.ravel()
    if value.dtype.name in ("float32", "float64"):
        return nested(5 if value.dtype.name == "float32" else 6, value.tobytes())
    field = {"int64": 10, "bool": 11, "float16": 13}.get(value.dtype.name, 7)
    integers = flat.view(np.uint16) if value.dtype.name == "float16" else flat
    return nested(field, b"".join(varint(int(element)) for element in integers))
