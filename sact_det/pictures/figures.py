"""Figures of matplotlib without a screen, whose titles and names are drawn as they are written."""

import contextlib
import textwrap
import warnings
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from sact_det.base.files import replacing
from sact_det.pictures.style import EMBEDDED, ON_SCREEN, Style

_MOST_LINES = 3
_LOG_FROM = 3  # times the smallest value


@contextlib.contextmanager
def literal_text() -> Iterator[None]:
    """What is written within, or under it as a decorator, is no formula: `$`, `_` and `\\` are drawn as they are."""
    with matplotlib.rc_context({"text.parse_math": False, "text.usetex": False}):
        yield


def new_figure(width: float, height: float, dpi: int) -> Figure:
    """An empty figure of so many inches, laid out so that nothing overlaps."""
    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def logarithmic_where_wide(axes: Axes, x: Sequence[float]) -> None:
    """Makes the x axis logarithmic, with plain numbers at its ticks, where positive values lie far apart."""
    if x and max(x) > _LOG_FROM * min(x):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())


def wrapped(text: str, width: int) -> str:
    """The text in at most three lines of so many characters, with an ellipsis where it is cut."""
    return textwrap.fill(text, width, max_lines=_MOST_LINES, placeholder="…")


def save_figure(draw: Callable[[], Figure], path: Path, style: Style = ON_SCREEN) -> None:
    """Draws a figure and writes it, the same bytes every time. Characters that no font has are boxes, without warning.

    Args:
        draw: makes the figure; its text has the style's font size where that is given.
        path: of the file.
        style: its format, font size and dots per inch, which by default are the figure's own.

    Raises:
        OSError: it cannot be written.
    """
    own: dict[Any, Any] = {} if style.font_size is None else {"font.size": style.font_size}
    undated = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[style.format]
    with literal_text(), warnings.catch_warnings(), matplotlib.rc_context({**EMBEDDED, **own}):
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        figure = draw()
        with replacing(path) as temporary:
            figure.savefig(temporary, format=style.format, dpi=style.dpi or "figure", metadata=undated)
