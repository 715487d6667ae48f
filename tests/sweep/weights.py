"""Weight files, and sources of weights, that are damaged, foreign or none at all; places where none can be written."""

import io
import math
import os
import pickle
import re
import shutil
import socket
import struct
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import Any, Callable

import numpy as np
import safetensors.torch
import torch
from command_lines import ROOT

from sweep.harness import (
    DETECTOR,
    DRAW_CLASSES,
    DRAW_DETECTIONS,
    EVALUATE_CLASSIFIER,
    EVALUATE_DETECTOR,
    EXPORT,
    MATCHED,
    RESOLUTIONS,
    SALIENCY,
    Case,
    Place,
    Word,
    file,
    good,
    output,
)

CHECKPOINT = ROOT / "tests/fixtures/oracle/cifar_sact/ckpt"
WEIGHT, VARIANCE = "stem.conv.weight", "block1.units.0.preact.running_var"


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


def commands(says: str, weights: Word) -> list[Case]:
    """The same bad weights for every command that reads some."""
    return [
        Case("convert_weights", says, "inspect", weights),
        Case("train_net", says, *EVALUATE_CLASSIFIER, "MODEL.WEIGHTS", weights),
        Case("export_ponder", says, *EXPORT, "MODEL.WEIGHTS", weights),
        Case("matched_units", says, *MATCHED, "MODEL.WEIGHTS", weights),
        Case("visualize", says, *DRAW_CLASSES, "--input", good("photograph"), "MODEL.WEIGHTS", weights),
    ]


def inspect(says: str, weights: Word) -> Case:
    return Case("convert_weights", says, "inspect", weights)


def converted(command: str, says: str, source: Word, target: Word = output) -> Case:
    return Case("convert_weights", says, command, source, target)


def detector(says: str, weights: Word) -> Case:
    return Case("train_net", says, *EVALUATE_DETECTOR, "MODEL.WEIGHTS", weights)


NAN, LAST = math.nan, "block4.units.1.conv3.weight"
SCORES = "roi_heads.box_predictor.cls_score.weight"
STAGE = "stages.0.blocks.0.conv1.weight"
SHARD, INDEX = "model-0.data-*", "model-0.index"
DAMAGED = r"w\.pth: (damaged, or not a weight file|.*or is damaged); expected tensors"
NO_WEIGHTS = r"w\.pth: holds no weights; expected a state dict"
PICKLED, NO_NETWORK = r"w\.pth: holds pickled objects", r"w\.pth: 'sact' does not describe a network"

