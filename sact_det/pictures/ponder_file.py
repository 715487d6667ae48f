"""Ponder files: HDF5 with what a classifier spent on every image of a data set, in the original program's layout.

    attribute block_scopes          names of the blocks, the original's: block1, ... (ImageNet), block_1, ... (CIFAR)
    images                          float32 [N, H, W, 3]: RGB in [-1, 1], as the network saw it
    file_names                      strings [N] (the original has none)
    flops                           int64   [N]: of the whole network
    {block}/flops                   int64   [N]
    {block}/ponder_cost             float32 [N, h, w]; ACT: [N]
    {block}/num_units               int32   [N, h, w]; ACT: [N]
    {block}/halting_distribution    float32 [N, h, w, L]; ACT: [N, L]
    ponder_cost_map                 float32 [N, H, W], SACT only
    num_units_map                   int32   [N, H, W], SACT only

A plain network has no more than block_scopes, images, file_names and FLOPs. Files of the original program are read too;
there every number is a float32.

Shape shorthand in this module:
    N: images; H, W: size of an image; h, w: size of a block's feature map; L: its residual units.
"""

import contextlib
import io
from pathlib import Path
from types import TracebackType
from typing import Any, Iterator, Optional, Sequence, Union

import h5py
import numpy as np
import torch
from torch import Tensor

from sact_det.base.errors import InputError, one_line
from sact_det.base.files import replacing
from sact_det.pictures.contained_hdf5 import contained_dataset
from sact_det.rule.ponder import BlockPonder, PonderRecord

_CHUNK = 2**18  # bytes, about: what is read at once to get one image
_MOST = 2.0**53  # of a number; beyond it floats are no longer whole numbers of their own
_HALTING_KEYS = ("ponder_cost", "num_units", "halting_distribution")


def block_scope(name: str, family: str) -> str:
    """The original's name of the block that is "block1", "block2", ... here."""
    return name.replace("block", "block_") if family == "cifar" else name


class _Disk(io.FileIO):
    """The file under HDF5's hands, which keeps a failure to itself until `check`.

    HDF5 cannot close a file whose writes fail, and ends the process with a segmentation fault.
    """

    error: Optional[OSError] = None

    def write(self, data: Any) -> int:
        """All of `data`, or nothing after a failure."""
        view = memoryview(data).cast("B")
        written = 0
        try:
            while self.error is None and written < len(view):
                written += super().write(view[written:])
        except OSError as error:
            self.error = error
        return len(view)

    def truncate(self, size: Optional[int] = None) -> int:
        """As of any file, but for a failure."""
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
    """Takes batches; made by `writing_ponder_file`."""

    def __init__(self, file: h5py.File, disk: _Disk, family: str, halting: str, gzip: bool):
        self._file, self._disk = file, disk
        self._family, self._halting = family, halting
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
            if self._halting != "none":
                distribution = block.halting_distribution.permute(0, 2, 3, 1)
                values = (block.ponder_cost, block.num_units.int(), distribution)
                for key, value in zip(_HALTING_KEYS, values):
                    value = value[:, 0, 0] if self._halting == "act" else value
                    arrays[f"{scope}/{key}"] = value.cpu().numpy()
        if self._halting == "sact":
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


