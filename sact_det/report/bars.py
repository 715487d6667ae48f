"""Bars of several series for every category, as inline SVG."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Mapping, Optional, Sequence

from sact_det.report.plots import Axis

_ROW, _GAP, _LABELS, _WIDTH, _BOTTOM = 11, 10, 130, 560, 40


@dataclass(frozen=True)
class BarChart:
    """Horizontal bars.

    Attributes:
        title, x_label: what is seen.
        categories: from top to bottom.
        series: name -> a value for every category, or None where there is none.
        note: below the chart.
        intervals: name -> (low, high) of every value, None where there is none, drawn as lines over the bars; of some
            series, or none.
    """

    title: str
    x_label: str
    categories: Sequence[str]
    series: Mapping[str, Sequence[Optional[float]]]
    note: str = ""
    intervals: Mapping[str, Sequence[Optional[tuple[float, float]]]] = field(default_factory=dict)
    kind = "bars"

    @cached_property
    def axis(self) -> Axis:
        """From 0, or the lowest value or end of an interval where one lies below."""
        values = [value for own in self.series.values() for value in own if value is not None]
        ends = [end for own in self.intervals.values() for interval in own for end in interval or ()]
        return Axis.over([0.0, *values, *ends], 6)

    @property
    def width(self) -> int:
        """Of the viewBox."""
        return _WIDTH

    @property
    def height(self) -> int:
        """Of the viewBox."""
        return self.top(len(self.categories)) + _BOTTOM

    @property
    def left(self) -> int:
        """Where bars may begin."""
        return _LABELS

    @property
    def thickness(self) -> int:
        """Of a bar."""
        return _ROW - 1

    def x(self, value: float) -> float:
        """The pixel of a value."""
        return round(_LABELS + self.axis.share(value) * (_WIDTH - _LABELS - 16), 1)

    def top(self, category: int) -> int:
        """The pixel where the bars of a category begin."""
        return category * (len(self.series) * _ROW + _GAP) + _GAP // 2

    def bar(self, category: int, series: int) -> int:
        """The pixel where a bar begins."""
        return self.top(category) + series * _ROW

    def middle(self, category: int, series: int) -> float:
        """The pixel of a bar's middle."""
        return self.bar(category, series) + self.thickness / 2

    @property
    def summary(self) -> str:
        """What a reader who does not see it is told."""
        cells = (
            f"{category}: "
            + ", ".join(f"{name} {own[row]:.3f}" for name, own in self.series.items() if own[row] is not None)
            for row, category in enumerate(self.categories)
        )
        return f"{self.title}. {self.x_label}. " + "; ".join(cells)
