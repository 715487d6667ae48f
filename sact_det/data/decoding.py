"""From the bytes of an image file to pixels: one rule for training, evaluation, exports, pictures and saliency.

* Pillow decodes; what it cannot decode to the end is refused. Of several images in a file the first counts.
* Grey levels, palettes, CMYK and the like become RGB. An alpha channel is left out: the colours count as stored.
* Samples of more than 8 bits are scaled by their range, [0, top], and rounded: 255 x / top. Of b bits without sign,
  top is 2^b - 1 (65535 becomes 255), of floats 1. A TIFF may state another (MaxSampleValue, SMaxSampleValue). PNG's
  sBIT changes nothing: by its specification samples fill 16 bits, whatever they had before.
* Refused: samples outside their range, NaN, and integers of 32 bits or with a sign whose range is not stated.
* Images are turned upright, as their EXIF data says.

Shape shorthand in this module:
    H, W: of the image.
"""

import contextlib
import io
from typing import Iterator, NamedTuple, Optional

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base
from PIL.Image import Transpose
from PIL.ImageFile import ImageFile

from sact_det.base.errors import InputError

_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_TURNED = (5, 6, 7, 8)  # of these, what exchanges the sides
_BITS, _MAX_SAMPLE, _S_MAX_SAMPLE = 258, 281, 341  # tags of TIFF
_LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")
_GREY_TOLERANCE = 16 / 255  # by which channels of a grey image may differ, as a share of the range: lossy compression


class Levels(NamedTuple):
    """What a map given as an image holds.

    Attributes:
        values: [H, W], as deep as stored: uint8, uint16, int32 or float32.
        lossy: whether compression may have altered them.
    """

    values: np.ndarray
    lossy: bool


def decode_rgb(encoded: bytes, upright: bool = True) -> np.ndarray:
    """The picture in an image file, uint8 RGB [H, W, 3].

    Args:
        encoded: the file.
        upright: False leaves out what EXIF data says. A TIFF's own orientation is part of its format, and applied.

    Raises:
        InputError: it is no image, or one that is refused by the rule above; the message does not name the file.
        Exception: whatever decoders raise where an image is damaged.
    """
    with _opened(encoded) as image:
        deep = _deep_samples(image, encoded)
        pixels = np.array(_as_rgb(image)) if deep is None else _colored(_eight_bits(deep, _top(image, deep)))
        method = _UPRIGHT.get(_orientation(image)) if upright else None
        return pixels if method is None else np.array(Image.fromarray(pixels).transpose(method))


def decode_size(encoded: bytes) -> tuple[int, int]:
    """(height, width) of what `decode_rgb` returns, from the head of the file: what follows may be damaged.

    Raises:
        InputError: it is no image.
    """
    with _opened(encoded) as image:
        width, height = image.size
        orientation = _noted_orientation(image)
        return (width, height) if orientation in _TURNED else (height, width)


def decode_levels(encoded: bytes) -> Levels:
    """The grey levels of a map that is stored as an image; EXIF data is not looked at.

    Raises:
        InputError: it is no image, it has colours or is partly transparent (where its levels lie cannot be known), or
            a level is not finite; the message does not name the file.
        Exception: as `decode_rgb`.
    """
    with _opened(encoded) as image:
        samples = _deep_samples(image, encoded)
        if samples is None:
            grey = image.mode in ("1", "L")
            samples = np.array(image.convert("L" if grey else "RGBA" if image.has_transparency_data else "RGB"))
        lossy = _is_lossy(image, encoded)
    values = samples if samples.ndim == 2 else _single_channel(samples)
    if not np.isfinite(values).all():
        raise InputError("a map must be finite; it holds NaN or infinity")
    return Levels(values, lossy)


@contextlib.contextmanager
def _opened(encoded: bytes) -> Iterator[ImageFile]:
    try:
        image = Image.open(io.BytesIO(encoded))
    except UnidentifiedImageError as error:  # its message names a buffer of ours
        raise InputError("cannot identify image file") from error
    with image:
        yield image


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "P" and image.has_transparency_data:
        image = image.convert("RGBA")  # Pillow warns of the direct way
    return image if image.mode == "RGB" else image.convert("RGB")


def _deep_samples(image: ImageFile, encoded: bytes) -> Optional[np.ndarray]:
    """Samples of more than 8 bits as stored, [H, W] or [H, W, C]; None if there are 8 bits or fewer."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return np.asarray(image)
    # Of colours Pillow keeps the upper 8 bits only.
    if image.mode in ("RGB", "RGBA") and any(";16" in _raw_mode(tile.args) for tile in image.tile):
        samples = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
        if samples is None or samples.dtype != np.uint16:
            raise InputError("colours of 16 bits that cannot be decoded")
        order = cv2.COLOR_BGR2RGB if samples.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        return cv2.cvtColor(samples, order)
    return None


def _raw_mode(arguments: object) -> str:
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _top(image: Image.Image, samples: np.ndarray) -> float:
    """The value of a sample of full brightness. Raises InputError if the file does not say."""
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    for tag in (_MAX_SAMPLE, _S_MAX_SAMPLE):
        if tag in tags:
            return float(np.max(tags[tag]))
    if samples.dtype.kind == "f":
        return 1.0
    if samples.dtype.itemsize == 2:
        return float(2 ** max(tags.get(_BITS, (16,))) - 1)
    if image.format == "PPM":  # which has no sign; Pillow scales its range to this one
        return 65535.0
    raise InputError("integers of 32 bits, or with a sign, whose range the file does not state")


def _eight_bits(samples: np.ndarray, top: float) -> np.ndarray:
    low, high = float(samples.min()), float(samples.max())
    if not 0 <= low <= high <= top:  # NaN neither
        raise InputError(f"samples from {low:g} to {high:g}; expected numbers from 0 to {top:g}")
    return np.rint(samples * 255.0 / top).astype(np.uint8)


def _colored(pixels: np.ndarray) -> np.ndarray:
    """Grey levels [H, W], or RGB or RGBA [H, W, C], as RGB [H, W, 3]."""
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., :3])


def _orientation(image: Image.Image) -> int:
    image.load()  # which turns a TIFF upright
    return _noted_orientation(image)


def _noted_orientation(image: Image.Image) -> int:
    """The EXIF orientation to apply; 1 for a TIFF, which Pillow turns by itself, and whose size it says as turned."""
    if image.format == "TIFF":
        return 1
    try:
        return image.getexif().get(Base.Orientation, 1)
    except Exception:  # damaged EXIF data is no reason to refuse an image
        return 1


def _is_lossy(image: Image.Image, encoded: bytes) -> bool:
    if image.format == "WEBP":
        return b"VP8L" not in encoded
    if image.format == "TIFF":
        return image.info.get("compression") in _LOSSY_TIFF
    return image.format not in ("PNG", "BMP", "GIF", "PPM", "TGA", "SGI", "PCX", "ICO")


def _single_channel(samples: np.ndarray) -> np.ndarray:
    """[H, W] of RGB or RGBA whose channels agree."""
    if samples.shape[2] == 4 and (samples[..., 3] != np.iinfo(samples.dtype).max).any():
        raise InputError("is partly transparent; expected grey levels without an alpha channel")
    colors = samples[..., :3]
    highest, lowest = colors.max(axis=2), colors.min(axis=2)
    if (highest - lowest).max() > _GREY_TOLERANCE * np.iinfo(samples.dtype).max:
        raise InputError("is in colours (a heat map?); expected grey levels")
    return highest
