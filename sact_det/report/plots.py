"""Plots as inline SVG, whose colours are those of the page, light or dark."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Callable, Mapping, Optional, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from sact_det.base.value_rules import FINITE

WIDTH, HEIGHT = 420, 270  # of a plot, in units of its viewBox
COLOURS = 8  # that the page has for lines; more series begin anew

_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 22, 12, 46
_BINS = 24


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
    def over(cls, values: Sequence[float], bins: int) -> "Axis":
        """The axis that holds these values and ends at round ones."""
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        if high - low < 1e-9 * max(1.0, abs(high)):
            low, high = low - 0.5, high + 0.5
        ticks = [float(tick) for tick in MaxNLocator(nbins=bins, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]
        decimals = max(0, math.ceil(-math.log10(ticks[1] - ticks[0]) - 1e-6))
        if any(abs(round(tick, decimals) - tick) > 1e-6 * (ticks[1] - ticks[0]) for tick in ticks):
            decimals += 1
        return cls(ticks[0], ticks[-1], [(tick, f"{tick:,.{decimals}f}") for tick in ticks])

    def share(self, value: float) -> float:
        """Where on the axis a value lies, from 0 to 1."""
        return (value - self.low) / (self.high - self.low)


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
        return Axis.over([x for one in self.series for x, _, _ in one.points], 6)

    @cached_property
    def y_axis(self) -> Axis:
        """Of all points."""
        return Axis.over([y for one in self.series for _, y, _ in one.points], 5)

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
