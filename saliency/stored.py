"""Maps of images on disk, each of its image's size: as .npy, as 16-bit png, or in one HDF5 file as pysaliency's."""

import zipfile
from pathlib import Path
from typing import Callable, Optional

import cv2
import h5py
import numpy as np
from tqdm import tqdm

from sact_det.base.errors import InputError
from sact_det.base.files import replacing
from saliency.dataset import FixationDataset, FixationImage
from saliency.postprocess import min_max

Made = Callable[[FixationImage], np.ndarray]  # the map of an image, [H, W] of its size

PNG_SCALE = 256  # levels of a 16-bit png per unit of a map that is stored by its values
FORMATS = ("npy", "png")


def key_of(image: FixationImage) -> str:
    """What pysaliency calls an image in an HDF5 file: its name with its file's suffix."""
    return image.name + (image.source.suffix if isinstance(image.source, Path) else ".png")


def write_hdf5(path: Path, dataset: FixationDataset, made: Made) -> None:
    """One float32 data set [H, W] for each image, compressed; the file appears when all are written."""
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        for image in tqdm(dataset, desc=path.name, unit="image", disable=None):
            values = _of_its_size(image, made).astype(np.float32)
            file.create_dataset(key_of(image), data=values, compression="gzip", compression_opts=9, shuffle=True)


def write_folder(folder: Path, dataset: FixationDataset, made: Made, kind: str) -> None:
    """FOLDER/<image's name>.npy (float32) or .png (16 bits: values x PNG_SCALE, rounded).

    Raises:
        InputError: a value has no place in a png.
    """
    for image in tqdm(dataset, desc=folder.name, unit="image", disable=None):
        values = _of_its_size(image, made).astype(np.float32)
        path = folder / f"{image.name}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "png":
            levels = np.rint(values.astype(np.float64) * PNG_SCALE)
            if not 0 <= levels.min() <= levels.max() < 1 << 16:
                raise InputError(f"{path}: values must lie in [0, {(1 << 16) / PNG_SCALE:g}) for a png; take npy")
        with replacing(path) as temporary, open(temporary, "wb") as file:
            if kind == "png":
                file.write(_png(levels))
            else:
                np.save(file, values)


def write_archive(path: Path, dataset: FixationDataset, made: Made) -> None:
    """A zip of <image's name>.png, 16 bits, each map scaled to its whole range: the order of the values is kept."""
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for image in tqdm(dataset, desc=path.name, unit="image", disable=None):
            levels = np.rint(min_max(_of_its_size(image, made).astype(np.float64)) * ((1 << 16) - 1))
            archive.writestr(f"{image.name}.png", _png(levels))


def read_back(path: Path, dataset: FixationDataset, is_density: bool) -> Optional[int]:
    """Reads a submission with pysaliency, every image, and says of how many; None where it cannot be imported.

    Raises:
        InputError: pysaliency does not find a map, or it has another size or is no log density.
    """
    try:
        import pysaliency
        from pysaliency.precomputed_models import HDF5Model, SaliencyMapModelFromArchive
    except ImportError:
        return None
    stimuli = pysaliency.FileStimuli([str(image.source) for image in dataset])
    model = HDF5Model(stimuli, str(path)) if is_density else SaliencyMapModelFromArchive(stimuli, str(path))
    for image, stimulus in zip(dataset, stimuli):
        found = model.log_density(stimulus) if is_density else model.saliency_map(stimulus)
        if found.shape != image.shape:
            raise InputError(f"{path}: pysaliency reads a map of {list(found.shape)} for {image.name}")
    return len(dataset)


def _of_its_size(image: FixationImage, made: Made) -> np.ndarray:
    values = made(image)
    if values.shape != image.shape:
        raise InputError(f"{image.name}: a map of {list(values.shape)}; the image has {list(image.shape)}")
    return values


def _png(levels: np.ndarray) -> bytes:
    return cv2.imencode(".png", levels.astype(np.uint16))[1].tobytes()
