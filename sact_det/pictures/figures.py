"""Figures of matplotlib without a screen, whose titles and names are drawn as they are written."""

import contextlib
import textwrap
import warnings
from pathlib import Path
from typing import Iterator, Optional, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from sact_det.base.files import replacing
from sact_det.pictures.style import EMBEDDED

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


def save_png(figure: Figure, path: Path) -> None:
    """Writes the figure as a png, as `save_figure` does. Raises OSError."""
    save_figure(figure, path, "png")


def save_figure(figure: Figure, path: Path, form: str, dpi: Optional[float] = None) -> None:
    """Writes the figure, the same bytes every time; characters that no font has are boxes, without a warning.

    Args:
        figure: what is written.
        path: of the file.
        form: "png", "pdf" or "svg".
        dpi: dots per inch of a png; None: the figure's own.

    Raises:
        OSError: it cannot be written.
    """
    undated = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[form]
    with literal_text(), warnings.catch_warnings(), matplotlib.rc_context(EMBEDDED), replacing(path) as temporary:
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        figure.savefig(temporary, format=form, dpi=dpi or "figure", metadata=undated)
