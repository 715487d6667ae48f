"""Frames of a film: pictures beside each other over one colour bar that stays, with a line of words in a corner."""

from functools import lru_cache
from typing import Sequence

import cv2
import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from sact_det.pictures.canvas import Canvas, shortened, text_width
from sact_det.pictures.panels import BAR_HEIGHT, UNITS_LABEL, display_scale
from sact_det.pictures.style import ON_SCREEN, Limits, Style

_LONGEST = 1280  # pixels of a picture's side: two of them and the bar are less than what players decode in hardware
_INK = (34, 34, 34)
_FONT = (13, 28)  # pixels, smallest and largest


def shown_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) at which an image of (height, width) is shown: a small one is enlarged, a large one reduced."""
    scale = display_scale(*size) * min(_LONGEST / (display_scale(*size) * max(size)), 1)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(findfont("DejaVu Sans"), size)


class FramePage:
    """What stays from frame to frame, drawn once: a white page with a colour bar.

    Args:
        size: (height, width) of each of the pictures.
        count: of pictures in the row.
        limits: of the colour bar.
        longest: words that the line at the bottom must have room for.
        style: whose colour map the bar has.
    """

    def __init__(self, size: tuple[int, int], count: int, limits: Limits, longest: str = "", style: Style = ON_SCREEN):
        self.size = size
        self._font = min(max(round((size[0] * size[1]) ** 0.5 / 33), _FONT[0]), _FONT[1])
        self._line = 2 * self._font
        gap, bar_height = self._font, max(size[0], BAR_HEIGHT)
        self._lefts = [gap + number * (size[1] + gap) for number in range(count)]
        right = self._lefts[-1] + size[1] + gap // 2
        width = right + Canvas.colorbar_width(limits, bar_height, self._font, UNITS_LABEL) + gap
        self._row = bar_height
        canvas = Canvas(max(width, text_width(longest, self._font) + 2 * gap), 2 * self._line + bar_height, style)
        canvas.colorbar(right, self._line, bar_height, limits, self._font, UNITS_LABEL)
        self._empty = canvas.pixels()

    def draw(self, pictures: Sequence[np.ndarray], titles: Sequence[str], words: str) -> np.ndarray:
        """A frame, uint8 RGB.

        Args:
            pictures: uint8 RGB; those of another size are resized.
            titles: above each.
            words: at the bottom, left.
        """
        page = self._empty.copy()
        height, width = self.size
        for left, pixels in zip(self._lefts, pictures):
            page[self._line : self._line + height, left : left + width] = fitted(pixels, self.size)
        image = Image.fromarray(page)
        brush, font = ImageDraw.Draw(image), _font(self._font)
        for left, title in zip(self._lefts, titles):
            text = shortened(title, self._font, width)
            brush.text((left + width / 2, self._line / 2), text, _INK, font, anchor="mm")
        brush.text((self._lefts[0], 1.5 * self._line + self._row), words, _INK, font, anchor="lm")
        return np.asarray(image)


def fitted(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 RGB at a size of (height, width)."""
    if pixels.shape[:2] == size:
        return pixels
    way = cv2.INTER_AREA if pixels.shape[0] > size[0] else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(pixels), size[::-1], interpolation=way)
