"""Words that stand for weight files which are damaged, foreign or none at all."""

import io
import os
import re
import shutil
import socket
import struct
import zipfile
from pathlib import Path
from typing import Any, Callable

import numpy as np
import safetensors.torch
import torch
from command_lines import ROOT

from sweep.harness import (
    Place,
    Word,
)

CHECKPOINT = ROOT / "tests/fixtures/oracle/cifar_sact/ckpt"


class Executes:
    """Unpickled, it would make a folder."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, ("ran",)


def saved(content: Any) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def spoilt(change: Callable[[bytearray], Any], of: str = "classifier_weights") -> Word:
    """Good weights as a file with other bytes: what `change` returns, or has made of them."""

    def write(place: Place) -> str:
        content = bytearray(Path(getattr(place.good, of)).read_bytes())
        changed = change(content)
        (place.folder / "w.pth").write_bytes(content if changed is None else changed)
        return str(place.folder / "w.pth")

    return write


def changed(change: Callable[[dict], Any], of: str = "classifier_weights") -> Word:
    """Good weights with another content: what `change` returns, or has made of it."""

    def write(place: Place) -> str:
        content = torch.load(getattr(place.good, of), weights_only=True)
        result = change(content)
        torch.save(content if result is None else result, place.folder / "w.pth")
        return str(place.folder / "w.pth")

    return write


def valued(name: str, change: Callable[[torch.Tensor], torch.Tensor], of: str = "classifier_weights") -> Word:
    """Good weights with one tensor changed."""

    def put(content: dict) -> None:
        content["model"][name] = change(content["model"][name])

    return changed(put, of)


def special(make: Callable[[Path], Any], name: str = "w.pth") -> Word:
    """A path that is no regular file."""

    def write(place: Place) -> str:
        make(place.folder / name)
        return str(place.folder / name)

    return write


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def make_ring(path: Path) -> None:
    path.symlink_to(path)


def flip(place: int) -> Callable[[bytearray], None]:
    """Flips a bit of the byte there."""

    def damage(content: bytearray) -> None:
        content[place] ^= 0x10

    return damage


def flip_record(content: bytearray) -> None:
    """Flips a bit of the values of the first tensor in a file of torch.save."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (record,) = (record for record in archive.infolist() if record.filename.endswith("/data/0"))
    name, extra = struct.unpack("<2H", content[record.header_offset + 26 : record.header_offset + 30])
    content[record.header_offset + 30 + name + extra] ^= 0x10


def claim_folder(content: bytearray) -> None:
    """Sets the bit in the archive's directory by which PyTorch would leave the first tensor's values unread."""
    content[re.search(rb"[^\0/]+/data/0PK", content).start() - 8] ^= 0x10


def checkpoint(damage: Callable[[Path], Any], name: str = "ckpt") -> Word:
    """A TensorFlow checkpoint, damaged."""

    def write(place: Place) -> str:
        folder = Path(shutil.copytree(CHECKPOINT, place.folder / "ckpt"))
        damage(folder)
        return str(place.folder / name)

    return write


def rewrite(pattern: str, change: Callable[[bytearray], Any]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (path,) = folder.glob(pattern)
        content = bytearray(path.read_bytes())
        result = change(content)
        path.write_bytes(content if result is None else result)

    return write


def header(size: int, text: bytes) -> bytes:
    """A safetensors file."""
    return struct.pack("<Q", size) + text


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def safetensors_of(**tensors: torch.Tensor) -> bytes:
    return safetensors.torch.save(tensors)


def sact(**metadata: Any) -> Word:
    """Good weights with other metadata."""
    return changed(lambda content: content["sact"].update(metadata))
