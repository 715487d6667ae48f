import itertools
import math

import numpy as np
import pytest

from sact_det.report.bars import BarChart
from sact_det.report.plots import HEIGHT, WIDTH, Axis, Plot, Series, histogram


@pytest.mark.parametrize(
    "values", [(0.0, 1.0), (29.97, 30.8), (1.85, 3.0), (5.0,), (), (-3.0, 1e6), (1e-4, 2e-4), (65.0, 65.0)]
)
def test_an_axis_holds_its_values_and_its_ticks_say_where_they_are(values):
    axis = Axis.over(values, 6)
    assert all(0 <= axis.share(value) <= 1 for value in values)
    step = axis.ticks[1][0] - axis.ticks[0][0]
    assert all(abs(float(text.replace(",", "")) - tick) < 0.01 * step for tick, text in axis.ticks)


def test_points_without_a_number_are_left_out_and_the_others_lie_in_the_frame():
    plot = Plot("title", "x", "y", [Series("a", [0, 1, None, 3], [1.0, math.nan, 2.0, 4.0])])
    (series,) = plot.series
    assert [(x, y) for x, y, _ in series.points] == [(0, 1.0), (3, 4.0)]
    left, top, right, bottom = plot.frame
    assert plot.x(0) == left < plot.x(3) <= right < WIDTH
    assert HEIGHT > bottom >= plot.y(1.0) > plot.y(4.0) >= top


def test_the_outline_of_a_histogram_encloses_as_many_images_as_there_are():
    shares = np.random.default_rng(0).normal(70, 5, 300)
    plot = histogram("FLOPs", "%", {"SACT": shares, "one value": [65.0]}, {"SACT": 0, "one value": 1}.get)
    edges = sorted(set(plot.series[0].x))
    for series, images in zip(plot.series, (300, 1)):
        counts = [series.y[2 * number + 1] for number in range(len(edges) - 1)]
        assert sum(counts) == images
    assert edges[0] == min(65.0, shares.min()) and edges[-1] == shares.max()


def test_bars_begin_at_zero_and_do_not_overlap():
    chart = BarChart("title", "AUC", ["a", "b"], {"one": [0.5, None], "two": [1.0, -0.2]})
    assert chart.axis.low <= -0.2 < 0 < 1.0 <= chart.axis.high
    tops = [chart.bar(category, series) for category in range(2) for series in range(2)]
    assert all(after - before >= chart.thickness for before, after in itertools.pairwise(tops))
    assert "one 0.500" in chart.summary and "None" not in chart.summary


def test_names_beside_points_cover_neither_points_nor_each_other():
    rng = np.random.default_rng(0)
    series = [
        Series(str(n), rng.uniform(0, 9, 6).tolist(), rng.uniform(50, 60, 6).tolist(), n, dots=True, named=True)
        for n in range(4)
    ]
    series = [Series(one.name, one.x, one.y, one.colour, dots=True, named=True, labels=["208"] * 6) for one in series]
    plot = Plot("title", "x", "y", series)
    boxes = [(name.x - 9.3, name.y - 9, name.x + 9.3, name.y + 2) for name in plot.names]
    assert len(boxes) > 16  # of 24
    points = [(plot.x(x), plot.y(y)) for one in series for x, y, _ in one.points]
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        assert not any(x0 < x < x1 and y0 < y < y1 for x, y in points)
        for a0, b0, a1, b1 in boxes[:number]:
            assert x1 <= a0 or a1 <= x0 or y1 <= b0 or b1 <= y0
        assert x0 >= 0 and x1 <= WIDTH


def test_no_dot_lies_on_the_frame():
    lines, dots = (Plot("", "", "", [Series("a", [80, 100], [30, 36], dots=shown)]) for shown in (False, True))
    assert (lines.x_axis.low, lines.x_axis.high, lines.y_axis.low) == (80, 100, 30)
    left, top, right, bottom = dots.frame
    assert left + 5 < dots.x(80) < dots.x(100) < right - 5 and top + 5 < dots.y(36) < dots.y(30) < bottom - 5
    assert dots.x_axis.ticks == lines.x_axis.ticks and dots.y_axis.ticks == lines.y_axis.ticks
