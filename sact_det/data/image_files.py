"""Image files that a user names: finding, naming and reading them."""

import glob
import re
from pathlib import Path
from typing import Sequence, Union

import numpy as np
from detectron2.data.detection_utils import read_image

from sact_det.data.labelled_images import IMAGE_SUFFIXES
from sact_det.errors import InputError, one_line


def find_images(inputs: Sequence[str]) -> list[Path]:
    """The files that images, folders (not their subfolders) and globs name, each once. Raises InputError."""
    found: dict[Path, Path] = {}
    for item in inputs:
        path = Path(item)
        if path.is_dir():
            files = sorted(child for child in path.iterdir() if child.suffix.lower() in IMAGE_SUFFIXES)
            if not files:
                raise InputError(f"{item}: no images in this folder ({', '.join(IMAGE_SUFFIXES)})")
        elif path.exists():
            files = [path]
        elif glob.has_magic(item):
            files = [Path(match) for match in sorted(glob.glob(item, recursive=True)) if Path(match).is_file()]
            if not files:
                raise InputError(f"{item}: no file matches")
        else:
            raise InputError(f"{item}: no such image or folder")
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def distinct_stems(paths: Sequence[Union[str, Path]]) -> list[str]:
    """A file name for each, without suffix; where several are one, all but the first get a number: cat, cat_2, cat_3.

    Args:
        paths: of image files, or what else images are called ("test.npz: image 7" becomes "test.npz_image_7").
    """
    wanted = [_stem(Path(path)) for path in paths]
    taken = {stem.casefold() for stem in wanted}
    used: set[str] = set()
    numbers: dict[str, int] = {}
    stems = []
    for stem in wanted:
        key, chosen = stem.casefold(), stem
        if key in used:
            number = numbers.get(key, 2)
            while f"{key}_{number}" in taken or f"{key}_{number}" in used:
                number += 1
            numbers[key] = number + 1
            chosen = f"{stem}_{number}"
        used.add(chosen.casefold())
        stems.append(chosen)
    return stems


def _stem(path: Path) -> str:
    name = path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name
    return re.sub(r"[:\s]+", "_", name) if ": " in name else name


def read_checked(path: Union[str, Path], image_format: str) -> np.ndarray:
    """Reads an image file, turned upright, as uint8 [H, W, 3].

    Args:
        path: of the file.
        image_format: channel order, "RGB" or "BGR".

    Raises:
        InputError: the file is missing or is no image that can be read to its end.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such image")
    try:
        return read_image(str(path), image_format)
    except Exception as error:  # decoders raise whatever they like
        raise InputError(f"{path}: the image cannot be read: {one_line(error)}") from error
