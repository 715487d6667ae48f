"""A page on which images keep their pixels: everything is placed in whole pixels from the top left corner."""

import bisect
import math
import warnings
from pathlib import Path
from typing import Optional

import cv2
import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator
from PIL import Image

from sact_det.pictures.style import EMBEDDED, ON_SCREEN, Limits, Style

_DPI = 64  # a power of two: pixels / dpi * dpi is exact
_INK = "#222222"


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
    """A white page, sized in pixels. x and y are pixels from its left and top edge, font sizes are pixels too.

    Args:
        width, height: of the page.
        style: its density and format.
    """

    def __init__(self, width: int, height: int, style: Style = ON_SCREEN):
        self.width, self.height, self._style = width, height, style
        # A page has a number of pixels per inch, and of points per pixel, of its own in files that are no pixels.
        self._vector = style.format != "png"
        inch = 100 if self._vector else _DPI
        self._density = 1.0 if self._vector else style.density
        self._points = 72 / inch
        self._figure = Figure(figsize=(width / inch, height / inch), dpi=inch * self._density, facecolor="white")
        self._agg = FigureCanvasAgg(self._figure)

    def image(self, x: int, y: int, pixels: np.ndarray, size: Optional[tuple[int, int]] = None) -> None:
        """Puts uint8 RGB [h, w, 3] with its top left corner at (x, y).

        Args:
            x, y: of the corner.
            pixels: of the image, one for a pixel of the page, or `size`, (height, width) of it on the page, says else.
            size: what it takes there.
        """
        height, width = size or (pixels.shape[0], pixels.shape[1])
        if self._vector:
            axes = self._figure.add_axes(self._share(x, y, width, height))
            axes.set_axis_off()
            axes.imshow(pixels, interpolation="none", aspect="auto")
            return
        own = (round(height * self._density), round(width * self._density))
        if pixels.shape[:2] != own:
            pixels = cv2.resize(np.ascontiguousarray(pixels), own[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        bottom = round(self._density * (self.height - y)) - own[0]
        self._figure.figimage(pixels, round(self._density * x), bottom, origin="upper")

    def _share(self, x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
        """A rectangle in shares of the page, from its lower left corner, as matplotlib has them."""
        return x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height

    def text(self, x: float, y: float, text: str, size: int, align: str = "left") -> None:
        """Writes one line whose vertical middle is at y. `align` says what x is: "left", "center" or "right"."""
        self._figure.text(
            x / self.width,
            1 - y / self.height,
            text,
            size=size * self._points,
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
        points = self._points
        axes = self._figure.add_axes(self._share(x, y, size, height))
        bar = Colorbar(axes, ScalarMappable(Normalize(*limits), self._style.colormap))
        ticks, labels = colorbar_ticks(limits, height, size)
        bar.set_ticks(ticks, labels=labels)
        bar.outline.set(linewidth=0.8, edgecolor=_INK)
        axes.tick_params(labelsize=size * points, length=size / 4 * points, pad=size / 4 * points, color=_INK)
        axes.tick_params(labelcolor=_INK)
        if label:
            bar.set_label(label, size=size * points, labelpad=size / 2 * points, color=_INK, parse_math=False)

    def pixels(self) -> np.ndarray:
        """The page as uint8 RGB [density * height, density * width, 3]."""
        self._agg.draw()
        return np.asarray(self._agg.buffer_rgba())[..., :3].copy()

    def save(self, path: Path) -> None:
        """Writes the page as a file of the style's format, the same bytes every time. Raises OSError."""
        if not self._vector:
            dpi = self._style.dots_per_inch
            Image.fromarray(self.pixels()).save(path, "png", dpi=(dpi, dpi))
            return
        with matplotlib.rc_context(EMBEDDED), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
            undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}[self._style.format]
            self._figure.savefig(path, format=self._style.format, metadata=undated)
