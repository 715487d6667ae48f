"""Writes ponder files, batch by batch; sact_det/pictures/ponder_file.py has their layout and reads them.

Shape shorthand in this module:
    N: images; H, W: size of an image.
"""

import contextlib
import io
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence, Union

import h5py
import numpy as np
from torch import Tensor
from typing_extensions import override

from sact_det.base.files import replacing
from sact_det.network.halting_rule import halting_rule
from sact_det.pictures.ponder_file import HALTING_KEYS
from sact_det.rule.ponder import PonderRecord

_CHUNK = 2**18  # bytes, about: what is read at once to get one image


def block_scope(name: str, family: str) -> str:
    """The original's name of the block that is "block1", "block2", ... here."""
    return name.replace("block", "block_") if family == "cifar" else name


class _Disk(io.FileIO):
    """The file under HDF5's hands, which keeps a failure to itself until `check`.

    HDF5 cannot close a file whose writes fail, and ends the process with a segmentation fault.
    """

    error: Optional[OSError] = None

    @override
    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        written = 0
        try:
            while self.error is None and written < len(view):
                written += super().write(view[written:])
        except OSError as error:
            self.error = error
        return len(view)

    @override
    def truncate(self, size: Optional[int] = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def check(self) -> None:
        """Raises the first failure, an OSError."""
        if self.error is not None:
            raise self.error


class PonderWriter:
    """Adds batches of images and what was spent on them to a ponder file; `writing_ponder_file` makes it."""

    def __init__(self, file: h5py.File, disk: _Disk, family: str, halting: str, gzip: bool):
        self._file, self._disk = file, disk
        self._family, self._rule = family, halting_rule(halting)
        self._compression = {"compression": "gzip", "shuffle": True} if gzip else {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, file_names: Sequence[str], images: Tensor, record: PonderRecord) -> None:
        """Adds images of one size, the same for all batches.

        Args:
            file_names: what to call each image.
            images: float [N, 3, H, W], RGB in [-1, 1].
            record: of the whole classifier on these images.

        Raises:
            OSError: the disk is full, for one.
        """
        arrays: dict[str, np.ndarray] = {
            "images": images.permute(0, 2, 3, 1).cpu().numpy().astype(np.float32),
            "file_names": np.array([name.encode("utf-8", "replace") for name in file_names], dtype=object),
            "flops": record.flops.cpu().numpy(),
        }
        for name, block in record.blocks.items():
            scope = block_scope(name, self._family)
            arrays[f"{scope}/flops"] = block.flops.cpu().numpy()
            if self._rule.adaptive:
                distribution = block.halting_distribution.permute(0, 2, 3, 1)
                values = (block.ponder_cost, block.num_units.int(), distribution)
                for key, value in zip(HALTING_KEYS, values):
                    value = value[:, 0, 0] if self._rule.per_image else value
                    arrays[f"{scope}/{key}"] = value.cpu().numpy()
        if self._rule.by_position:
            size = (images.shape[2], images.shape[3])
            arrays["ponder_cost_map"] = record.map(size).cpu().numpy()
            arrays["num_units_map"] = record.units_map(size).int().cpu().numpy()

        if not self._length:
            self._file.attrs["block_scopes"] = [block_scope(name, self._family) for name in record.blocks]
        for key, array in arrays.items():
            self._append(key, array)
        self._length += len(file_names)
        self._disk.check()

    def _append(self, key: str, array: np.ndarray) -> None:
        if key not in self._file:
            row_bytes = max(array[:1].nbytes, 1)
            self._file.create_dataset(
                key,
                shape=(0, *array.shape[1:]),
                maxshape=(None, *array.shape[1:]),
                chunks=(min(max(_CHUNK // row_bytes, 1), 1024), *array.shape[1:]),
                dtype=h5py.string_dtype() if array.dtype == object else array.dtype,
                **self._compression,
            )
        dataset = self._file[key]
        dataset.resize(self._length + len(array), axis=0)
        dataset[self._length :] = array


@contextlib.contextmanager
def writing_ponder_file(
    path: Union[str, Path], family: str, halting: str, gzip: bool = False
) -> Iterator[PonderWriter]:
    """A context that yields a `PonderWriter`; the file appears under its name when the context ends well.

    Args:
        path: of the file.
        family: "imagenet" or "cifar"; says how the blocks are called.
        halting: "none", "act" or "sact".
        gzip: compress the data sets.

    Raises:
        OSError: it cannot be written; what was at `path` stays as it was.
    """
    with replacing(path) as temporary, _Disk(temporary, "w+") as disk:
        with h5py.File(disk, "w") as file:
            yield PonderWriter(file, disk, family, halting, gzip)
        disk.check()
