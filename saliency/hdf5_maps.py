"""Maps and log densities in HDF5 files of pysaliency's layout: a data set [H, W] for every image, under its file name.

pysaliency cuts off of the names the folders that all images share: "Action/001.jpg" of CAT2000, "001.jpg" of a single
folder. A name belongs to the image whose own it ends with ("trainSet/Stimuli/Action/001.jpg" to "Action/001"), or whose
file's path ends with it.
"""

from collections import defaultdict
from pathlib import Path, PurePath
from typing import Union

import h5py
import numpy as np

from sact_det.base.errors import InputError, naming, one_line
from sact_det.data.image_files import IMAGE_SUFFIXES
from sact_det.pictures.contained_hdf5 import contained_dataset
from saliency.dataset import FixationDataset
from saliency.images import is_map

HDF5_SUFFIXES = (".h5", ".hdf5")


class Hdf5Maps:
    """The maps of a data set's images in a file. Called with an image's name; can be sent to other processes.

    Args:
        path: of the file.
        dataset: the images.
        log_densities: they may hold -inf, a probability of 0.

    Raises:
        InputError: the file cannot be read, or two maps fit one image.
    """

    def __init__(self, path: Union[str, Path], dataset: FixationDataset, log_densities: bool = False):
        self._path, self._log_densities = str(path), log_densities
        if not Path(path).is_file():
            raise InputError(f"{path}: no such HDF5 file")
        try:
            with h5py.File(path, "r") as file:
                keys: list[str] = []
                file.visititems(lambda name, node: keys.append(name) if isinstance(node, h5py.Dataset) else None)
        except (OSError, RuntimeError) as error:
            raise InputError(f"{path}: not an HDF5 file that can be read ({one_line(error)})") from error
        endings: dict[str, list[str]] = defaultdict(list)
        stems = {_stem(key): key for key in keys}
        for stem, key in stems.items():
            parts = stem.split("/")
            for start in range(len(parts)):
                endings["/".join(parts[start:])].append(key)
        self._keys: dict[str, str] = {}
        for image in dataset:
            found = endings.get(image.name, [])
            if len(found) > 1:
                raise InputError(f"{path}: two maps fit the image {image.name!r}: {found[0]}, {found[1]}")
            source = PurePath(image.source if isinstance(image.source, Path) else image.name).with_suffix("")
            tails = ("/".join(source.parts[start:]) for start in range(len(source.parts)))
            found = found or [stems[tail] for tail in tails if tail in stems]
            if found:
                self._keys[image.name] = found[0]

    def __call__(self, name: str) -> np.ndarray:
        """The map, float [h, w]. Raises InputError if there is none or it cannot be read."""
        if name not in self._keys:
            raise InputError(f"{self._path}: no map of the image {name!r}")
        with naming(f"{self._path}: {self._keys[name]}"), h5py.File(self._path, "r") as file:
            stored = contained_dataset(file, self._keys[name])
            values = np.zeros(0) if stored is None else np.asarray(stored[()])
        if not is_map(values, self._log_densities):
            kind = "below +inf" if self._log_densities else "that are finite"
            raise InputError(
                f"{self._path}: {self._keys[name]}: must be numbers [H, W] {kind}; "
                f"got {values.dtype} {list(values.shape)}"
            )
        return values if values.dtype in (np.float32, np.float64) else values.astype(np.float32)


def _stem(key: str) -> str:
    path = PurePath(key)
    return str(path.with_suffix("") if path.suffix.lower() in (*IMAGE_SUFFIXES, ".npy") else path)
