"""Data sets that pysaliency has written: a folder with stimuli.hdf5 and fixations.hdf5, read without pysaliency.

stimuli.hdf5 is a `FileStimuli` (names of files, relative to it) or `Stimuli` (images in it); fixations.hdf5 is
`FixationTrains` (a row for every scanpath, filled up with NaN) or `Fixations`. Viewers and times are kept.
"""

from functools import partial
from pathlib import Path
from typing import Any, Union

import h5py
import numpy as np

from sact_det.base.errors import InputError, naming
from sact_det.pictures.contained_hdf5 import contained_dataset
from saliency.dataset import FixationDataset, FixationImage, load_images
from saliency.images import read_image
from saliency.scanpaths import fixations_of_points

STIMULI_FILE, FIXATIONS_FILE = "stimuli.hdf5", "fixations.hdf5"


def is_pysaliency_folder(path: Union[str, Path]) -> bool:
    """Whether a folder has both files."""
    return all((Path(path) / name).is_file() for name in (STIMULI_FILE, FIXATIONS_FILE))


def read_pysaliency(
    folder: Union[str, Path], *, convention: str = "as-given", skip_bad: bool = False
) -> FixationDataset:
    """Reads a data set of pysaliency's.

    Args:
        folder: with both files.
        convention: as `fixations_of_points`'; "cat2000-1.1" makes version 1.1 of CAT2000's version 1.0.
        skip_bad: leaves out images that cannot be used, such as those without fixations, and lists them.

    Raises:
        InputError: a file cannot be read or holds something else; an image cannot be used.
    """
    folder = Path(folder)
    points = _read_fixations(folder / FIXATIONS_FILE)
    sources, categories = _read_stimuli(folder / STIMULI_FILE)
    if len(points["n"]) and not 0 <= points["n"].min() <= points["n"].max() < len(sources):
        raise InputError(
            f"{folder / FIXATIONS_FILE}: fixations of {int(points['n'].max()) + 1} images, of {len(sources)}"
        )
    names = _names(sources)
    loaders = [
        partial(_load, name, source, category, {key: values[points["n"] == index] for key, values in points.items()},
                convention)
        for index, (name, source, category) in enumerate(zip(names, sources, categories))
    ]  # fmt: skip
    return load_images(str(folder), loaders, skip_bad=skip_bad)


def _load(
    name: str, source: Union[Path, np.ndarray], category: str, points: dict[str, np.ndarray], convention: str
) -> FixationImage:
    pixels = source if isinstance(source, np.ndarray) else read_image(source)
    with naming(name, InputError):
        fixations = fixations_of_points(
            np.stack([points["x"], points["y"]], axis=1),
            (pixels.shape[0], pixels.shape[1]),
            points.get("subjects"),
            points.get("t"),
            convention,
        )
        if len(fixations) == 0:
            raise InputError("no fixations")
    return FixationImage(name, category, fixations, source)


def _names(sources: list[Any]) -> list[str]:
    """The paths of the files without what all have in common and without suffix; numbers of images without files."""
    if any(isinstance(source, np.ndarray) for source in sources):
        return [f"{index:0{len(str(len(sources)))}}" for index in range(len(sources))]
    parts = [source.with_suffix("").parts for source in sources]
    common = 0
    while all(len(own) > common + 1 and own[common] == parts[0][common] for own in parts):
        common += 1
    return ["/".join(own[common:]) for own in parts]


def _read_fixations(path: Path) -> dict[str, np.ndarray]:
    """x, y, n, and where there are any subjects and t, each [number of fixations]."""
    with naming(f"{path}: not a file of fixations that can be read"), h5py.File(path, "r") as file:
        kind = _text(file.attrs["type"])
        if kind == "FixationTrains":
            trains = {key: _array(file, f"train_{key}s") for key in ("x", "y", "t", "n", "subject")}
            known = ~np.isnan(trains["x"])
            counts = known.sum(axis=1)
            found = {key: trains[key][known] for key in ("x", "y", "t")}
            found.update({"n": np.repeat(trains["n"], counts), "subjects": np.repeat(trains["subject"], counts)})
        elif kind == "Fixations":
            found = {key: _array(file, key) for key in ("x", "y", "n")}
            found.update({key: _array(file, key) for key in ("subjects", "t") if key in file})
        else:
            raise InputError(f"{path}: holds {kind}; expected Fixations or FixationTrains")
    if "t" in found and np.isnan(found["t"]).any():
        del found["t"]
    return found


def _read_stimuli(path: Path) -> tuple[list[Any], list[str]]:
    """The files or images, and the category of each."""
    with naming(f"{path}: not a file of stimuli that can be read"), h5py.File(path, "r") as file:
        kind = _text(file.attrs["type"])
        if kind == "FileStimuli":
            sources: list[Any] = [path.parent / _text(name) for name in _array(file, "filenames")]
        elif kind == "Stimuli":
            sources = [_as_rgb(_array(file, str(index))) for index in range(int(file.attrs["size"]))]
        else:
            raise InputError(f"{path}: holds {kind}; expected Stimuli or FileStimuli")
        categories = [_text(one) for one in _array(file, "category")] if "category" in file else [""] * len(sources)
    return sources, categories


def _array(file: h5py.File, key: str) -> np.ndarray:
    found = contained_dataset(file, key)
    if found is None:
        raise InputError(f"{file.filename}: has no data set {key!r}")
    return np.asarray(found[()])


def _as_rgb(image: np.ndarray) -> np.ndarray:
    return np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image[:, :, :3]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
