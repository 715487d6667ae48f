"""AP against seconds: who is beaten, and the figure."""

from typing import Iterable, NamedTuple, Optional, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sact_det.pictures.figures import literal_text, logarithmic_where_wide, new_figure, wrapped
from sact_det.pictures.point_labels import PointLabel, label_points

_TITLE, _CAPTION, _NAME = 78, 150, 44  # characters of a line
_STATIC_COLOURS = ("#1f3b63", "#7a5c3a", "#4d4d4d", "#2f6b62", "#6b4a7a")
_STATIC_STYLES = ("-", "--", ":", "-.")
_COLOURS = ("C3", "C1", "C2", "C4", "C6", "C8", "C5", "C9")
_MARKERS = "*PX^vDs<>"


class Point(NamedTuple):
    """A detector.

    Attributes:
        name: unlike all others.
        detector: of which static ones are variants, drawn in one colour.
        line: those of one line are connected, in their order: static ones, or one detector at several budgets.
        static: whether the same is computed for every image.
        ap: AP in percent; NaN where there is nothing to judge.
        seconds: an image.
        label: what is written beside the point.
    """

    name: str
    detector: str
    line: str
    static: bool
    ap: float
    seconds: float
    label: str = ""


def beaten_by(point: Point, points: Iterable[Point]) -> Optional[Point]:
    """The fastest static one with at least the AP of an adaptive one in at most its time; None if it is not beaten.

    A static one is not said to be beaten: its line shows what it costs.
    """
    if point.static:
        return None
    better = (one for one in points if one.static and one.ap >= point.ap and one.seconds <= point.seconds)
    return min(better, key=lambda one: one.seconds, default=None)


@literal_text()
def draw_pareto(points: Sequence[Point], title: str, caption: str) -> Figure:
    """Static detectors as lines, adaptive ones as marks; those that a static one beats are hollow.

    An adaptive one has a mark of its own, or, at several budgets, marks on a line.

    Args:
        points: those without AP are left out.
        title: what was measured.
        caption: below: images and machine.
    """
    points = [point for point in points if point.ap == point.ap]
    figure = new_figure(8.5, 5.6, dpi=150)
    axes = figure.add_subplot(xlabel="seconds an image, whole detector", ylabel="AP (%)")
    axes.set_title(wrapped(title, _TITLE), fontsize="medium")
    figure.supxlabel(wrapped(caption, _CAPTION), fontsize="x-small", color="0.4")
    colours = _draw_static(axes, [point for point in points if point.static])
    _draw_adaptive(axes, points)
    axes.grid(alpha=0.25)
    axes.margins(0.08)
    logarithmic_where_wide(axes, [point.seconds for point in points])
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, labelspacing=0.8)
    labels = [
        PointLabel(p.seconds, p.ap, p.label, colours.get(p.detector, "black"), 2 if p.static else 6) for p in points
    ]
    label_points(figure, axes, labels)
    return figure


def _draw_static(axes: Axes, points: Sequence[Point]) -> dict[str, str]:
    """A style of line for every size of a detector's images, and a colour for every detector, which is returned."""
    detectors = dict.fromkeys(point.detector for point in points)
    colours = {name: _STATIC_COLOURS[number % len(_STATIC_COLOURS)] for number, name in enumerate(detectors)}
    for detector, colour in colours.items():
        lines = dict.fromkeys(point.line for point in points if point.detector == detector)
        for style, line in enumerate(lines):
            own = sorted((point for point in points if point.line == line), key=lambda point: point.seconds)
            axes.plot(
                [point.seconds for point in own],
                [point.ap for point in own],
                marker="o",
                markersize=4,
                linestyle=_STATIC_STYLES[style % len(_STATIC_STYLES)],
                linewidth=1.3,
                color=colour,
                label=wrapped(line, _NAME),
            )
    return colours


def _draw_adaptive(axes: Axes, points: Sequence[Point]) -> None:
    lines = dict.fromkeys(point.line for point in points if not point.static)
    for number, line in enumerate(lines):
        own = sorted((p for p in points if p.line == line and not p.static), key=lambda point: point.seconds)
        colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
        if len(own) > 1:
            axes.plot([point.seconds for point in own], [point.ap for point in own], color=colour, linewidth=1.3)
        for beaten in (False, True):
            alike = [point for point in own if (beaten_by(point, points) is not None) == beaten]
            if not alike:
                continue
            axes.plot(
                [point.seconds for point in alike],
                [point.ap for point in alike],
                marker,
                color=colour,
                markerfacecolor="white" if beaten else colour,
                markeredgewidth=1.3,
                markersize=11,
                linestyle="none",
                zorder=3,
                label=wrapped(f"{line}, beaten" if beaten else line, _NAME),
            )
