"""CIFAR-10 as published for Python: pickles, of which nothing is ever executed.

A batch is a pickled dict {b"data": uint8 array [n, 3072], b"labels": list, ...}. The pickle may name numpy's ndarray,
dtype and _reconstruct; each of these becomes an inert stand-in that keeps what it is given, and the array is made here
from its raw bytes. A pickle that names anything else is refused.
"""

import contextlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any, Iterator

import numpy as np

from sact_det.data.labelled_images import LabelledImages
from sact_det.errors import InputError, one_line

FOLDER = "cifar-10-batches-py"
TRAINING_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_BATCHES = ("test_batch",)
META = "batches.meta"
_SHAPE = (3, 32, 32)
_ARRAYS = {
    (module, name)
    for module, names in {
        "numpy": ("ndarray", "dtype"),
        "numpy.core.multiarray": ("_reconstruct",),
        "numpy._core.multiarray": ("_reconstruct",),  # where numpy 2 has it
    }.items()
    for name in names
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

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in."""
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
        pixels, labels = [], []
        with _files(path) as read:
            classes = _load(read, path, META)[b"label_names"]
            for batch in TRAINING_BATCHES if train else TEST_BATCHES:
                content = _load(read, path, batch)
                try:
                    images = _bytes_array(content[b"data"]).reshape(-1, *_SHAPE)
                    numbers = np.array(content[b"labels"], np.int64)
                    if numbers.shape != (len(images),) or not 0 <= numbers.min() <= numbers.max() < len(classes):
                        raise ValueError("the labels do not fit")
                except Exception as error:  # a stand-in in an unexpected place may lead to any exception
                    raise InputError(f"{path}: {batch}: not a batch of CIFAR-10: {one_line(error)}") from error
                pixels.append(images)
                labels.append(numbers)
        self._pixels = np.concatenate(pixels)
        self._batch = np.repeat(TRAINING_BATCHES if train else TEST_BATCHES, [len(part) for part in labels])
        self._first = np.repeat(np.cumsum([0, *map(len, labels)])[:-1], [len(part) for part in labels])
        super().__init__([name.decode() for name in classes], np.concatenate(labels))

    def name(self, index: int) -> str:
        """Path, batch and number of the image in it, from 0."""
        return f"{self._path}: {self._batch[index]}: image {index - self._first[index]}"

    def pixels(self, index: int) -> np.ndarray:
        """uint8 RGB [32, 32, 3]."""
        return np.ascontiguousarray(self._pixels[index].transpose(1, 2, 0))


@contextlib.contextmanager
def _files(path: Path) -> Iterator[Any]:
    """A function from the name of a batch to its bytes."""
    if path.is_dir():
        folder = path if (path / META).is_file() else path / FOLDER
        yield lambda name: (folder / name).read_bytes()
        return
    try:
        with tarfile.open(path) as archive:
            # In the order of the archive: stepping back means decompressing it again.
            wanted = {f"{FOLDER}/{name}": name for name in (META, *TRAINING_BATCHES, *TEST_BATCHES)}
            contents = {
                wanted[member.name]: archive.extractfile(member).read()  # type: ignore[union-attr]
                for member in archive
                if member.name in wanted and member.isfile()
            }
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable tar.gz of CIFAR-10 for Python: {one_line(error)}") from error
    yield contents.__getitem__


def _load(read: Any, path: Path, name: str) -> dict[Any, Any]:
    try:
        raw = read(name)
    except (FileNotFoundError, KeyError) as error:
        raise InputError(f"{path}: no {name}; expected the files of CIFAR-10 for Python") from error
    try:
        content = _InertUnpickler(io.BytesIO(raw), encoding="bytes").load()
        if not isinstance(content, dict) or not content.keys() & {b"data", b"label_names"}:
            raise ValueError("it is no dict of images or class names")
        if name == META and not all(isinstance(label, bytes) for label in content[b"label_names"]):
            raise ValueError("the class names are no strings")
    except Exception as error:  # an unpickler's answer to arbitrary bytes may be any exception
        raise InputError(f"{path}: {name}: not a file of CIFAR-10 for Python: {one_line(error)}") from error
    return content
