"""A contact sheet: many images and their ponder maps as thumbnails, under one colour scale.

Shape shorthand in this module:
    H, W: size of an image in pixels. Images are uint8 RGB [H, W, 3].
"""

import math
from dataclasses import dataclass, replace
from typing import Iterator, NamedTuple, Optional, Sequence

import cv2
import numpy as np

from sact_det.pictures.boxes import Mark, draw_marks
from sact_det.pictures.canvas import Canvas, printable, shortened, text_width
from sact_det.pictures.colors import check_image, colorize
from sact_det.pictures.panels import BAR_HEIGHT, FONT, UNITS_LABEL
from sact_det.pictures.scales import SharedLimits
from sact_det.pictures.style import ON_SCREEN, Limits, Style, resize_nearest

_NAMED_FROM = 240  # pixels of a thumbnail's longer side, for labels at its boxes


class _Plan(NamedTuple):
    """How large images are drawn: columns of landscapes, their longer side, and the longest of any, in pixels."""

    columns: int
    side: int
    longest: int


# The most images that are drawn so.
_PLANS = {1: _Plan(1, 640, 640), 3: _Plan(1, 480, 640), 6: _Plan(2, 400, 820), 15: _Plan(3, 264, 420)}
_MANY = _Plan(4, 200, 300)


@dataclass(frozen=True)
class _Thumbnail:
    """One image of a contact sheet; boxes in its own pixels."""

    mean_cost: float
    name: str
    image: Optional[np.ndarray]
    ponder_map: np.ndarray
    marks: Sequence[Mark] = ()

    @property
    def aspect(self) -> float:
        """Width by height of what is drawn: the image and the map, or the map alone."""
        return (1 if self.image is None else 2) * self.ponder_map.shape[1] / self.ponder_map.shape[0]

    def at_most(self, longest: int) -> "_Thumbnail":
        """With a longer side of so many pixels, if it is longer."""
        scale = longest / max(self.ponder_map.shape)
        return self if scale >= 1 else self.resized(*(max(1, round(side * scale)) for side in self.ponder_map.shape))

    def resized(self, height: int, width: int) -> "_Thumbnail":
        """Of this size."""
        own_height, own_width = self.ponder_map.shape
        if (height, width) == (own_height, own_width):
            return self
        across, down = width / own_width, height / own_height
        image = self.image
        if image is not None:
            method = cv2.INTER_AREA if across < 1 else cv2.INTER_NEAREST
            image = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=method)
        marks = [mark.scaled(across, down) for mark in self.marks]
        small_map = resize_nearest(self.ponder_map, (height, width)).astype(np.float32)
        return replace(self, image=image, ponder_map=small_map, marks=marks)


