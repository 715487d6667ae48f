"""Reads ponder files: HDF5 with what a classifier spent on every image of a data set, in the original program's layout.

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

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Optional, Union

import h5py
import numpy as np
import torch
from typing_extensions import override

from sact_det.base.errors import InputError, naming, one_line
from sact_det.network.halting_rule import HALTING_RULES
from sact_det.pictures.contained_hdf5 import contained_dataset
from sact_det.rule.ponder import BlockPonder, PonderRecord

HALTING_KEYS = ("ponder_cost", "num_units", "halting_distribution")

_MOST = 2.0**53  # of a number; beyond it floats are no longer whole numbers of their own


class PonderFile(AbstractContextManager["PonderFile"]):
    """Reads a ponder file, image by image. A context manager that closes it.

    Attributes:
        path: of the file.
        blocks: their names in the file.
        rule: the halting rule of the network.
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
            with naming(f"{path}: a damaged file of ponder costs"):
                self._check()
        except BaseException:
            self._file.close()
            raise

    @override
    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._data["images"])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        return self._data["images"].shape[1:3]

    def check_adaptive(self) -> None:
        """Raises InputError if the network is a plain one, which has no ponder costs."""
        if not self.rule.adaptive:
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
        cost, units, distribution, flops = (self._read(f"{name}/{key}", index) for key in (*HALTING_KEYS, "flops"))
        if self.rule.per_image:
            cost, units, distribution = cost.reshape(1, 1), units.reshape(1, 1), distribution.reshape(1, 1, -1)
        return BlockPonder(
            ponder_cost=torch.from_numpy(cost.astype(np.float32))[None],
            num_units=torch.from_numpy(np.rint(units).astype(np.int64))[None],
            flops=torch.from_numpy(np.rint(flops).astype(np.int64).reshape(1)),
            halting_distribution=torch.from_numpy(distribution.astype(np.float32)).permute(2, 0, 1)[None],
        )

    def _read(self, key: str, index: int, least: float = 0) -> np.ndarray:
        with naming(f"{self.path}: {key} cannot be read"):  # h5py raises anything, of a size beyond memory, too
            values = np.asarray(self._data[key][index])
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
        self.rule = HALTING_RULES["none" if absent else "act" if getattr(first, "ndim", 0) == 1 else "sact"]
        dimensions = {"images": 4, "flops": 1, **{f"{block}/flops": 1 for block in self.blocks}}
        if self.rule.adaptive:
            spatial = 2 * self.rule.by_position
            for block in self.blocks:
                dimensions |= {f"{block}/{key}": 1 + spatial for key in HALTING_KEYS}
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
            if kind in HALTING_KEYS and dataset.shape[: 1 + spatial] != self._data[f"{block}/ponder_cost"].shape:
                raise InputError(f"{self.path}: {key} has shape {dataset.shape}, which is not that of the ponder cost")
        if self._data["images"].shape[-1] != 3 or 0 in self._data["images"].shape:
            raise InputError(f"{self.path}: images has shape {self._data['images'].shape}; expected [N, H, W, 3]")
        self.names = self._names()

    def _dataset(self, key: str) -> Optional[h5py.Dataset]:
        with naming(self.path, InputError):
            return contained_dataset(self._file, key)

    def _names(self) -> list[str]:
        names = self._dataset("file_names")
        if names is None or names.shape != (len(self),):
            return [f"image {index:0{len(str(len(self)))}}" for index in range(len(self))]
        return [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names[()]]
