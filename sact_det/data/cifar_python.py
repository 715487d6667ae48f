"""CIFAR-10 as published for Python: pickles, of which nothing is ever executed.

A batch is a pickled dict {b"data": uint8 array [n, 3072], b"labels": list, ...}. The pickle may name numpy's ndarray,
dtype and _reconstruct; each of these becomes an inert stand-in that keeps what it is given, and the array is made here
from its raw bytes. A pickle that names anything else is refused.
"""

import io
import pickle
from functools import partial
from pathlib import Path
from typing import Any, Callable, TypeVar

import numpy as np
from typing_extensions import override

from sact_det.base.errors import InputError, naming
from sact_det.data.labelled_images import LabelledImages
from sact_det.data.tar_members import read_members

FOLDER = "cifar-10-batches-py"
TRAINING_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_BATCHES = ("test_batch",)
META = "batches.meta"
_SHAPE = (3, 32, 32)
_Content = TypeVar("_Content")
_ARRAYS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),  # where numpy 2 has it
}


def is_cifar_python(path: Path) -> bool:
    """Whether a path is, or may be by its name, CIFAR-10 for Python."""
    if path.is_dir():
        return any((folder / META).is_file() for folder in (path, path / FOLDER))
    return path.name.endswith((".tar.gz", ".tgz"))


class _Inert:
    """Stands for numpy's ndarray, dtype and _reconstruct: remembers arguments and state, does nothing."""

    def __init__(self, *arguments: Any):
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _InertUnpickler(pickle.Unpickler):
    """Builds numbers, strings, lists and dicts; arrays stay `_Inert`. Raises UnpicklingError for anything else."""

    @override
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAYS:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return _Inert


def _bytes_array(value: Any) -> np.ndarray:
    """The uint8 array that a stand-in describes. Raises ValueError (or what Python raises) if it is something else."""
    _, shape, dtype, fortran, raw = value.state
    if dtype.arguments[0] not in ("u1", b"u1", "|u1") or fortran or not isinstance(raw, bytes):
        raise ValueError("the array is not one of bytes")
    return np.frombuffer(raw, np.uint8).reshape(shape)


class CifarPython(LabelledImages):
    """The training or the test images of CIFAR-10.

    Args:
        path: `cifar-10-python.tar.gz`, the folder `cifar-10-batches-py`, or one that holds it.
        train: the 50,000 training images, or the 10,000 test images.

    Raises:
        InputError: a file is missing or broken, names anything but arrays, or holds no images of 32x32 with labels.
    """

    def __init__(self, path: Path, train: bool):
        self._path = path
        read, batches = _files(path), TRAINING_BATCHES if train else TEST_BATCHES
        classes = _load(read, path, META, _class_names)
        loaded = [_load(read, path, batch, partial(_images_and_labels, len(classes))) for batch in batches]
        pixels, labels = zip(*loaded)
        self._pixels = np.concatenate(pixels)
        self._batch = np.repeat(batches, [len(part) for part in labels])
        self._first = np.repeat(np.cumsum([0, *map(len, labels)])[:-1], [len(part) for part in labels])
        super().__init__(classes, np.concatenate(labels))

    @override
    def name(self, index: int) -> str:
        return f"{self._path}: {self._batch[index]}: image {index - self._first[index]}"

    @override
    def pixels(self, index: int) -> np.ndarray:
        return np.ascontiguousarray(self._pixels[index].transpose(1, 2, 0))


def _files(path: Path) -> Callable[[str], bytes]:
    """A function from the name of a batch to its bytes."""
    if path.is_dir():
        folder = path if (path / META).is_file() else path / FOLDER
        return lambda name: (folder / name).read_bytes()
    wanted = {f"{FOLDER}/{name}": name for name in (META, *TRAINING_BATCHES, *TEST_BATCHES)}
    # A decompressor's answer to arbitrary bytes may be any exception.
    with naming(f"{path}: not a readable tar.gz of CIFAR-10 for Python"):
        contents = {wanted[member]: content for member, content in read_members(path, wanted).items()}
    return contents.__getitem__


def _load(read: Callable[[str], bytes], path: Path, name: str, interpret: Callable[[Any], _Content]) -> _Content:
    """What is made of the content of a file. Raises InputError if it is missing or something else."""
    try:
        raw = read(name)
    except (FileNotFoundError, KeyError) as error:
        raise InputError(f"{path}: no {name}; expected the files of CIFAR-10 for Python") from error
    # Arbitrary bytes, and stand-ins in unexpected places, may lead to any exception.
    with naming(f"{path}: {name}: not a file of CIFAR-10 for Python"):
        return interpret(_InertUnpickler(io.BytesIO(raw), encoding="bytes").load())


def _class_names(meta: Any) -> list[str]:
    return [name.decode() for name in meta[b"label_names"]]


def _images_and_labels(num_classes: int, batch: Any) -> tuple[np.ndarray, np.ndarray]:
    """The images of a batch, uint8 [n, 3, 32, 32], and their labels, int64 [n]. Raises ValueError."""
    images = _bytes_array(batch[b"data"]).reshape(-1, *_SHAPE)
    labels = np.array(batch[b"labels"])
    if labels.dtype.kind not in "iu" or labels.shape != (len(images),):
        raise ValueError(f"labels of {len(images)} images are expected to be as many integers")
    if not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(f"labels are expected to lie in 0 to {num_classes - 1}")
    return images, labels.astype(np.int64)
