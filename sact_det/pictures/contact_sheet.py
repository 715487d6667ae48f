"""A contact sheet: many images and their ponder maps as thumbnails, under one colour scale."""

import math
from dataclasses import dataclass
from typing import Iterator, Sequence

import cv2
import numpy as np

from sact_det.pictures.canvas import Canvas, Limits, printable, shortened
from sact_det.pictures.colors import check_image, colorize, resize_nearest
from sact_det.pictures.panels import BAR_HEIGHT, FONT, UNITS_LABEL
from sact_det.pictures.scales import SharedLimits


@dataclass(frozen=True)
class _Thumbnail:
    """One image of a contact sheet, as thumbnails of one size."""

    mean_cost: float
    name: str
    image: np.ndarray
    ponder_map: np.ndarray


class ContactSheet:
    """Images and their ponder maps as thumbnails, sorted by mean ponder cost, under one colour scale for all.

    What is kept of an image is two thumbnails and its share of a histogram, so hundreds of large images fit.

    Args:
        thumbnail: longer side of an image on the sheet, in pixels.
        columns: images (each with its map) beside each other.
        per_page: images on one page.
    """

    def __init__(self, thumbnail: int = 176, columns: int = 4, per_page: int = 48):
        self._thumbnail, self._columns, self._per_page = thumbnail, columns, per_page
        self._entries: list[_Thumbnail] = []
        self._values = SharedLimits()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, name: str, image: np.ndarray, ponder_map: np.ndarray, mean_cost: float) -> None:
        """Takes one image and its ponder map, float [H, W], non-negative. Raises ValueError if they differ in size."""
        check_image("image", image, ponder_map)
        self._values.add(ponder_map)
        scale = self._thumbnail / max(ponder_map.shape)
        height, width = (max(1, round(side * scale)) for side in ponder_map.shape)
        shrinks = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
        picture = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=shrinks)
        small_map = resize_nearest(ponder_map, (height, width)).astype(np.float32)
        self._entries.append(_Thumbnail(float(mean_cost), printable(name), picture, small_map))

    def limits(self) -> Limits:
        """Those of all maps in full size, as `SharedLimits.limits` has them. Raises ValueError if nothing was added."""
        return self._values.limits()

    @property
    def number_of_pages(self) -> int:
        """How many pages there are; 0 of an empty sheet."""
        return math.ceil(len(self) / self._per_page)

    def pages(self) -> Iterator[np.ndarray]:
        """Draws the pages, uint8 RGB each, cheapest image first."""
        entries = sorted(self._entries, key=lambda entry: (entry.mean_cost, entry.name))
        for page in range(self.number_of_pages):
            shown = entries[page * self._per_page : (page + 1) * self._per_page]
            yield self._page(shown, f", page {page + 1} of {self.number_of_pages}" if self.number_of_pages > 1 else "")

    def _page(self, entries: Sequence[_Thumbnail], which: str) -> np.ndarray:
        size, limits, side = FONT[0], self.limits(), self._thumbnail
        heading, gap, caption = round(1.3 * size), 2 * size, 2 * size
        title = f"{len(self)} image{'s' * (len(self) > 1)} by mean ponder cost{which}"
        columns = min(self._columns, len(entries))
        rows = [entries[start : start + columns] for start in range(0, len(entries), columns)]
        heights = [max(len(entry.image) for entry in row) for row in rows]
        column_width = 2 * side + gap // 2
        top = gap + heading + size
        bar_height = min(max(sum(heights) + (len(rows) - 1) * (caption + size), BAR_HEIGHT), 2 * BAR_HEIGHT)
        bar_x = gap + columns * (column_width + gap)
        page = Canvas(
            width=bar_x + Canvas.colorbar_width(limits, bar_height, size, UNITS_LABEL) + gap // 2,
            height=top + max(sum(height + caption + size for height in heights), bar_height + size) + size // 2,
        )
        page.text(gap, gap + heading / 2, shortened(title, heading, page.width - 2 * gap), heading)
        page.colorbar(bar_x, top, bar_height, limits, size, UNITS_LABEL)
        y = top
        for row, height in zip(rows, heights):
            for column, entry in enumerate(row):
                x = gap + column * (column_width + gap)
                thumb_height, thumb_width = entry.ponder_map.shape
                middle = x + column_width // 2
                pictures_y = y + height - thumb_height
                page.image(middle - gap // 4 - thumb_width, pictures_y, entry.image)
                page.image(middle + gap // 4, pictures_y, colorize(entry.ponder_map, limits))
                text = shortened(f"{entry.mean_cost:.2f}   {entry.name}", size, column_width)
                page.text(middle, y + height + caption / 2, text, size, "center")
            y += height + caption + size
        return page.pixels()
