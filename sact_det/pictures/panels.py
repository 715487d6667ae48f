"""Pictures of where a network spent its computation: ponder maps beside images and detections, and contact sheets.

Colours follow the original program: viridis, between a map's own minimum and maximum or, over a set of maps, between
the 0.1 and 99.9 percentiles of all their values. Cells of a map are never blurred.

Shape shorthand in this module:
    H, W: size of an image in pixels; h, w: size of a block's feature map. Images are uint8 RGB [H, W, 3].
"""

import math
from dataclasses import dataclass
from typing import Iterator, Mapping, Optional, Sequence

import cv2
import matplotlib
import numpy as np

from sact_det.pictures.canvas import COLORMAP, Canvas, Limits, printable, shortened, text_width
from sact_det.pictures.scales import SharedLimits, widened
from sact_det.rule.ponder import legacy_nearest_index

UNITS_LABEL = "ponder cost (units + remainder)"

_READABLE_SIDE = 400  # pixels: the longer side of an image beside which the labels look right
_BAR_HEIGHT = 220  # pixels, at least: UNITS_LABEL fits beside it in the smallest font
_FONT = (12, 36)  # pixels, smallest and largest


def sorted_name(mean_cost: float, stem: str) -> str:
    """ "20.92_stem": the mean ponder cost first, zero-padded so that names sort by it (up to 99.99)."""
    return f"{mean_cost:05.2f}_{stem}"


def display_scale(height: int, width: int) -> int:
    """The whole number by which a small image is enlarged so that boxes and labels can be read; 1 for most."""
    return math.ceil(_READABLE_SIDE / max(height, width, 1))


def map_limits(ponder_map: np.ndarray) -> Limits:
    """(minimum, maximum) of a map, or value -+ 0.5 around a constant one."""
    return widened(float(ponder_map.min()), float(ponder_map.max()))


def colorize(ponder_map: np.ndarray, limits: Optional[Limits] = None) -> np.ndarray:
    """Ponder map [H, W] -> image, viridis from limits[0] to limits[1] (default: the map's own); beyond them it clips.

    Raises:
        ValueError: the map is not two-dimensional, empty or not finite, or the limits are not (low, high).
    """
    ponder_map = np.asarray(ponder_map, dtype=np.float64)
    if ponder_map.ndim != 2 or ponder_map.size == 0 or not np.isfinite(ponder_map).all():
        raise ValueError(f"`ponder_map` must be [H, W] and finite; got shape {ponder_map.shape}")
    low, high = map_limits(ponder_map) if limits is None else limits
    if not low < high:
        raise ValueError(f"`limits` must be (low, high) with low < high; got {limits}")
    return matplotlib.colormaps[COLORMAP](np.clip((ponder_map - low) / (high - low), 0, 1), bytes=True)[..., :3]


def blend(
    image: np.ndarray, ponder_map: np.ndarray, limits: Optional[Limits] = None, opacity: float = 0.6
) -> np.ndarray:
    """The colours of a ponder map [H, W] over the image in grey, so that every colour still means a cost.

    Args:
        opacity: of the map, from 0 (only the image) to 1.
    """
    _check_image("image", image, ponder_map)
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)[..., None]
    return np.rint(opacity * colorize(ponder_map, limits) + (1 - opacity) * grey).astype(np.uint8)


def draw_ponder_map(
    ponder_map: np.ndarray,
    image: Optional[np.ndarray] = None,
    limits: Optional[Limits] = None,
    label: str = UNITS_LABEL,
) -> np.ndarray:
    """A ponder map with a colour bar; the image to its left if there is one.

    Every value keeps its pixel, or a k x k square of pixels where the image is small (`display_scale`).

    Args:
        ponder_map: float [H, W].
        image: of the same size.
        limits: costs of the darkest and the brightest colour; default: the map's own minimum and maximum.
        label: of the colour bar.

    Returns:
        uint8 RGB, larger than [H, W].

    Raises:
        ValueError: what does not fit together, by name.
    """
    ponder_map = np.asarray(ponder_map)
    limits = limits or map_limits(ponder_map)
    row = [_Tile(colorize(ponder_map, limits), limits=limits, label=label)]
    if image is not None:
        _check_image("image", image, ponder_map)
        row.insert(0, _Tile(image))
    return _draw_rows([_readable(row)])


