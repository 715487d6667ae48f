"""Maps that exist already: a folder of files, a ponder file; and what becomes of any map where an image is padding.

A source of maps is called with the name of an image and returns its map, float [h, w], of any size.
"""

import logging
import os
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Callable, Mapping, Optional, Sequence, Union

import cv2
import numpy as np
from tqdm import tqdm

from sact_det.base.errors import InputError
from sact_det.data.image_files import IMAGE_SUFFIXES
from saliency.dataset import FixationDataset
from saliency.hdf5_maps import HDF5_SUFFIXES, Hdf5Maps
from saliency.images import LEVEL_SUFFIXES, files_by_stem, padding_mask, read_levels

if TYPE_CHECKING:
    from sact_det.pictures.ponder_file import PonderFile

logger = logging.getLogger(__name__)

Maps = Callable[[str], np.ndarray]


def stored_maps(path: Union[str, Path], dataset: FixationDataset, log_densities: bool = False) -> Maps:
    """The maps of a folder of files, or of an HDF5 file in pysaliency's layout (.h5, .hdf5).

    Args:
        path: of folder or file.
        dataset: the images.
        log_densities: they may hold -inf, a probability of 0.

    Raises:
        InputError: there is no such folder or file, or as of `Hdf5Maps`.
    """
    kind = Hdf5Maps if Path(path).suffix.lower() in HDF5_SUFFIXES else MapFolder
    return kind(path, dataset, log_densities)


class MapFolder:
    """Maps as files FOLDER/<name of the image>.<suffix>: images in grey levels (8 or 16 bits), or .npy.

    Args:
        folder: of the files; an image of CAT2000 is called <Category>/<NNN>.
        dataset: the images, none of which is taken for its own map.
        log_densities: they may hold -inf, a probability of 0.

    Raises:
        InputError: there is no such folder.
    """

    def __init__(
        self, folder: Union[str, Path], dataset: Optional[FixationDataset] = None, log_densities: bool = False
    ):
        self._folder, self._log_densities = Path(folder), log_densities
        self._photographs = {image.name: image.source for image in dataset or () if isinstance(image.source, Path)}
        self._files: dict[Path, dict[str, list[Path]]] = {}
        if not self._folder.is_dir():
            raise InputError(f"{folder}: no such folder of maps")

    def __call__(self, name: str) -> np.ndarray:
        """The map, float [h, w]. Raises InputError if there is none, or two, or it cannot be read."""
        levels, _ = read_levels(self._find(name), self._log_densities)
        return levels if levels.dtype.kind == "f" else levels.astype(np.float32)

    def _find(self, name: str) -> Path:
        parts = PurePosixPath(name).parts
        if not parts or parts[0] == "/" or ".." in parts:
            raise InputError(f"{self._folder}: no such map as {name!r}: the image's name leads out of this folder")
        wanted = self._folder.joinpath(*parts)
        if wanted.parent not in self._files:
            self._files[wanted.parent] = files_by_stem(wanted.parent, LEVEL_SUFFIXES)
        found = self._files[wanted.parent].get(wanted.name, [])
        if len(found) != 1:
            problem = f"also {found[1].name}: which is the map?" if found else "no such map (.npy or an image)"
            raise InputError(f"{found[0] if found else wanted}: {problem}")
        photograph = self._photographs.get(name)
        if photograph is not None and os.path.samefile(found[0], photograph):
            raise InputError(f"{found[0]}: no map, but the image itself")
        return found[0]


