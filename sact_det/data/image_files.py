"""Image files: which files of a folder are images, what they are called, and reading them."""

import contextlib
import glob
import re
from pathlib import Path
from typing import Iterator, Sequence, Union

import numpy as np

from sact_det.base.errors import InputError, one_line
from sact_det.base.files import read_bytes
from sact_det.base.text_files import read_text
from sact_det.data.decoding import decode_rgb

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def is_visible(name: str) -> bool:
    """False for hidden files: macOS puts a `._photo.jpg`, which is no image, beside every file on drives of others.

    Args:
        name: of a file in a folder or an archive, with or without its folders.
    """
    return not name.rpartition("/")[2].startswith(".")


def is_image_name(name: str) -> bool:
    """Whether a file found in a folder or an archive is taken for an image: it is visible and has such a suffix."""
    return is_visible(name) and name.lower().endswith(IMAGE_SUFFIXES)


def find_images(inputs: Sequence[str]) -> list[Path]:
    """The files that images, folders (not their subfolders) and globs name, each once. Raises InputError."""
    found: dict[Path, Path] = {}
    for item in inputs:
        path = Path(item)
        if path.is_dir():
            files = sorted(child for child in path.iterdir() if is_image_name(child.name) and not child.is_dir())
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


def listed_images(list_file: Union[str, Path]) -> list[Path]:
    """The images that a text file names, one a line, relative to its folder, each once; they need not be there.

    Raises:
        InputError: the file cannot be read, or names nothing.
    """
    lines = (line.strip() for line in read_text(list_file, missing="no such list of images").splitlines())
    found = list(dict.fromkeys(Path(list_file).parent / line for line in lines if line))
    if not found:
        raise InputError(f"{list_file}: names no image; expected one a line")
    return found


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


def read_encoded(path: Union[str, Path]) -> bytes:
    """The content of an image file. Raises InputError: there is no such file, or it cannot be read."""
    return read_bytes(path, "image file", missing="no such image")


@contextlib.contextmanager
def naming_image(name: Union[str, Path], what: str = "read") -> Iterator[None]:
    """Whatever goes wrong with an image becomes an InputError: "{name}: the image cannot be {what}: ..."."""
    try:
        yield
    except Exception as error:  # decoders raise whatever they like
        if isinstance(error, InputError) and str(error).startswith(f"{name}: "):
            raise
        raise InputError(f"{name}: the image cannot be {what}: {one_line(error)}") from error


def read_checked(path: Union[str, Path], image_format: str = "RGB", upright: bool = True) -> np.ndarray:
    """Reads an image file by the rule of decoding.py, as uint8 [H, W, 3].

    Args:
        path: of the file.
        image_format: channel order, "RGB" or "BGR".
        upright: False leaves out the orientation in its EXIF data.

    Raises:
        InputError: the file is missing, is no image that can be read to its end, or has no known range of brightness.
    """
    encoded = read_encoded(path)
    with naming_image(path):
        pixels = decode_rgb(encoded, upright)
    return pixels[..., ::-1] if image_format == "BGR" else pixels