class ContactSheet:
    """Images and their ponder maps as thumbnails, sorted by mean ponder cost, under one colour scale for all.

    Rows are filled from edge to edge, whatever the images' aspects. What is kept of an image is two thumbnails, the
    smaller the more images there are, and its share of a histogram, so hundreds of large images fit.

    Args:
        thumbnail: longer side of an image on the sheet, in pixels, at most; None: the fewer images, the larger.
        columns: images (each with its map) beside each other, about; None: as many as suit.
        per_page: images on one page.
        style: how it is drawn. Its `limits` come before those of the maps.
    """

    def __init__(
        self,
        thumbnail: Optional[int] = None,
        columns: Optional[int] = None,
        per_page: int = 48,
        style: Style = ON_SCREEN,
    ):
        self._thumbnail, self._columns, self._per_page, self._style = thumbnail, columns, per_page, style
        self._entries: list[_Thumbnail] = []
        self._values = SharedLimits()
        self._longest = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(
        self,
        name: str,
        image: Optional[np.ndarray],
        ponder_map: np.ndarray,
        mean_cost: float,
        marks: Sequence[Mark] = (),
    ) -> None:
        """Takes one image and its ponder map.

        Args:
            name: below them.
            image: None: the map is shown alone, under the boxes.
            ponder_map: float [H, W], non-negative.
            mean_cost: of the image.
            marks: boxes in it, the most important first.

        Raises:
            ValueError: image and map differ in size.
        """
        if image is not None:
            check_image("image", image, ponder_map)
        self._values.add(ponder_map)
        longest = math.ceil(self._style.density * self._plan(len(self) + 1).longest)
        if longest != self._longest:
            self._entries = [entry.at_most(longest) for entry in self._entries]
            self._longest = longest
        self._entries.append(
            _Thumbnail(float(mean_cost), printable(name), image, ponder_map, tuple(marks)).at_most(longest)
        )

    def limits(self) -> Limits:
        """The style's, or those of all maps in full size, as `SharedLimits.limits` has them.

        Raises:
            ValueError: nothing was added.
        """
        return self._style.limits or self._values.limits()

    @property
    def number_of_pages(self) -> int:
        """How many pages there are; 0 of an empty sheet."""
        return math.ceil(len(self) / self._per_page)

    def canvases(self) -> Iterator[Canvas]:
        """Draws the pages, cheapest image first."""
        entries = sorted(self._entries, key=lambda entry: (entry.mean_cost, entry.name))
        for page in range(self.number_of_pages):
            shown = entries[page * self._per_page : (page + 1) * self._per_page]
            yield self._page(shown, f", page {page + 1} of {self.number_of_pages}" if self.number_of_pages > 1 else "")

    def pages(self) -> Iterator[np.ndarray]:
        """The pages as uint8 RGB."""
        return (page.pixels() for page in self.canvases())

    def _plan(self, count: int) -> _Plan:
        suiting = next((plan for most, plan in _PLANS.items() if count <= most), _MANY)
        side = self._thumbnail or suiting.side
        longest = self._thumbnail or suiting.longest
        return _Plan(min(self._columns or (4 if self._thumbnail else suiting.columns), count), side, longest)

    def _page(self, entries: Sequence[_Thumbnail], which: str) -> Canvas:
        size, limits = self._style.font_pixels or FONT[0], self.limits()
        heading, gap, caption = round(1.3 * size), 2 * size, 2 * size
        flat = self._values.flat and self._style.limits is None
        title = f"{len(self)} image{'s' * (len(self) > 1)} by mean ponder cost{which}"
        rows = self._rows(entries, gap)
        content = max(row.width for row in rows)
        top, height = gap + heading + size, sum(row.height + caption + size for row in rows)
        bar_height = 0 if flat else max(height - caption - size, BAR_HEIGHT, text_width(UNITS_LABEL, size))
        bar = 0 if flat else gap // 2 + Canvas.colorbar_width(limits, bar_height, size, UNITS_LABEL)
        width = max(gap + content + bar + (gap if flat else gap // 2), 2 * gap + 16 * size)
        page = Canvas(width, top + max(height, bar_height + size) + size // 2, self._style)
        page.text(gap, gap + heading / 2, shortened(title, heading, page.width - 2 * gap), heading)
        if not flat:
            page.colorbar(gap + content + gap // 2, top, bar_height, limits, size, UNITS_LABEL)
        y = top
        for row in rows:
            x = gap
            for entry, columns in zip(row.entries, row.widths):
                self._draw(page, x, y, entry, (row.height, columns), limits)
                text = shortened(f"{entry.mean_cost:.2f}   {entry.name}", size, columns)
                page.text(x + columns / 2, y + row.height + caption / 2, text, size, "center")
                x += columns + gap
            y += row.height + caption + size
        return page

    def _draw(self, page: Canvas, x: int, y: int, entry: _Thumbnail, room: tuple[int, int], limits: Limits) -> None:
        """Draws an image and its map, or the map alone, at (x, y) in (height, width) pixels."""
        height, width = room
        if entry.image is not None:
            width = (width - _BETWEEN) // 2
        density = self._style.density
        shown = entry.resized(round(density * height), round(density * width))
        colors = colorize(shown.ponder_map, limits, self._style.colormap)
        font = (self._style.font_pixels or FONT[0]) if max(height, width) >= _NAMED_FROM else 0
        marked = draw_marks(colors if shown.image is None else shown.image, shown.marks, font, density)
        page.image(x, y, marked, (height, width))
        if entry.image is not None:
            page.image(x + width + _BETWEEN, y, colors, (height, width))

    def _rows(self, entries: Sequence[_Thumbnail], gap: int) -> list["_Row"]:
        """The entries in rows about equally long, each as high as makes it fill the page's width."""
        plan = self._plan(len(self))
        pair = 1 if entries[0].image is None else 2
        columns = plan.columns * (1 if pair == 2 else 2)
        width = columns * (pair * plan.side + (pair - 1) * _BETWEEN) + (columns - 1) * gap
        aspects = np.array([entry.aspect for entry in entries])
        in_row = max(columns * pair * 4 / 3, aspects.max())  # a row of landscapes
        number = max(1, math.ceil(aspects.sum() / in_row - 0.25))
        middles = np.cumsum(aspects) - aspects / 2
        row_of = np.minimum((middles / aspects.sum() * number).astype(int), number - 1)
        rows = []
        for row in dict.fromkeys(row_of.tolist()):
            own = [entry for entry, of in zip(entries, row_of) if of == row]
            free = width - (len(own) - 1) * gap - len(own) * (pair - 1) * _BETWEEN
            longest = min(plan.longest * min(1.0, pair / entry.aspect) for entry in own)
            height = min(free / sum(entry.aspect for entry in own), longest)
            rows.append(_Row(own, max(1, round(height)), pair, gap))
        return rows


_BETWEEN = 8  # pixels between an image and its map


class _Row:
    """Entries beside each other at one height."""

    def __init__(self, entries: Sequence[_Thumbnail], height: int, pair: int, gap: int):
        self.entries, self.height = entries, height
        own = [max(1, round(height * entry.aspect / pair)) for entry in entries]
        self.widths = [pair * width + (pair - 1) * _BETWEEN for width in own]
        self.width = sum(self.widths) + (len(entries) - 1) * gap