class PonderFile:
    """Reads a ponder file, image by image. A context manager.

    Attributes:
        path: of the file.
        blocks: their names in the file.
        halting: "none", "act" or "sact".
        names: what each image is called.

    Raises:
        InputError: there is no such file, it is no HDF5 file, its content is another, or lies in other files.
    """

    def __init__(self, path: Union[str, Path]):
        self.path = path
        try:
            self._file = h5py.File(path, "r")
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such HDF5 file") from error
        except OSError as error:
            raise InputError(f"{path}: not an HDF5 file that can be read ({one_line(error)})") from error
        try:
            self._check()
        except BaseException as error:
            self._file.close()
            if isinstance(error, InputError) or not isinstance(error, Exception):
                raise
            raise InputError(f"{path}: a damaged file of ponder costs ({one_line(error)})") from error

    def __enter__(self) -> "PonderFile":
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._data["images"])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        return self._data["images"].shape[1:3]

    def check_adaptive(self) -> None:
        """Raises InputError if the network is a plain one, which has no ponder costs."""
        if self.halting == "none":
            raise InputError(f"{self.path}: of a plain network: it holds FLOPs, but no ponder costs")

    def image(self, index: int) -> np.ndarray:
        """The image, float32 [H, W, 3], RGB in [-1, 1]. Raises InputError if it cannot be read, or is not finite."""
        return self._read("images", index, least=-_MOST).astype(np.float32)

    def record(self, index: int) -> PonderRecord:
        """The record of one image, N = 1; the blocks by their names in the file.

        Raises:
            InputError: the network is a plain one, which has no ponder costs; a number cannot be read, or is negative,
                NaN or infinite.
        """
        self.check_adaptive()
        blocks = {name: self._block(name, index) for name in self.blocks}
        flops = torch.from_numpy(np.rint(self._read("flops", index)).astype(np.int64).reshape(1))
        return PonderRecord(blocks, flops - sum(block.flops for block in blocks.values()))

    def _block(self, name: str, index: int) -> BlockPonder:
        cost, units, distribution, flops = (self._read(f"{name}/{key}", index) for key in (*_HALTING_KEYS, "flops"))
        if self.halting == "act":
            cost, units, distribution = cost.reshape(1, 1), units.reshape(1, 1), distribution.reshape(1, 1, -1)
        return BlockPonder(
            ponder_cost=torch.from_numpy(cost.astype(np.float32))[None],
            num_units=torch.from_numpy(np.rint(units).astype(np.int64))[None],
            flops=torch.from_numpy(np.rint(flops).astype(np.int64).reshape(1)),
            halting_distribution=torch.from_numpy(distribution.astype(np.float32)).permute(2, 0, 1)[None],
        )

    def _read(self, key: str, index: int, least: float = 0) -> np.ndarray:
        try:
            values = np.asarray(self._data[key][index])
        except Exception as error:  # h5py raises whatever it stumbles over, of a size beyond memory, too
            raise InputError(f"{self.path}: {key} cannot be read ({one_line(error)})") from error
        fine = np.isfinite(values) & (values >= least) & (values <= _MOST)
        if not fine.all():
            expected = "numbers from 0" if least == 0 else "finite numbers"
            found = f"{values[~fine].flat[0]:g} among {key} of image {index}"
            raise InputError(f"{self.path}: {found} ({self.names[index]}); expected {expected}")
        return values

    def _check(self) -> None:
        """Finds the arrays and sees whether they fit together."""
        scopes = np.atleast_1d(self._file.attrs.get("block_scopes", []))
        self.blocks = [scope.decode() if isinstance(scope, bytes) else str(scope) for scope in scopes]
        if not self.blocks:
            raise InputError(f"{self.path}: not a file of ponder costs: it has no attribute block_scopes")
        if len(set(self.blocks)) < len(self.blocks):
            raise InputError(f"{self.path}: block_scopes names a block twice: {', '.join(self.blocks)}")
        first = self._dataset(f"{self.blocks[0]}/ponder_cost")
        absent = first is None and self._file.get(f"{self.blocks[0]}/ponder_cost", getlink=True) is None
        self.halting = "none" if absent else "act" if getattr(first, "ndim", 0) == 1 else "sact"
        dimensions = {"images": 4, "flops": 1, **{f"{block}/flops": 1 for block in self.blocks}}
        if self.halting != "none":
            spatial = 2 * (self.halting == "sact")
            for block in self.blocks:
                dimensions |= {f"{block}/{key}": 1 + spatial for key in _HALTING_KEYS}
                dimensions[f"{block}/halting_distribution"] += 1
        self._data: dict[str, h5py.Dataset] = {}
        for key in dimensions:
            dataset = self._dataset(key)
            if dataset is None or dataset.dtype.kind not in "iuf":
                raise InputError(f"{self.path}: not a file of ponder costs: it has no numbers under {key}")
            self._data[key] = dataset
        for key, dataset in self._data.items():
            if dataset.ndim != dimensions[key] or len(dataset) != len(self):
                raise InputError(
                    f"{self.path}: {key} has shape {dataset.shape}; "
                    f"expected {dimensions[key]} dimensions, the first {len(self)} long"
                )
            block, _, kind = key.rpartition("/")
            if kind in _HALTING_KEYS and dataset.shape[: 1 + spatial] != self._data[f"{block}/ponder_cost"].shape:
                raise InputError(f"{self.path}: {key} has shape {dataset.shape}, which is not that of the ponder cost")
        if self._data["images"].shape[-1] != 3 or 0 in self._data["images"].shape:
            raise InputError(f"{self.path}: images has shape {self._data['images'].shape}; expected [N, H, W, 3]")
        self.names = self._names()

    def _dataset(self, key: str) -> Optional[h5py.Dataset]:
        try:
            return contained_dataset(self._file, key)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from error

    def _names(self) -> list[str]:
        names = self._dataset("file_names")
        if names is None or names.shape != (len(self),):
            return [f"image {index:0{len(str(len(self)))}}" for index in range(len(self))]
        return [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names[()]]