class PonderFileMaps:
    """The ponder maps of an HDF5 file (sact_det/pictures/ponder_file.py), of the image's size as the network saw it.

    A map belongs to the image whose name its own ends with: ".../Stimuli/Action/001.jpg" to "Action/001".

    Args:
        path: of the file.
        names: of the images that are wanted.

    Raises:
        InputError: the file cannot be read, the network does not halt by position, or two maps fit one image.
    """

    def __init__(self, path: Union[str, Path], names: Sequence[str]):
        self._path = str(path)
        file = _open_ponder_file(self._path)
        if not file.rule.by_position:
            kind = "of ACT, which halts whole images" if file.rule.adaptive else "of a plain network"
            raise InputError(f"{path}: {kind}: it has no ponder maps")
        wanted = set(names)
        depths = {name.count("/") + 1 for name in wanted}
        self._index: dict[str, int] = {}
        for index, stored in enumerate(file.names):
            own = Path(stored)
            parts = (own.with_suffix("") if own.suffix.lower() in IMAGE_SUFFIXES else own).parts
            for name in {"/".join(parts[-depth:]) for depth in depths} & wanted:
                if name in self._index:
                    both = f"{file.names[self._index[name]]}, {stored}"
                    raise InputError(f"{path}: two maps fit the image {name!r}: {both}")
                self._index[name] = index

    def __call__(self, name: str) -> np.ndarray:
        """The map, float32 [h, w]. Raises InputError if there is none or it cannot be read."""
        if name not in self._index:
            raise InputError(f"{self._path}: no map of the image {name!r}")
        file = _open_ponder_file(self._path)
        index = self._index[name]
        ponder_map = file.record(index).map(file.image(index).shape[:2])[0].numpy()
        if not np.isfinite(ponder_map).all():
            raise InputError(f"{self._path}: the map of {name!r} holds NaN or infinity")
        return ponder_map


@lru_cache(maxsize=4)
def _open_ponder_file(path: str) -> "PonderFile":
    from sact_det.pictures.ponder_file import PonderFile  # late: it imports torch, which nothing else here needs

    return PonderFile(path)


class PaddingMasked:
    """Maps whose values in the grey bars of an image (saliency/images.py) are the lowest of the map's others.

    Args:
        maps: source of the maps.
        dataset: the images.
    """

    def __init__(self, maps: Maps, dataset: FixationDataset):
        self._maps = maps
        self._images = {image.name: image for image in dataset}

    def __call__(self, name: str) -> np.ndarray:
        """The map, float [h, w]. Raises InputError as the source does, or if the image cannot be read."""
        values = self._maps(name)
        mask = padding_mask(self._images[name].pixels())
        if mask.all() or not mask.any():
            return values
        size = (values.shape[1], values.shape[0])
        mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT).astype(bool)
        return np.where(mask, values[~mask].min(initial=values.max()), values)


def with_all_maps(dataset: FixationDataset, sources: Mapping[str, Maps], *, skip_bad: bool = False) -> FixationDataset:
    """Sees whether every source has a map of every image, so that all are scored on the same images.

    Args:
        dataset: the images.
        sources: by name.
        skip_bad: leaves out an image that lacks a map, and lists it; otherwise it is an error.

    A warning counts the maps of every source that have another aspect than their image: they are stretched.

    Raises:
        InputError: a map is missing or broken; no image is left.
    """
    kept, skipped = [], list(dataset.skipped)
    stretched: dict[str, list[str]] = {name: [] for name in sources}
    for image in tqdm(dataset, desc="maps, looked at", unit="image", disable=None):
        try:
            for name, source in sources.items():
                if not has_aspect(source(image.name).shape, image.shape):
                    stretched[name].append(image.name)
            kept.append(image)
        except InputError as error:
            if not skip_bad:
                raise
            skipped.append(str(error))
    for name, images in stretched.items():
        if images:
            logger.warning(
                "%s: %d maps have another aspect than their images and are stretched, the first: %s",
                *(name, len(images), images[0]),
            )
    return FixationDataset(dataset.name, kept, skipped)


def has_aspect(map_shape: tuple[int, ...], image_shape: tuple[int, int]) -> bool:
    """Whether an image scaled to a map's height has its width, or the other way round, but for one pixel."""
    (h, w), (height, width) = map_shape[-2:], image_shape
    return abs(w - h * width / height) < 1 or abs(h - w * height / width) < 1
