"""Who is beaten in AP against seconds, and the figure of it."""

import itertools
import math

import pytest

from sact_det.benchmark.pareto import Point, beaten_by, draw_pareto


def static(name, ap, seconds, label=""):
    return Point(name, "plain", "plain", True, ap, seconds, label)


def adaptive(ap, seconds, name="sact"):
    return Point(name, name, name, False, ap, seconds)


STATIC = [static("slow", 40, 0.4), static("good", 38, 0.2), static("fast", 30, 0.1)]


@pytest.mark.parametrize(
    ("ap", "seconds", "better"),
    [
        (38, 0.2, "good"),  # at least its AP in at most its time
        (37.9, 0.3, "good"),
        (30, 0.5, "fast"),  # of all that beat it, the fastest
        (38.1, 0.3, None),
        (38, 0.19, None),
        (29, 0.05, None),
        (math.nan, 0.5, None),
    ],
)
def test_an_adaptive_point_is_beaten_by_the_fastest_static_one_that_is_no_worse_and_no_slower(ap, seconds, better):
    point = adaptive(ap, seconds)
    found = beaten_by(point, [point, adaptive(50, 0.01, "other"), *STATIC])
    assert (found and found.name) == better


def test_static_points_are_not_said_to_be_beaten():
    assert all(beaten_by(point, [*STATIC, static("best", 50, 0.01)]) is None for point in STATIC)


def test_labels_of_the_figure_cover_neither_each_other_nor_a_point():
    points = [static(f"{k}", 40 + k / 100, 0.2 + k / 1e4, str(k)) for k in (50, 55, 60, 100, 300)]
    figure = draw_pareto([*points, adaptive(40.5, 0.205), adaptive(math.nan, 1.0, "nothing")], "a_title $", "where")
    (axes,) = figure.axes
    renderer = figure.canvas.get_renderer()
    extents = [text.get_window_extent(renderer) for text in axes.texts]
    assert len(extents) == 5 and {text.get_text() for text in axes.texts} == {"50", "55", "60", "100", "300"}
    assert not any(one.overlaps(other) for one, other in itertools.combinations(extents, 2))
    for point in points:
        x, y = axes.transData.transform((point.seconds, point.ap))
        assert not any(extent.contains(x, y) for extent in extents)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["plain", "sact"]


def test_a_beaten_point_is_hollow_and_called_so():
    figure = draw_pareto([*STATIC, adaptive(35, 0.3, "late"), adaptive(39, 0.15, "early")], "", "")
    _, late, early = figure.axes[0].get_lines()
    assert (late.get_markerfacecolor(), late.get_label()) == ("white", "late, beaten")
    assert early.get_markerfacecolor() != "white" and early.get_label() == "early"


def test_a_detector_at_several_budgets_is_a_line_with_marks_that_are_hollow_where_it_is_beaten():
    budgets = [(31, 0.05), (36, 0.3), (39, 0.15)]
    points = [Point(f"one at {ap}", "one", "one", False, ap, seconds, str(ap)) for ap, seconds in budgets]
    axes = draw_pareto([*STATIC, *points], "", "").axes[0]
    _, line, open_marks, hollow = axes.get_lines()
    assert list(line.get_xdata()) == [0.05, 0.15, 0.3] and list(hollow.get_ydata()) == [36]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["plain", "one", "one, beaten"]
    assert open_marks.get_markerfacecolor() == line.get_color() and {t.get_text() for t in axes.texts} >= {"36", "39"}