def draw_panel(
    image: np.ndarray,
    ponder_map: np.ndarray,
    *,
    image_title: str = "detections",
    mean_cost: Optional[float] = None,
    limits: Optional[Limits] = None,
    block_maps: Optional[Mapping[str, np.ndarray]] = None,
    overlay: Optional[np.ndarray] = None,
) -> np.ndarray:
    """An image at the left, its ponder map with a colour bar at the right, pixel for pixel.

    Args:
        image: with whatever was found in it drawn on it.
        ponder_map: float [H, W], of the same size.
        image_title: above the image.
        mean_cost: shown in the title of the map.
        limits: costs of the darkest and the brightest colour; default: the map's own minimum and maximum.
        block_maps: title -> rho of one block, float [h, w] of any size; a row below, each with its own colour scale,
            together as wide as the row above. They are resized once, by the original's nearest-neighbour rule.
        overlay: the image without boxes; adds the map blended on it, between the two.

    Returns:
        uint8 RGB.

    Raises:
        ValueError: what does not fit together, by name.
    """
    ponder_map = np.asarray(ponder_map)
    limits = limits or map_limits(ponder_map)
    _check_image("image", image, ponder_map)
    title = "ponder map" if mean_cost is None else f"ponder map, mean {mean_cost:.2f}"
    row = [
        _Tile(image, printable(image_title)),
        _Tile(colorize(ponder_map, limits), title, limits, UNITS_LABEL),
    ]
    if overlay is not None:
        row.insert(1, _Tile(blend(overlay, ponder_map, limits), "ponder map on the image"))
    rows = [_readable(row)]
    if block_maps:
        rows.append(_block_row(block_maps, rows[0]))
    return _draw_rows(rows)


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
        self._entries: list[_Entry] = []
        self._values = SharedLimits()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, name: str, image: np.ndarray, ponder_map: np.ndarray, mean_cost: float) -> None:
        """Takes one image and its ponder map, float [H, W], non-negative. Raises ValueError if they differ in size."""
        _check_image("image", image, ponder_map)
        self._values.add(ponder_map)
        scale = self._thumbnail / max(ponder_map.shape)
        height, width = (max(1, round(side * scale)) for side in ponder_map.shape)
        shrinks = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
        picture = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=shrinks)
        small_map = resize_nearest(ponder_map, (height, width)).astype(np.float32)
        self._entries.append(_Entry(float(mean_cost), printable(name), picture, small_map))

    def limits(self) -> Limits:
        """The 0.1 and 99.9 percentiles of all values of all maps in full size, to 0.001 units.

        Raises:
            ValueError: nothing was added.
        """
        return self._values.limits()

    @property
    def number_of_pages(self) -> int:
        """0 for an empty sheet."""
        return math.ceil(len(self) / self._per_page)

    def pages(self) -> Iterator[np.ndarray]:
        """Draws the pages, uint8 RGB each, cheapest image first."""
        entries = sorted(self._entries, key=lambda entry: (entry.mean_cost, entry.name))
        for page in range(self.number_of_pages):
            shown = entries[page * self._per_page : (page + 1) * self._per_page]
            yield self._page(shown, f", page {page + 1} of {self.number_of_pages}" if self.number_of_pages > 1 else "")

    def _page(self, entries: Sequence["_Entry"], which: str) -> np.ndarray:
        size, limits, side = _FONT[0], self.limits(), self._thumbnail
        heading, gap, caption = round(1.3 * size), 2 * size, 2 * size
        title = f"{len(self)} image{'s' * (len(self) > 1)} by mean ponder cost{which}"
        columns = min(self._columns, len(entries))
        rows = [entries[start : start + columns] for start in range(0, len(entries), columns)]
        heights = [max(len(entry.image) for entry in row) for row in rows]
        column_width = 2 * side + gap // 2
        top = gap + heading + size
        bar_height = min(max(sum(heights) + (len(rows) - 1) * (caption + size), _BAR_HEIGHT), 2 * _BAR_HEIGHT)
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


