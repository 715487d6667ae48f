"""Plots as inline SVG, whose colours are those of the page, light or dark."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Callable, Mapping, NamedTuple, Optional, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from sact_det.base.value_rules import FINITE

WIDTH, HEIGHT = 420, 270  # of a plot, in units of its viewBox
COLOURS = 8  # that the page has for lines; more series begin anew

_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 22, 12, 46
_BINS = 24
_CHARACTER = 6.2  # pixels, about
_PLACES = ((1, -1), (1, 1), (-1, -1), (-1, 1), (0, -1), (0, 1), (1, 0), (-1, 0))  # of a label: right and below are 1


@dataclass(frozen=True)
class Series:
    """Points of one colour.

    Attributes:
        name: for the legend.
        x, y: of the points; what is no finite number is left out.
        colour: its number, so that a network has one colour in all plots.
        line: joins the points.
        dots: draws the points.
        labels: what pointing at each says; None: x and y.
        named: whether the labels stand beside the points.
        area: whether what is enclosed by the line is tinted.
    """

    name: str
    x: Sequence[Optional[float]]
    y: Sequence[Optional[float]]
    colour: int = 0
    line: bool = True
    dots: bool = False
    labels: Optional[Sequence[str]] = None
    named: bool = False
    area: bool = False

    @cached_property
    def points(self) -> list[tuple[float, float, str]]:
        """(x, y, label) of the points that there are."""
        labels = self.labels or [""] * len(self.x)
        return [
            (x, y, label or f"{x:.4g}, {y:.4g}")
            for x, y, label in zip(self.x, self.y, labels)
            if x is not None and y is not None and FINITE.allows(x) and FINITE.allows(y)
        ]


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, with ticks at round values."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]

    @classmethod
    def over(cls, values: Sequence[float], bins: int, dots: Sequence[float] = ()) -> "Axis":
        """The axis that holds these values and ends at round ones, or a little beyond where a dot would lie on them."""
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        if high - low < 1e-9 * max(1.0, abs(high)):
            low, high = low - 0.5, high + 0.5
        ticks = [float(tick) for tick in MaxNLocator(nbins=bins, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]
        decimals = max(0, math.ceil(-math.log10(ticks[1] - ticks[0]) - 1e-6))
        if any(abs(round(tick, decimals) - tick) > 1e-6 * (ticks[1] - ticks[0]) for tick in ticks):
            decimals += 1
        room = (ticks[1] - ticks[0]) / 5
        low = ticks[0] - room * any(dot < ticks[0] + room for dot in dots)
        high = ticks[-1] + room * any(dot > ticks[-1] - room for dot in dots)
        return cls(low, high, [(tick, f"{tick:,.{decimals}f}") for tick in ticks])

    def share(self, value: float) -> float:
        """Where on the axis a value lies, from 0 to 1."""
        return (value - self.low) / (self.high - self.low)


class Name(NamedTuple):
    """A label beside a point: its middle, where its letters stand, and the number of its colour."""

    x: float
    y: float
    text: str
    colour: int


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@dataclass(frozen=True)
class Plot:
    """Series in one frame. `title` says what is seen; `note` what one may have to know."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    note: str = ""
    kind = "plot"

    @cached_property
    def x_axis(self) -> Axis:
        """Of all points."""
        dots = [x for one in self.series if one.dots for x, _, _ in one.points]
        return Axis.over([x for one in self.series for x, _, _ in one.points], 6, dots)

    @cached_property
    def y_axis(self) -> Axis:
        """Of all points."""
        dots = [y for one in self.series if one.dots for _, y, _ in one.points]
        return Axis.over([y for one in self.series for _, y, _ in one.points], 5, dots)

    def x(self, value: float) -> float:
        """The pixel of a value."""
        return round(_LEFT + self.x_axis.share(value) * (WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        """The pixel of a value."""
        return round(HEIGHT - _BOTTOM - self.y_axis.share(value) * (HEIGHT - _TOP - _BOTTOM), 1)

    @property
    def frame(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the axes."""
        return _LEFT, _TOP, WIDTH - _RIGHT, HEIGHT - _BOTTOM

    def path(self, series: Series) -> str:
        """The line through the points, as SVG has it."""
        return "M" + "L".join(f"{self.x(x)} {self.y(y)}" for x, y, _ in series.points)

    @cached_property
    def names(self) -> list[Name]:
        """The labels that stand beside points, where they cover no point and no other label; else they are left out."""
        taken = [
            (self.x(x) - 5, self.y(y) - 5, self.x(x) + 5, self.y(y) + 5)
            for one in self.series
            if one.dots
            for x, y, _ in one.points
        ]
        left, top, right, bottom = self.frame
        names = []
        for one in (one for one in self.series if one.named):
            for x, y, label in one.points:
                width = _CHARACTER * len(label)
                for across, down in _PLACES:
                    start = self.x(x) + (across * 8 if across > 0 else -8 - width if across else -width / 2)
                    base = self.y(y) + (-7 if down < 0 else 15 if down else 4)
                    place = (start, base - 9, start + width, base + 2)
                    inside = (
                        left <= place[0] and place[2] <= right + _RIGHT and top - 10 <= place[1] and place[3] <= bottom
                    )
                    if inside and not any(_overlap(place, other) for other in taken):
                        taken.append(place)
                        names.append(Name(round(start + width / 2, 1), round(base, 1), label, one.colour))
                        break
        return names

    @property
    def summary(self) -> str:
        """What a reader who does not see it is told."""
        ends = []
        for one in (one for one in self.series if one.points):
            (x0, y0, _), (x1, y1, _) = one.points[0], one.points[-1]
            ends.append(f"{one.name}: {len(one.points)} points from ({x0:.4g}, {y0:.4g}) to ({x1:.4g}, {y1:.4g})")
        return f"{self.title}. {self.y_label} against {self.x_label}. " + "; ".join(ends)


def histogram(title: str, x_label: str, values: Mapping[str, Sequence[float]], colour: Callable[[str], int]) -> Plot:
    """How many images have which value: an outline for every name of `values`, over the same bins."""
    together = np.concatenate([np.asarray(own, np.float64) for own in values.values()])
    low, high = float(together.min()), float(together.max())
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    series = []
    for name, own in values.items():
        counts, _ = np.histogram(own, edges)
        x = [edges[0], *np.repeat(edges[1:-1], 2), edges[-1]]
        y = np.repeat(counts, 2)
        series.append(Series(name, [x[0], *x, x[-1]], [0, *y.tolist(), 0], colour(name), area=True))
    return Plot(title, x_label, "images", series)
