"""A page on which images keep their pixels: everything is placed in whole pixels from the top left corner."""

import bisect
import math

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator

COLORMAP = "viridis"

_DPI = 64  # a power of two: pixels / dpi * dpi is exact
_POINTS = 72 / _DPI  # per pixel
_INK = "#222222"

Limits = tuple[float, float]


def text_width(text: str, size: int) -> int:
    """Pixels that `text` occupies at a font size of `size` pixels, rounded up."""
    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return math.ceil(width)


def shortened(text: str, size: int, width: int) -> str:
    """`text`, or as much of its beginning and end around an ellipsis as fits into `width` pixels."""

    def keeping(characters: int) -> str:
        return text[: (characters + 1) // 2] + "…" + text[len(text) - characters // 2 :]

    if text_width(text, size) <= width:
        return text
    fitting = bisect.bisect(range(len(text)), width, key=lambda characters: text_width(keeping(characters), size))
    return keeping(max(fitting - 1, 0))


def printable(text: str) -> str:
    """`text` on one line, with a question mark for what is no character (a file name need not be valid Unicode)."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())


def colorbar_ticks(limits: Limits, height: int, size: int) -> tuple[list[float], list[str]]:
    """Round values within `limits` and their labels, as many as `height` pixels hold at a font size of `size`."""
    low, high = limits
    locator = MaxNLocator(nbins=min(max(height // (3 * size), 2), 6), steps=[1, 2, 5, 10], min_n_ticks=2)
    slack = 1e-6 * (high - low)
    ticks = [float(tick) for tick in locator.tick_values(low, high) if low - slack <= tick <= high + slack]
    step = ticks[1] - ticks[0] if len(ticks) > 1 else high - low
    decimals = max(0, math.ceil(-math.log10(step) - 1e-6))
    return ticks, [f"{tick:.{decimals}f}" for tick in ticks]


class Canvas:
    """A white page, sized in pixels. x and y are pixels from its left and top edge, font sizes are pixels too."""

    def __init__(self, width: int, height: int):
        self.width, self.height = width, height
        self._figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
        self._agg = FigureCanvasAgg(self._figure)

    def image(self, x: int, y: int, pixels: np.ndarray) -> None:
        """Puts uint8 RGB [h, w, 3] with its top left corner at (x, y), pixel for pixel."""
        self._figure.figimage(pixels, x, self.height - y - len(pixels), origin="upper")

    def text(self, x: float, y: float, text: str, size: int, align: str = "left") -> None:
        """Writes one line whose vertical middle is at y. `align` says what x is: "left", "center" or "right"."""
        self._figure.text(
            x / self.width,
            1 - y / self.height,
            text,
            size=size * _POINTS,
            ha=align,
            va="center_baseline",
            color=_INK,
            parse_math=False,
        )

    @staticmethod
    def colorbar_width(limits: Limits, height: int, size: int, label: str = "") -> int:
        """Pixels that `colorbar` with these arguments needs to the right of its x."""
        _, labels = colorbar_ticks(limits, height, size)
        ticks = max(text_width(text, size) for text in labels) + size
        return size + ticks + (round(1.8 * size) if label else 0)

    def colorbar(self, x: int, y: int, height: int, limits: Limits, size: int, label: str = "") -> None:
        """A vertical bar of the font size's width, with ticks and the label to its right."""
        axes = self._figure.add_axes(
            (x / self.width, 1 - (y + height) / self.height, size / self.width, height / self.height)
        )
        bar = Colorbar(axes, ScalarMappable(Normalize(*limits), COLORMAP))
        ticks, labels = colorbar_ticks(limits, height, size)
        bar.set_ticks(ticks, labels=labels)
        bar.outline.set(linewidth=0.8, edgecolor=_INK)
        axes.tick_params(labelsize=size * _POINTS, length=size / 4 * _POINTS, pad=size / 4 * _POINTS, color=_INK)
        axes.tick_params(labelcolor=_INK)
        if label:
            bar.set_label(label, size=size * _POINTS, labelpad=size / 2 * _POINTS, color=_INK, parse_math=False)

    def pixels(self) -> np.ndarray:
        """The page as uint8 RGB [height, width, 3]."""
        self._agg.draw()
        return np.asarray(self._agg.buffer_rgba())[..., :3].copy()