CASES = [
    # Files that cannot be read, or are no files
    *commands(r"nowhere\.pth: no such weight file", "nowhere.pth"),
    *commands(r"w\.pth: cannot be read \(it is a pipe\); expected a weight file", special(os.mkfifo)),
    *commands(DAMAGED, file("w.pth", b"")),
    *commands(r"w\.pth: damaged: the checksum or the header of its record '.*/data/0' is wrong", spoilt(flip_record)),
    *commands(rf"w\.pth: {WEIGHT}: .* values are NaN, infinite", valued(WEIGHT, lambda value: value * NAN)),
    inspect(r"/dev/null: cannot be read \(it is a device\)", "/dev/null"),
    inspect(r"w\.pth: cannot be read \(it is a socket\)", special(make_socket)),
    inspect(r"w\.pth: cannot be read \(Too many levels", special(make_ring)),
    inspect(r"w\.pth/below: no such weight file", lambda place: file("w.pth", b"")(place) + "/below"),
    inspect(r"w/checkpoint: no such file; expected it to name the checkpoint", special(os.mkdir, "w")),
    inspect(r"File name too long|cannot be read", "x" * 300 + ".pth"),
    detector(r"nowhere\.pth: no such weight file", "nowhere.pth"),
    detector(r"^\.: cannot be read \(it is a folder\)", "."),
    detector(r"http://127\.0\.0\.1:9/w\.pth: cannot be fetched \(.*refused", "http://127.0.0.1:9/w.pth"),
    detector(r"https://: cannot be fetched", "https://"),
    detector(r"ftp2://host/w\.pth: no such weight file", "ftp2://host/w.pth"),
    detector(r"MODEL\.WEIGHTS is empty: evaluation needs trained weights", ""),
    Case(
        "evaluate_saliency",
        r"nowhere\.pth: no such weight file",
        *SALIENCY,
        "--model",
        "SACT",
        good("detector_config"),
        "nowhere.pth",
    ),
    Case(
        "sweep_resolutions",
        r"nowhere\.pth: no such weight file",
        *RESOLUTIONS[:3],
        "nowhere.pth",
        *RESOLUTIONS[4:],
        "--sizes",
        "32",
    ),
    Case(
        "sweep_resolutions",
        r"\.: cannot be read \(it is a folder\)",
        *RESOLUTIONS[:3],
        ".",
        *RESOLUTIONS[4:],
        "--sizes",
        "32",
    ),
    Case(
        "visualize",
        r"nowhere\.pth: no such weight file",
        *DRAW_DETECTIONS,
        "--input",
        good("photograph"),
        "MODEL.WEIGHTS",
        "nowhere.pth",
    ),
    Case("train_net", r"nowhere\.pth: no such weight file", *DETECTOR, "MODEL.WEIGHTS", "nowhere.pth"),
    # Damage
    inspect(DAMAGED, file("w.pth", b"hello, this is text")),
    inspect(DAMAGED, file("w.pth", bytes(100))),
    inspect(DAMAGED, file("w.pth", b"PK\3\4 no archive")),
    inspect(DAMAGED, file("w.pth", b"\x89HDF\r\n\x1a\n" + bytes(64))),
    inspect(DAMAGED, spoilt(lambda content: content[: len(content) // 2])),
    inspect(DAMAGED, spoilt(lambda content: content[:-1])),
    inspect(DAMAGED, spoilt(lambda content: content[1:])),
    inspect(r"w\.pth: damaged: the checksum or the header of its record", spoilt(claim_folder)),
    inspect(PICKLED, file("w.pth", pickle.dumps({"model": Executes()}))),
    inspect(PICKLED, file("w.pth", saved({"model": Executes()}))),
    inspect(PICKLED, file("w.pth", saved(Executes()))),
    inspect(PICKLED, file("w.pth", saved({"model": {"a": torch.zeros(1)}, "args": Executes()}))),
    inspect(PICKLED, file("w.pth", saved(torch.nn.Linear(2, 2)))),
    # Content that is none
    inspect(NO_WEIGHTS, file("w.pth", saved([1, 2]))),
    inspect(NO_WEIGHTS, file("w.pth", saved(torch.zeros(3)))),
    inspect(NO_WEIGHTS, file("w.pth", saved(None))),
    inspect(NO_WEIGHTS, file("w.pth", saved({}))),
    inspect(NO_WEIGHTS, file("w.pth", saved({"model": 3}))),
    inspect(NO_WEIGHTS, file("w.pth", saved({"model": {"a": 3}}))),
    inspect(NO_WEIGHTS, file("w.pth", saved({"model": {3: torch.zeros(1)}}))),
    inspect(NO_WEIGHTS, file("w.pth", saved({"args": Namespace(lr=0.1)}))),
    inspect(r"a: is a sparse, quantised or meta tensor", file("w.pth", saved({"a": torch.eye(3).to_sparse()}))),
    inspect(r"a: is a sparse, quantised or meta tensor", file("w.pth", saved({"a": torch.zeros(3, device="meta")}))),
    inspect(r"a: is empty, float32 \[0, 3\]", file("w.pth", saved({"a": torch.zeros(0, 3)}))),
    inspect(r"a: 1 of 1 values", file("w.pth", saved({"a": torch.tensor([NAN]).expand(10**6, 10**6)}))),
    inspect(
        r"a\.b: .* is there twice|a\.b is there twice",
        file("w.pth", saved({"a.b": torch.zeros(1), "a._orig_mod.b": torch.ones(1)})),
    ),
    # Metadata
    inspect(r"w\.pth: 'sact' is a int; expected a dict", changed(lambda content: content.update(sact=3))),
    *(
        inspect(rf"{NO_NETWORK} as our weight files do: {key} is ", sact(**{key: value}))
        for key, values in {
            "family": (3, None),
            "units": (3, [1, -2], [1.5], "1234", [True]),
            "base_channels": (0, -4, "64", None, 1.5),
            "dilation": (2, [0, 1], "1"),
            "num_classes": (0, "3", 2.5),
            "pixel_mean": (3, [NAN] * 3, "127"),
            "pixel_std": (["a"], [math.inf] * 3),
            "missing": (3, "logits", [3]),
            "unused": ({}, [None]),
        }.items()
        for value in values
    ),
    # Weights that do not fit the config
    *(
        Case("train_net", rf"w\.pth: .*{says}", *EVALUATE_CLASSIFIER, "MODEL.WEIGHTS", weights)
        for says, weights in {
            rf"{WEIGHT} is int32 .*; expected floats": valued(WEIGHT, lambda value: value.int()),
            rf"{WEIGHT} is bool .*; expected floats": valued(WEIGHT, lambda value: value > 0),
            rf"{WEIGHT} is complex64 .*; expected floats": valued(WEIGHT, lambda value: value + 0j),
            rf"{VARIANCE}: .* variances are negative": valued(VARIANCE, lambda value: value - 1000),
            rf"{WEIGHT}: .* beyond float32": valued(WEIGHT, lambda value: value.double() + 1e300),
            rf"shapes differ: {WEIGHT} is \[64, 3, 7\]": valued(WEIGHT, lambda value: value[..., 0]),
            rf"not in the file: {LAST}": changed(lambda content: content["model"].__delitem__(LAST)),
            r"not in the model: another": changed(lambda content: content["model"].update(another=torch.zeros(1))),
            r"they need MODEL\.SACT\.UNITS \(9, 9, 9, 9\)": sact(units=(9, 9, 9, 9)),
            r"they need MODEL\.CLASSIFIER\.FAMILY cifar": sact(family="cifar"),
            r"shapes differ: logits\.": valued("logits.weight", lambda value: value[:2]),
        }.items()
    ),
    detector(rf"w\.pth: {SCORES}: .* values are NaN", valued(SCORES, lambda value: value / 0 * 0, "detector_weights")),
    detector(rf"w\.pth: {SCORES}: is empty", valued(SCORES, lambda value: value[:0], "detector_weights")),
    detector(rf"shapes differ: {SCORES}", valued(SCORES, lambda value: value[:, :3], "detector_weights")),
    detector(r"shapes differ: backbone\.block1", good("classifier_weights")),
    Case(
        "train_net",
        r"shapes differ: roi_heads",
        *DETECTOR,
        "MODEL.WEIGHTS",
        valued(SCORES, lambda value: value[:2, :3], "detector_weights"),
    ),
    # Sources of other programs: TensorFlow
    converted("sact-tf", r"nowhere\.index: no such file; expected a TensorFlow checkpoint", "nowhere"),
    converted("sact-tf", r"/dev/null\.index: no such file", "/dev/null"),
    converted("sact-tf", r"checkpoint: names no checkpoint", checkpoint(rewrite("checkpoint", lambda _: b"\xff\0"))),
    converted(
        "sact-tf",
        r"checkpoint names 'gone', but",
        checkpoint(rewrite("checkpoint", lambda _: b'model_checkpoint_path: "gone"')),
    ),
    converted(
        "sact-tf",
        r"checkpoint: no such file; expected it to name",
        checkpoint(lambda folder: (folder / "checkpoint").unlink()),
    ),
    converted(
        "sact-tf",
        r"model-0\.index: not a TensorFlow checkpoint's table, or truncated",
        checkpoint(rewrite(INDEX, lambda content: content[:-9]), "ckpt/model-0.index"),
    ),
    converted(
        "sact-tf",
        r"model-0\.index: .*its 0 bytes",
        checkpoint(rewrite(INDEX, lambda content: b""), "ckpt/model-0.index"),
    ),
    converted("sact-tf", r"model-0\.index: damaged or truncated: the checksum", checkpoint(rewrite(INDEX, flip(100)))),
    converted("sact-tf", r"model-0\.index: not a TensorFlow", checkpoint(rewrite(INDEX, flip(-1)))),
    converted("sact-tf", r"data-00000-of-00001: truncated", checkpoint(rewrite(SHARD, lambda content: content[:-100]))),
    converted("sact-tf", r"data-00000-of-00001: truncated", checkpoint(rewrite(SHARD, lambda content: b""))),
    converted("sact-tf", r"data-00000-of-00001: damaged: the checksum of", checkpoint(rewrite(SHARD, flip(1000)))),
    converted(
        "sact-tf", r"data-00000-of-00001: no such file", checkpoint(lambda folder: next(folder.glob(SHARD)).unlink())
    ),
    converted("tf-slim", r"no variable of TF-Slim's networks", str(CHECKPOINT)),
    inspect(r"model-0\.index: not a TensorFlow", checkpoint(rewrite(INDEX, flip(-1)), "ckpt/model-0.index")),
    # npz
    converted("tf-slim", r"nowhere\.npz: no such npz", "nowhere.npz"),
    converted("tf-slim", r"w\.npz: cannot be read \(it is a pipe\)", special(os.mkfifo, "w.npz")),
    converted("tf-slim", r"w\.npz: damaged, pickled, or not an npz", file("w.npz", b"")),
    converted("tf-slim", r"w\.npz: damaged, pickled, or not an npz", file("w.npz", npz(a=np.zeros(99))[:-40])),
    converted(
        "tf-slim", r"w\.npz: damaged, pickled, or not an npz", file("w.npz", npz(a=np.array([Executes()], object)))
    ),
    converted("tf-slim", r"a: not a variable of a TF-Slim", file("w.npz", npz(a=np.zeros(3)))),
    inspect(r"a: not a variable of a TF-Slim", file("w.npz", npz(a=np.zeros(3)))),
    # timm
    converted("timm", r"nowhere\.safetensors: no such weight file", "nowhere.safetensors"),
    converted("timm", r"w\.safetensors: cannot be read \(it is a folder\)", special(os.mkdir, "w.safetensors")),
    converted("timm", r"w\.safetensors: cannot be read \(it is a pipe\)", special(os.mkfifo, "w.safetensors")),
    *(
        converted("timm", r"w\.safetensors: damaged, or not a safetensors file", file("w.safetensors", content))
        for content in (
            b"",
            b"text",
            header(2**62, b"{}"),
            header(0, b""),
            header(100, b"{}"),
            header(2, b"[]"),
            header(6, b"\xff" * 6),
            header(20, b"{" * 20),
            safetensors_of(a=torch.zeros(99))[:-1],
            safetensors_of(a=torch.zeros(99)) + b"\0",
            safetensors_of(a=torch.zeros(99)).replace(b"[0,396]", b"[0,400]"),
            safetensors_of(a=torch.zeros(99)).replace(b"[99]", b"[98]"),
            safetensors_of(a=torch.zeros(99)).replace(b"F32", b"X32"),
        )
    ),
    converted(
        "timm",
        rf"w\.safetensors: {STAGE}: 32 of 32 values are NaN",
        file("w.safetensors", safetensors_of(**{STAGE: torch.full((8, 4, 1, 1), NAN)})),
    ),
    converted("timm", r"w\.safetensors: a: is empty", file("w.safetensors", safetensors_of(a=torch.zeros(0)))),
    converted(
        "timm",
        r"a, \.\.\.: not the weights of a network of this kind.*w\.safetensors",
        file("w.safetensors", safetensors_of(a=torch.zeros(1))),
    ),
    converted(
        "timm",
        rf"w\.pth: module\.{STAGE}: 3 of 3 values are NaN",
        file(
            "w.pth",
            saved({"state_dict_ema": {f"module.{STAGE}": torch.full((3,), NAN)}, "state_dict": {"a": torch.zeros(1)}}),
        ),
    ),
    Case(
        "convert_weights",
        r"w\.pth: holds no moving averages",
        "timm",
        file("w.pth", saved({"state_dict": {"a": torch.zeros(1)}})),
        output,
        "--ema",
    ),
    Case(
        "convert_weights",
        r"w\.pth: holds no weights",
        "timm",
        file("w.pth", saved({"state_dict_ema": {"a": torch.zeros(1)}})),
        output,
        "--no-ema",
    ),
    # Places for the result
    converted("sact-tf", r"/dev/null: is a device; expected a regular file", str(CHECKPOINT), "/dev/null"),
    converted("sact-tf", r"out\.pth: is a pipe; expected", str(CHECKPOINT), special(os.mkfifo, "out.pth")),
    converted("sact-tf", r"out\.pth: is a socket; expected", str(CHECKPOINT), special(make_socket, "out.pth")),
    converted("sact-tf", r"out\.pth: Is a directory", str(CHECKPOINT), special(os.mkdir, "out.pth")),
    converted("sact-tf", r"out\.pth: Too many levels", str(CHECKPOINT), special(make_ring, "out.pth")),
    converted("sact-tf", r"/dev/null/below: |/dev/null: ", str(CHECKPOINT), "/dev/null/below"),
    converted("sact-tf", r"/proc/nowhere", str(CHECKPOINT), "/proc/nowhere/w.pth"),
    Case("export_ponder", r"/dev/null: is a device", *EXPORT, "--output", "/dev/null"),
    Case("benchmark", r"/dev/null: is a device", "short", "--json", "/dev/null"),
]
