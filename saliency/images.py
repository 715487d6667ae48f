"""Image files of saliency data sets: reading, and the grey bars that CAT2000 pads its images with."""

from pathlib import Path
from typing import Any, Union

import cv2
import numpy as np

from sact_det.errors import InputError

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")

PADDING_VALUE = 126  # CAT2000 pads to 1920x1080 with this grey
_PADDING_TOLERANCE = 3  # grey levels that JPEG may be off


def read_image(path: Union[str, Path], color: bool = True) -> np.ndarray:
    """Reads an image as it is stored; a rotation noted in its EXIF data is ignored (in CAT2000 one is wrong).

    Args:
        path: of the file.
        color: RGB, uint8 [H, W, 3]; otherwise grey, uint8 [H, W].

    Raises:
        InputError: the file is missing, is no image, or is cut short.
    """
    pixels = _decoded(Path(path), cv2.IMREAD_COLOR if color else cv2.IMREAD_GRAYSCALE)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if color else pixels


def read_grey_levels(path: Union[str, Path]) -> np.ndarray:
    """Reads an image as grey levels at the depth it is stored with: uint8, uint16 or float32 [H, W]; as `read_image`.

    Raises:
        InputError: also if a level is not finite.
    """
    levels = _decoded(Path(path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    if levels.dtype.kind == "f" and not np.isfinite(levels).all():
        raise InputError(f"{path}: a map must be finite; it holds NaN or infinity")
    return levels


def _decoded(path: Path, mode: int) -> np.ndarray:
    try:
        encoded = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such image") from error
    except OSError as error:
        raise InputError(f"{path}: the image cannot be read: {error.strerror}") from error
    pixels = None
    if encoded and not _cut_short(encoded):
        try:
            pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), mode | cv2.IMREAD_IGNORE_ORIENTATION)
        except cv2.error:
            pixels = None
    if pixels is None:
        raise InputError(f"{path}: not an image that can be read to its end")
    return pixels


def _cut_short(encoded: bytes) -> bool:
    """Whether a JPEG lacks its end, which the decoder would make up in grey. A thumbnail's end comes early."""
    return encoded.startswith(b"\xff\xd8") and encoded.rfind(b"\xff\xd9") < len(encoded) // 2


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
