"""Sources of weights that are damaged, foreign or none at all; places where no weight file can be written."""

import math
import os

import numpy as np
import torch

from sweep.harness import EXPORT, Case, Word, file, output
from sweep.spoilt_weights import (
    CHECKPOINT,
    Executes,
    checkpoint,
    flip,
    header,
    make_ring,
    make_socket,
    npz,
    rewrite,
    safetensors_of,
    saved,
    special,
)

NAN = math.nan
STAGE = "stages.0.blocks.0.conv1.weight"
SHARD, INDEX = "model-0.data-*", "model-0.index"


def converted(command: str, says: str, source: Word, target: Word = output) -> Case:
    return Case("convert_weights", says, command, source, target)


def inspect(says: str, weights: Word) -> Case:
    return Case("convert_weights", says, "inspect", weights)


CASES = [
    # TensorFlow
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
