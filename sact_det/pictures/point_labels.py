"""Labels beside the points of a figure, where they cover neither a point nor a line nor another label."""

import itertools
import warnings
from typing import Any, Iterator, NamedTuple, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

_STEP = 4  # pixels
# Where a label may stand beside its point, in points; the first that is free is taken.
_PLACES = [
    (x * distance, y * distance)
    for distance in (7, 13, 20, 28)
    for x, y in ((0.7, 0.7), (0.7, -0.7), (-0.7, 0.7), (-0.7, -0.7), (0, 1), (0, -1), (1, 0), (-1, 0))
]


class PointLabel(NamedTuple):
    """What is written beside (x, y) of the axes, in a colour.

    `radius` of the point's mark, in points, is kept free.
    """

    x: float
    y: float
    text: str
    color: Any = "black"
    radius: float = 2


def label_points(figure: Figure, axes: Axes, labels: Sequence[PointLabel], size: str = "x-small") -> None:
    """Writes every label where it is free, the first ones first; where there is no such place, nowhere.

    Lines of the axes and bars of errors are not covered. The figure must be complete: its layout is fixed.

    Args:
        figure: of the axes.
        axes: with everything that is drawn.
        labels: an empty text keeps its point free.
        size: of the font, as matplotlib has it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)  # of characters that no font has
        figure.draw_without_rendering()  # from now on the layout holds
    figure.set_layout_engine("none")
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    unit = figure.dpi / 72
    spots = axes.transData.transform(np.array([(one.x, one.y) for one in labels], dtype=float).reshape(-1, 2))
    taken = [
        Bbox.from_bounds(x - half, y - half, 2 * half, 2 * half)
        for (x, y), half in zip(spots, (one.radius * unit for one in labels))
    ]
    for line in _lines(axes):
        taken += _along(axes.transData.transform(line))
    legend = axes.get_legend()
    if legend is not None:
        taken.append(legend.get_window_extent(renderer))
    frame = axes.get_window_extent(renderer)
    for one in labels:
        for place in _PLACES if one.text else ():
            text = axes.annotate(
                one.text,
                (one.x, one.y),
                xytext=place,
                textcoords="offset points",
                fontsize=size,
                color=one.color,
                ha="center" if place[0] == 0 else "left" if place[0] > 0 else "right",
                va="center" if place[1] == 0 else "bottom" if place[1] > 0 else "top",
            )
            extent = text.get_window_extent(renderer)
            inside = frame.x0 <= extent.x0 and extent.x1 <= frame.x1 and frame.y0 <= extent.y0 and extent.y1 <= frame.y1
            if inside and not any(extent.overlaps(other) for other in taken):
                taken.append(extent)
                break
            text.remove()


def _lines(axes: Axes) -> Iterator[np.ndarray]:
    """The corners, [N, 2] in data, of all lines and bars of errors."""
    for line in axes.get_lines():
        if line.get_linestyle() not in ("None", "none", "", " "):
            yield np.asarray(line.get_xydata())
    for container in axes.containers:
        if isinstance(container, ErrorbarContainer):
            for bars in container.lines[2]:
                yield from (np.asarray(segment) for segment in bars.get_segments())


def _along(spots: np.ndarray) -> list[Bbox]:
    """Small boxes on the way from spot to spot, [N, 2] in pixels, so that no label is crossed."""
    boxes = []
    for start, end in itertools.pairwise(spots):
        steps = 1 + int(np.hypot(*(end - start)) // _STEP)
        boxes += [Bbox.from_bounds(x - 1, y - 1, 2, 2) for x, y in np.linspace(start, end, steps + 1)]
    return boxes
