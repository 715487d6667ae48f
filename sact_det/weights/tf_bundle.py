"""TensorFlow's V2 checkpoints ("tensor bundles"), read without TensorFlow.

A checkpoint PREFIX is a table PREFIX.index (sact_det/weights/tf_table.py) and shards PREFIX.data-0000i-of-0000n. The
table maps "" to a BundleHeaderProto and the name of every tensor to a BundleEntryProto that says where in which shard
its bytes are (tensorflow/core/protobuf/tensor_bundle.proto).
"""

import math
import os
import re
from pathlib import Path, PureWindowsPath
from typing import Union

import numpy as np
from typing_extensions import override

from sact_det.base.errors import InputError, naming
from sact_det.base.files import check_input
from sact_det.weights.protobuf import Message
from sact_det.weights.tf_table import Table, masked_crc32c
from sact_det.weights.tf_tensors import Checkpoint, TensorEntry, parse_shape, type_of

_STATE_FILE = "checkpoint"
_MODEL_PATH = re.compile(rb'^\s*model_checkpoint_path\s*:\s*"((?:[^"\\\n]|\\.)*)"', re.M)
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|.)")
_SLICE_KEY = b"\0"  # how the keys of the slices of partitioned tensors start
_LITTLE_ENDIAN, _VERSION = 0, 1


def resolve_checkpoint(path: Union[str, Path]) -> str:
    """The prefix of a checkpoint's files.

    Args:
        path: a folder with the text file `checkpoint`, which names the newest checkpoint; an .index file; or a prefix.
            If the folder was moved since, so that the path in `checkpoint` is void, the same file name in the folder
            counts.

    Returns:
        The prefix: `prefix + ".index"` is a file. Or, for a V1 checkpoint, the path of its single file.

    Raises:
        InputError: there is no checkpoint.
    """
    path, suffixes = Path(path), [".index", ""]
    if path.suffix == ".index" and not path.is_dir():
        candidates, suffixes = [str(path.with_suffix(""))], [".index"]
        problem = f"{path}: no such file"
    elif path.is_dir():
        named = _named_in(path / _STATE_FILE)
        candidates = [str(path / named), str(path / PureWindowsPath(named).name)]
        problem = (
            f"{path / _STATE_FILE} names {named!r}, but there is no {' or '.join(f'{c}.index' for c in candidates)}"
        )
    else:
        candidates = [str(path)]
        problem = f"{path}.index: no such file"
    for suffix in suffixes:
        for candidate in candidates:
            if os.path.isfile(candidate + suffix):
                return candidate
    raise InputError(
        f"{problem}; expected a TensorFlow checkpoint: a folder with a file `{_STATE_FILE}`, a prefix or an .index file"
    )


def _named_in(state_file: Path) -> str:
    """The model_checkpoint_path of a CheckpointState in text form."""
    missing = "no such file; expected it to name the checkpoint of this folder (or give a prefix)"
    check_input(state_file, missing=missing)
    with open(state_file, "rb") as file:
        content = file.read(1 << 20)
    match = _MODEL_PATH.search(content)
    name = _ESCAPE.sub(_unescape, match[1]) if match else b""
    if not name or b"\0" in name:
        raise InputError(f'{state_file}: names no checkpoint; expected a line model_checkpoint_path: "..."')
    return os.fsdecode(name)


def _unescape(match: "re.Match[bytes]") -> bytes:
    code = match[1]
    if code.isdigit():
        return bytes([int(code, 8) & 0xFF])
    return {b"n": b"\n", b"r": b"\r", b"t": b"\t"}.get(code, code)


class TensorBundle(Checkpoint):
    """The tensors of a V2 checkpoint, which `resolve_checkpoint` finds, by name.

    Only what is asked for is read, and checked against its checksum.

    Raises:
        InputError: the index is missing, damaged, of another format or of a newer version; `bundle[name]` raises it as
            of Checkpoint, and if the tensor's shard is missing or truncated.
    """

    def __init__(self, path: Union[str, Path]):
        self.prefix = resolve_checkpoint(path)
        index = f"{self.prefix}.index"
        if not os.path.isfile(index):
            raise InputError(f"{self.prefix}: not a V2 checkpoint, which has a file {index}")
        items = Table(index).items()
        with naming(f"{index}: not the index of a V2 checkpoint", ValueError):
            self._num_shards = _parse_header(*next(items, (b"", b"")))
        self.entries = {}
        for key, value in items:
            if key.startswith(_SLICE_KEY):
                continue
            with naming(f"{index}: damaged entry {key.decode(errors='replace')!r}", ValueError):
                self.entries[key.decode()] = _parse_entry(value, self._num_shards)

    @override
    def _tensor(self, name: str, entry: TensorEntry, dtype: np.dtype) -> np.ndarray:
        shard = self._shard(entry.shard)
        expected_size = math.prod(entry.shape) * dtype.itemsize
        if entry.size != expected_size:
            raise InputError(
                f"{self.prefix}.index: {name} has {entry.size} bytes; expected {expected_size} for "
                f"{entry.type_name} {list(entry.shape)}"
            )
        try:
            found_size = os.stat(shard).st_size
            if entry.offset + entry.size > found_size:
                raise InputError(
                    f"{shard}: truncated: it has {found_size} bytes; {name} needs {entry.offset + entry.size}"
                )
            data = np.fromfile(shard, np.uint8, entry.size, offset=entry.offset)
        except FileNotFoundError as error:
            raise InputError(f"{shard}: no such file; {name} is in this shard of {self._num_shards}") from error
        except OSError as error:
            raise InputError(f"{shard}: cannot be read ({error.strerror or error})") from error
        found = masked_crc32c(data)
        if found != entry.crc32c:
            raise InputError(f"{shard}: damaged: the checksum of {name} is {found:08x}; expected {entry.crc32c:08x}")
        return data.view(dtype).reshape(entry.shape)

    def _shard(self, number: int) -> str:
        return f"{self.prefix}.data-{number:05d}-of-{self._num_shards:05d}"

    @property
    @override
    def files(self) -> list[Path]:
        shards = sorted({entry.shard for entry in self.entries.values() if not entry.sliced})
        return [Path(f"{self.prefix}.index"), *(Path(self._shard(number)) for number in shards)]


def _parse_header(key: bytes, value: bytes) -> int:
    """The number of shards, from the first entry of the table."""
    if key != b"" or not value:
        raise ValueError("no header")
    header = Message(value)
    version = Message(header.bytes(3))
    if header.integer(2) != _LITTLE_ENDIAN:
        raise ValueError("big-endian; expected little-endian")
    if version.integer(2) > _VERSION:
        raise ValueError(f"its version asks for readers of {version.integer(2)} or later; expected up to {_VERSION}")
    if not 0 < header.integer(1) < 100_000:
        raise ValueError(f"it has {header.integer(1)} shards; expected 1 or more")
    return header.integer(1)


def _parse_entry(value: bytes, num_shards: int) -> TensorEntry:
    message = Message(value)
    shard, offset, size = (message.integer(number) for number in (3, 4, 5))
    if not 0 <= shard < num_shards or offset < 0 or size < 0:
        raise ValueError(f"{size} bytes at {offset} of shard {shard}; expected a place in {num_shards} shards")
    dtype, type_name = type_of(message.integer(1))
    shape = parse_shape(message.bytes(2))
    return TensorEntry(dtype, type_name, shape, shard, offset, size, message.fixed32(6), bool(message.repeated(7)))
