"""A panel: an image, perhaps with detections, beside its ponder map with a colour bar.

Shape shorthand in this module:
    H, W: size of an image in pixels; h, w: size of a block's feature map. Images are uint8 RGB [H, W, 3].
"""

import math
from dataclasses import dataclass
from typing import Mapping, Optional, Sequence

import numpy as np

from sact_det.pictures.canvas import Canvas, Limits, printable, text_width
from sact_det.pictures.colors import blend, check_image, colorize, resize_nearest
from sact_det.pictures.scales import map_limits

UNITS_LABEL = "ponder cost (units + remainder)"

_READABLE_SIDE = 400  # pixels: the longer side of an image beside which the labels look right
BAR_HEIGHT = 220  # pixels, at least: UNITS_LABEL fits beside it in the smallest font
FONT = (12, 36)  # pixels, smallest and largest


def display_scale(height: int, width: int) -> int:
    """The whole number by which a small image is enlarged so that boxes and labels can be read; 1 for most."""
    return math.ceil(_READABLE_SIDE / max(height, width, 1))


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

    Where the image is small, a pixel is a k x k square (`display_scale`).

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
    check_image("image", image, ponder_map)
    title = "ponder map" if mean_cost is None else f"ponder map, mean {mean_cost:.2f}"
    row = [_Tile(image, printable(image_title)), _Tile(colorize(ponder_map, limits), title, limits, UNITS_LABEL)]
    if overlay is not None:
        row.insert(1, _Tile(blend(overlay, ponder_map, limits), "ponder map on the image"))
    rows = [_readable(row)]
    if block_maps:
        rows.append(_block_row(block_maps, rows[0]))
    return _draw_rows(rows)


def draw_maps(image: np.ndarray, ponder_maps: Mapping[str, np.ndarray], *, image_title: str = "image") -> np.ndarray:
    """An image at the left, several ponder maps of it beside each other under one colour scale, pixel for pixel.

    Args:
        image: as of draw_panel.
        ponder_maps: title -> float [H, W], at least one.
        image_title: above the image.

    Returns:
        uint8 RGB.

    Raises:
        ValueError: a map is not of the image's size.
    """
    for ponder_map in ponder_maps.values():
        check_image("image", image, ponder_map)
    limits = map_limits(np.stack(list(ponder_maps.values())))
    *others, (last, ponder_map) = ponder_maps.items()
    row = [_Tile(image, printable(image_title))]
    row += [_Tile(colorize(own, limits), title) for title, own in others]
    row.append(_Tile(colorize(ponder_map, limits), last, limits, UNITS_LABEL))
    return _draw_rows([_readable(row)])


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


def _readable(row: Sequence[_Tile]) -> list[_Tile]:
    scale = display_scale(*row[0].size)
    return [_Tile(tile.pixels.repeat(scale, 0).repeat(scale, 1), tile.title, tile.limits, tile.label) for tile in row]


class _RowLayout:
    """Where the parts of a row of equally high tiles lie, in pixels from its left and top edge."""

    def __init__(self, row: Sequence[_Tile]):
        height = max(tile.size[0] for tile in row)
        width = max(tile.size[1] for tile in row)
        self.font = min(max(round(math.sqrt(height * width) / 33), FONT[0]), FONT[1])
        self.gap = self.font
        self.title_height = 2 * self.font if any(tile.title for tile in row) else 0
        self.body = max([height] + [BAR_HEIGHT for tile in row if tile.label])
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
