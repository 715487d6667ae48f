"""Photographs and maps as text that a page can hold: WebP and whole numbers of deflate, both in base64.

Shape shorthand in this module:
    H, W: size of an image in pixels; h, w: size of a map.
"""

import base64
import io
import zlib
from typing import NamedTuple, Sequence

import cv2
import numpy as np
from PIL import Image

STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # of stored values, in units of ponder cost

_MOST = 2**16 - 1
_LONGEST = 640  # pixels of a photograph's longer side
_QUALITY = (80, 70, 60, 50, 40)  # of WebP


class PackedMap(NamedTuple):
    """A map for the page: `values` is base64 of zlib of uint16 [h, w], low bytes first and then the high ones.

    What is stored times `step` is the value, to half a step.
    """

    height: int
    width: int
    step: float
    values: str


def pack_map(values: np.ndarray, step: float) -> PackedMap:
    """A map, float [h, w], from 0 to 65535 steps.

    Raises:
        ValueError: a value lies beyond.
    """
    counts = np.rint(np.asarray(values, np.float64) / step)
    if counts.ndim != 2 or not (counts >= 0).all() or not (counts <= _MOST).all():
        raise ValueError(f"`values` must be [h, w], from 0 to {_MOST * step:g}; got {values.shape}")
    whole = counts.astype("<u2")
    planes = (whole & 255).astype(np.uint8).tobytes() + (whole >> 8).astype(np.uint8).tobytes()
    height, width = whole.shape
    return PackedMap(height, width, step, base64.b64encode(zlib.compress(planes, 9)).decode())


def unpack_map(packed: PackedMap) -> np.ndarray:
    """What the page makes of it: float64 [h, w]."""
    planes = np.frombuffer(zlib.decompress(base64.b64decode(packed.values)), np.uint8).reshape(2, -1).astype(np.uint16)
    return ((planes[0] | planes[1] << 8) * packed.step).reshape(packed.height, packed.width)


def pack_maps(maps: Sequence[np.ndarray], characters: float) -> list[PackedMap]:
    """Maps with the finest step of STEPS at which all of them together take so many characters, or with the coarsest.

    Args:
        maps: float [h, w], of any sizes, 0 or above.
        characters: that there is room for.
    """
    most = max((float(one.max()) for one in maps), default=0.0)
    usable = [step for step in STEPS if most <= _MOST * step] or [most / _MOST]
    for step in usable:
        packed = [pack_map(one, step) for one in maps]
        if sum(len(one.values) for one in packed) <= characters:
            break
    return packed


def pack_photograph(image: np.ndarray, characters: float) -> str:
    """The address (data:) of a photograph, at most 640 pixels long and in so many characters if quality 40 gives them.

    Args:
        image: uint8 RGB [H, W, 3].
        characters: that there is room for.
    """
    scale = min(1.0, _LONGEST / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA) if scale < 1 else image
    for quality in _QUALITY:
        file = io.BytesIO()
        Image.fromarray(small).save(file, "webp", quality=quality, method=4)
        text = base64.b64encode(file.getvalue()).decode()
        if len(text) <= characters:
            break
    return f"data:image/webp;base64,{text}"
