"""Image files of saliency data sets: reading, and the grey bars that CAT2000 pads its images with."""

from pathlib import Path
from typing import Any, Union

import numpy as np

from sact_det.base.errors import InputError, naming
from sact_det.data.decoding import Levels, decode_levels
from sact_det.data.image_files import IMAGE_SUFFIXES, is_visible, naming_image, read_checked, read_encoded

ARRAY_SUFFIX = ".npy"
LEVEL_SUFFIXES = (ARRAY_SUFFIX, *IMAGE_SUFFIXES)  # of what `read_levels` reads

PADDING_VALUE = 126  # CAT2000 pads to 1920x1080 with this grey
_PADDING_TOLERANCE = 3  # grey levels that JPEG may be off


def files_by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, list[Path]]:
    """The visible files of a folder that have one of these suffixes, by name without suffix; none if it is missing."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in suffixes and is_visible(path.name) and not path.is_dir():
            found.setdefault(path.stem, []).append(path)
    return found


def read_image(path: Union[str, Path]) -> np.ndarray:
    """Reads an image, uint8 RGB [H, W, 3], as it is stored: fixations count the pixels of the file.

    A rotation in its EXIF data, which every other reader here applies, is left out: the one in CAT2000, that of
    Pattern/134 of the test set, is wrong.

    Raises:
        InputError: as `read_checked`.
    """
    return read_checked(path, upright=False)


def is_map(values: np.ndarray, log_density: bool = False) -> bool:
    """Whether an array is numbers [H, W], all finite; of a log density, -inf is a number: a probability of 0."""
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "biuf":
        return False
    return bool(((values < np.inf) if log_density else np.isfinite(values)).all())


def read_levels(path: Union[str, Path], log_density: bool = False) -> Levels:
    """Reads a map: the grey levels of an image as deep as they are stored, or the numbers of a .npy.

    Args:
        path: of the file.
        log_density: as `is_map`'s.

    Raises:
        InputError: the file is missing or broken, its image is in colours or partly transparent, or its array is no
            map.
    """
    path = Path(path)
    if path.suffix.lower() == ARRAY_SUFFIX:
        return Levels(_read_array(path, log_density), lossy=False)
    encoded = read_encoded(path)
    with naming_image(path):
        return decode_levels(encoded)


def _read_array(path: Path, log_density: bool) -> np.ndarray:
    with naming(f"{path}: not an array that can be read"):  # a parser's answer to arbitrary bytes may be any exception
        values = np.load(path, allow_pickle=False)
    if not isinstance(values, np.ndarray):
        raise InputError(f"{path}: an archive of arrays; expected one array (.npy)")
    if not is_map(values, log_density):
        kind = "a log density must be numbers below +inf" if log_density else "a map must be finite numbers"
        raise InputError(f"{path}: {kind} [H, W]; got {values.dtype} {list(values.shape)}")
    return values


def padding_mask(image: np.ndarray) -> np.ndarray:
    """The bars of grey 126 along an image's borders.

    Args:
        image: uint8 [H, W] or [H, W, 3].

    Returns:
        bool [H, W], true in the rows and columns that are padding, counted from the borders inwards.
    """
    difference = np.abs(image.astype(np.int16) - PADDING_VALUE)
    grey = (difference if difference.ndim == 2 else difference.max(axis=2)) <= _PADDING_TOLERANCE
    return _from_both_ends(grey.all(axis=1))[:, None] | _from_both_ends(grey.all(axis=0))[None, :]


def _from_both_ends(line: Any) -> np.ndarray:
    return np.logical_and.accumulate(line) | np.logical_and.accumulate(line[::-1])[::-1]
