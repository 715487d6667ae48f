"""A panel: an image, perhaps with detections, beside its ponder map with a colour bar.

Shape shorthand in this module:
    H, W: size of an image in pixels; h, w: size of a block's feature map. Images are uint8 RGB [H, W, 3].
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Mapping, Optional, Sequence

import numpy as np

from sact_det.pictures.canvas import Canvas, printable, text_width
from sact_det.pictures.colors import blend, check_image, colorize
from sact_det.pictures.scales import is_flat, map_limits
from sact_det.pictures.style import ON_SCREEN, Limits, Style

UNITS_LABEL = "ponder cost (units + remainder)"

_READABLE_SIDE = 400  # pixels: the longer side of an image beside which the labels look right
BAR_HEIGHT = 220  # pixels, at least: UNITS_LABEL fits beside it in the smallest font
FONT = (12, 36)  # pixels, smallest and largest
_WIDEST_ROW = 2400  # pixels of the maps in a row, about


def display_scale(height: int, width: int) -> int:
    """The whole number by which a small image is enlarged so that boxes and labels can be read; 1 for most."""
    return math.ceil(_READABLE_SIDE / max(height, width, 1))


def panel(
    image: Optional[np.ndarray],
    ponder_map: np.ndarray,
    *,
    image_title: str = "detections",
    mean_cost: Optional[float] = None,
    limits: Optional[Limits] = None,
    block_maps: Optional[Mapping[str, np.ndarray]] = None,
    overlay: Optional[np.ndarray] = None,
    style: Style = ON_SCREEN,
) -> Canvas:
    """An image at the left, its ponder map with a colour bar at the right, pixel for pixel.

    Where the image is small, a pixel is a k x k square (`display_scale`). A map of one value has no colour bar: the
    title says the value.

    Args:
        image: with whatever was found in it drawn on it, uint8 RGB [D H, D W, 3] where D is the style's density; None:
            the map alone.
        ponder_map: float [H, W].
        image_title: above the image.
        mean_cost: shown in the title of the map.
        limits: costs of the darkest and the brightest colour; default: the map's own minimum and maximum. Those of the
            style come first.
        block_maps: title -> rho of one block, float [h, w] of any size; a row below, each with its own colour scale,
            together as wide as the row above. They are resized once, by the original's nearest-neighbour rule, or
            smoothly.
        overlay: the image without boxes, uint8 RGB [H, W, 3]; adds the map blended on it, between the two.
        style: how it is drawn.

    Returns:
        The page.

    Raises:
        ValueError: what does not fit together, by name.
    """
    ponder_map = np.asarray(ponder_map)
    limits = style.limits or limits
    if image is not None:
        check_image("image", image, ponder_map, style.density)
    what = "" if mean_cost is None else f", mean {mean_cost:.2f}"
    own = _map_tile(ponder_map, limits, "ponder map", what, style, UNITS_LABEL)
    row = [own] if image is None else [_Tile(image, ponder_map.shape[:2], printable(image_title)), own]
    if overlay is not None:
        colors = blend(overlay, ponder_map, limits, colormap=style.colormap)
        row.insert(len(row) - 1, _Tile(colors, ponder_map.shape[:2], "ponder map on the image"))
    rows = [_readable(row)]
    if block_maps:
        rows.append(_block_row(block_maps, rows[0], style))
    return _draw_rows(rows, style)


def draw_panel(image: np.ndarray, ponder_map: np.ndarray, **options: Any) -> np.ndarray:
    """The page of `panel`, which has the arguments, as uint8 RGB."""
    return panel(image, ponder_map, **options).pixels()


def maps_panel(
    image: Optional[np.ndarray],
    ponder_maps: Mapping[str, np.ndarray],
    *,
    image_title: str = "image",
    limits: Optional[Limits] = None,
    style: Style = ON_SCREEN,
) -> Canvas:
    """An image and several ponder maps of it under one colour scale, pixel for pixel, in rows if there are many.

    Args:
        image, image_title, limits, style: as of `panel`.
        ponder_maps: title -> float [H, W], at least one.

    Returns:
        The page.

    Raises:
        ValueError: a map is not of the image's size.
    """
    size = next(iter(ponder_maps.values())).shape[:2]
    for ponder_map in ponder_maps.values():
        if image is not None:
            check_image("image", image, ponder_map, style.density)
    limits = style.limits or limits or map_limits(np.stack(list(ponder_maps.values())))
    tiles = [] if image is None else [_Tile(image, size, printable(image_title))]
    tiles += [_Tile(colorize(own, limits, style.colormap), size, title) for title, own in ponder_maps.items()]
    return _draw_rows([_readable(row) for row in _rows_with_bars(tiles, limits)], style)


def draw_maps(image: np.ndarray, ponder_maps: Mapping[str, np.ndarray], **options: Any) -> np.ndarray:
    """The page of `maps_panel`, which has the arguments, as uint8 RGB."""
    return maps_panel(image, ponder_maps, **options).pixels()


@dataclass(frozen=True)
class _Tile:
    """A picture with what surrounds it: a title above, and a colour bar at its right if it has limits."""

    pixels: np.ndarray
    size: tuple[int, ...]  # (height, width) in pixels of the page
    title: str = ""
    limits: Optional[Limits] = None
    label: str = ""


def _map_tile(
    ponder_map: np.ndarray, limits: Optional[Limits], title: str, mean: str, style: Style, label: str = ""
) -> _Tile:
    colors = colorize(ponder_map, limits, style.colormap)
    if limits is None and is_flat(ponder_map):
        value = f"{float(ponder_map.flat[0]):.2f} everywhere"
        return _Tile(colors, ponder_map.shape[:2], f"{title.partition(', mean ')[0]}, {value}")
    return _Tile(colors, ponder_map.shape[:2], title + mean, limits or map_limits(ponder_map), label)


def _rows_with_bars(tiles: Sequence[_Tile], limits: Limits) -> list[list[_Tile]]:
    """The tiles in as many rows as they need, equally long but for the last; a colour bar at the end of each."""
    scale = display_scale(tiles[0].size[0], tiles[0].size[1])
    columns = max(1, _WIDEST_ROW // (scale * tiles[0].size[1]))
    columns = math.ceil(len(tiles) / math.ceil(len(tiles) / columns))
    rows = [list(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    return [[*row[:-1], replace(row[-1], limits=limits, label=UNITS_LABEL)] for row in rows]


def _readable(row: Sequence[_Tile]) -> list[_Tile]:
    height, width = row[0].size
    scale = display_scale(height, width)
    return [replace(tile, size=(scale * height, scale * width)) for tile in row]


class _RowLayout:
    """Where the parts of a row of equally high tiles lie, in pixels from its left and top edge."""

    def __init__(self, row: Sequence[_Tile], style: Style):
        height = max(tile.size[0] for tile in row)
        width = max(tile.size[1] for tile in row)
        self.font = style.font_pixels or min(max(round(math.sqrt(height * width) / 33), FONT[0]), FONT[1])
        self.gap = self.font
        self.title_height = 2 * self.font if any(tile.title for tile in row) else 0
        least = max(BAR_HEIGHT, text_width(UNITS_LABEL, self.font))
        self.body = max([height] + [least for tile in row if tile.label])
        self.height = self.title_height + self.body
        self.columns = [max(tile.size[1], text_width(tile.title, self.font)) for tile in row]
        self.bars = [
            self.gap // 2 + Canvas.colorbar_width(tile.limits, self.body, self.font, tile.label) if tile.limits else 0
            for tile in row
        ]
        self.width = sum(self.columns) + sum(self.bars) + self.gap * (len(row) - 1)


def _block_row(block_maps: Mapping[str, np.ndarray], above: Sequence[_Tile], style: Style) -> list[_Tile]:
    """Tiles of the blocks' maps, of the aspect of the tiles above and so large that both rows are equally wide."""

    def row(scale: float) -> list[_Tile]:
        size = max(1, round(above[0].size[0] * scale)), max(1, round(above[0].size[1] * scale))
        return [_map_tile(style.resize(rho, size), None, title, "", style) for title, rho in block_maps.items()]

    # What surrounds the tiles depends on their size a little: two steps settle it.
    available = _RowLayout(above, style).width
    scale = len(above) / len(block_maps)
    for _ in range(2):
        layout = _RowLayout(row(scale), style)
        frame = layout.width - sum(layout.columns)
        scale = max(available - frame, 1) / (len(block_maps) * above[0].size[1])
    return row(scale)


def _draw_rows(rows: Sequence[Sequence[_Tile]], style: Style) -> Canvas:
    layouts = [_RowLayout(row, style) for row in rows]
    margin = layouts[0].font
    width = max(layout.width for layout in layouts) + 2 * margin
    page = Canvas(width, sum(layout.height + margin for layout in layouts) + margin, style)
    y = margin
    for row, layout in zip(rows, layouts):
        x, body_y = margin, y + layout.title_height
        for tile, column, bar in zip(row, layout.columns, layout.bars):
            height, width = tile.size
            page.text(x + column / 2, y + layout.title_height / 2, tile.title, layout.font, "center")
            place = (x + (column - width) // 2, body_y + (layout.body - height) // 2)
            page.image(*place, tile.pixels, (height, width))
            x += column
            if tile.limits:
                page.colorbar(x + layout.gap // 2, body_y, layout.body, tile.limits, layout.font, tile.label)
            x += bar + layout.gap
        y += layout.height + margin
    return page