def resize_nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[h, w] -> [H, W] for `size` = (H, W), by the original's nearest-neighbour rule."""
    rows, columns = (legacy_nearest_index(n_in, n_out) for n_in, n_out in zip(values.shape, size))
    return np.asarray(values)[rows][:, columns]


@dataclass(frozen=True)
class _Entry:
    """One image of a contact sheet, as thumbnails of one size."""

    mean_cost: float
    name: str
    image: np.ndarray
    ponder_map: np.ndarray


@dataclass(frozen=True)
class _Tile:
    """A picture with what surrounds it: a title above, and a colour bar at its right if it has limits."""

    pixels: np.ndarray
    title: str = ""
    limits: Optional[Limits] = None
    label: str = ""

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[0], self.pixels.shape[1]


def _check_image(name: str, image: np.ndarray, ponder_map: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.shape != (*np.shape(ponder_map), 3):
        expected = "x".join(map(str, np.shape(ponder_map)))
        raise ValueError(f"`{name}` must be uint8 RGB of the map's size, {expected}; got {image.dtype} {image.shape}")


def _readable(row: Sequence[_Tile]) -> list[_Tile]:
    scale = display_scale(*row[0].size)
    return [_Tile(tile.pixels.repeat(scale, 0).repeat(scale, 1), tile.title, tile.limits, tile.label) for tile in row]


class _RowLayout:
    """Where the parts of a row of equally high tiles lie, in pixels from its left and top edge."""

    def __init__(self, row: Sequence[_Tile]):
        height = max(tile.size[0] for tile in row)
        width = max(tile.size[1] for tile in row)
        self.font = min(max(round(math.sqrt(height * width) / 33), _FONT[0]), _FONT[1])
        self.gap = self.font
        self.title_height = 2 * self.font if any(tile.title for tile in row) else 0
        self.body = max([height] + [_BAR_HEIGHT for tile in row if tile.label])
        self.height = self.title_height + self.body
        self.columns = [max(tile.size[1], text_width(tile.title, self.font)) for tile in row]
        self.bars = [
            self.gap // 2 + Canvas.colorbar_width(tile.limits, self.body, self.font, tile.label) if tile.limits else 0
            for tile in row
        ]
        self.width = sum(self.columns) + sum(self.bars) + self.gap * (len(row) - 1)


def _block_row(block_maps: Mapping[str, np.ndarray], above: Sequence[_Tile]) -> list[_Tile]:
    """Tiles of the blocks' maps, of the aspect of the tiles above and so large that both rows are equally wide."""

    def row(scale: float) -> list[_Tile]:
        size = max(1, round(above[0].size[0] * scale)), max(1, round(above[0].size[1] * scale))
        return [
            _Tile(colorize(resize_nearest(rho, size), limits), title, limits)
            for title, rho in block_maps.items()
            for limits in [map_limits(rho)]
        ]

    # What surrounds the tiles depends on their size a little: two steps settle it.
    available = _RowLayout(above).width
    scale = len(above) / len(block_maps)
    for _ in range(2):
        layout = _RowLayout(row(scale))
        frame = layout.width - sum(layout.columns)
        scale = max(available - frame, 1) / (len(block_maps) * above[0].size[1])
    return row(scale)


def _draw_rows(rows: Sequence[Sequence[_Tile]]) -> np.ndarray:
    layouts = [_RowLayout(row) for row in rows]
    margin = layouts[0].font
    width = max(layout.width for layout in layouts) + 2 * margin
    page = Canvas(width, sum(layout.height + margin for layout in layouts) + margin)
    y = margin
    for row, layout in zip(rows, layouts):
        x, body_y = margin, y + layout.title_height
        for tile, column, bar in zip(row, layout.columns, layout.bars):
            height, width = tile.size
            page.text(x + column / 2, y + layout.title_height / 2, tile.title, layout.font, "center")
            page.image(x + (column - width) // 2, body_y + (layout.body - height) // 2, tile.pixels)
            x += column
            if tile.limits:
                page.colorbar(x + layout.gap // 2, body_y, layout.body, tile.limits, layout.font, tile.label)
            x += bar + layout.gap
        y += layout.height + margin
    return page.pixels()
