"""Boxes and their labels, drawn so that they are seen on any ground and no label covers another.

Shape shorthand in this module:
    H, W: size of an image in pixels. Images are uint8 RGB [H, W, 3].
"""

import functools
import math
from pathlib import Path
from typing import Iterator, NamedTuple, Optional, Sequence

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]
_Place = tuple[int, int, int, int]  # x0, y0, x1, y1

_LEAST_FONT = 13  # pixels
_STEPS = 12  # places along an edge where a label may stand


class Mark(NamedTuple):
    """A box, (x0, y0, x1, y1) in pixels of an image, in a colour, RGB from 0 to 255, with what is written at it."""

    box: tuple[float, float, float, float]
    color: Color
    label: str = ""

    def scaled(self, across: float, down: float) -> "Mark":
        """The same in an image so many times as wide and as high."""
        x0, y0, x1, y1 = self.box
        return self._replace(box=(across * x0, down * y0, across * x1, down * y1))


def draw_marks(image: np.ndarray, marks: Sequence[Mark], font: Optional[int] = None, density: float = 1) -> np.ndarray:
    """The image with boxes between dark edges, and labels on the boxes' colours.

    A label stands at its box where it covers no other; where there is no such place, it is left out.

    Args:
        image: is not changed.
        marks: the most important first.
        font: size of the labels in pixels of a page; None: what suits the image. 0: no labels.
        density: pixels of the image per pixel of a page; lines and labels grow with it.

    Returns:
        uint8 RGB [H, W, 3].
    """
    drawn = np.ascontiguousarray(image).copy()
    side = math.sqrt(image.shape[0] * image.shape[1])
    line = max(round(2 * density), round(side / 200))
    edge = max(1, round(line / 3))
    for mark in reversed(marks):
        x0, y0, x1, y1 = (round(value) for value in mark.box)
        for color, thickness in (((0, 0, 0), line + 2 * edge), (mark.color, line)):
            cv2.rectangle(drawn, (x0, y0), (x1, y1), color, thickness)
    if font == 0:
        return drawn
    size = round(font * density) if font else max(round(_LEAST_FONT * density), round(side / 38))
    return _with_labels(drawn, marks, size, line // 2 + edge)


def _with_labels(image: np.ndarray, marks: Sequence[Mark], size: int, away: int) -> np.ndarray:
    letters, pad = _font(size), max(1, size // 5)
    ascent, descent = letters.getmetrics()
    height = ascent + descent + pad
    taken: list[_Place] = []
    page = Image.fromarray(image)
    pen = ImageDraw.Draw(page)
    for mark in marks:
        width = math.ceil(letters.getlength(mark.label)) + 2 * pad if mark.label else 0
        place = _free_place(mark.box, (height, width), image.shape[:2], away, taken) if width else None
        if place is None:
            continue
        taken.append(place)
        x0, y0, x1, y1 = place
        pen.rectangle((x0, y0, x1 - 1, y1 - 1), fill=mark.color)
        dark = 0.299 * mark.color[0] + 0.587 * mark.color[1] + 0.114 * mark.color[2] < 140
        pen.text((x0 + pad, y0 + pad // 2), mark.label, fill=(255,) * 3 if dark else (0,) * 3, font=letters)
    return np.asarray(page)


def _free_place(
    box: Sequence[float], size: tuple[int, int], within: Sequence[int], away: int, taken: Sequence[_Place]
) -> Optional[_Place]:
    """Where a label of `size` covers none of `taken`, inside an image; None if it does everywhere."""
    height, width = size
    for x, y in _places(box, size, away, within[0]):
        left, top = (min(max(round(at), 0), most) for at, most in ((x, within[1] - width), (y, within[0] - height)))
        place = (left, top, left + width, top + height)
        if left >= 0 and top >= 0 and not any(_overlap(place, other) for other in taken):
            return place
    return None


def _places(box: Sequence[float], size: tuple[int, int], away: int, bottom: int) -> Iterator[tuple[float, float]]:
    """Left upper corners for a label, the best first: above, below, inside at the corners, along the edges."""
    (x0, y0, x1, y1), (height, width) = box, size
    left, right, above, below = x0 - away, x1 + away - width, y0 - away - height, y1 + away + 1
    if above >= 0:
        yield from ((left, above), (right, above))
    inner_left, inner_right, inner_top, inner_bottom = x0 + away, x1 - away - width, y0 + away, y1 - away - height
    if below + height <= bottom:
        yield from ((left, below), (right, below))
    yield from ((inner_left, inner_top), (inner_right, inner_top), (inner_left, inner_bottom))
    yield from ((inner_right, inner_bottom), (x1 + away, y0), (x0 - away - width, y0))
    for step in range(1, _STEPS):
        share = step / _STEPS
        x, y = left + share * (right - left), inner_top + share * (inner_bottom - inner_top)
        yield from ((x, above), (x, below), (inner_left, y), (inner_right, y), (x1 + away, y), (x0 - away - width, y))


def _overlap(one: _Place, other: _Place) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@functools.lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans-Bold.ttf")), size)
