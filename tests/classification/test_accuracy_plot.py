import numpy as np
import pytest

from sact_det.classification.accuracy_plot import Point, draw_accuracy

SACT = [
    Point("SACT", size, gflops * 1e9, 2e9, accuracy) for size, gflops, accuracy in ((320, 22, 0.78), (224, 11, 0.75))
]
PLAIN = [Point("plain", 224, 15e9, 0.0, 0.76)]


def axes_of(points):
    (axes,) = draw_accuracy(points).axes
    return axes


def test_a_model_is_a_line_through_its_sizes_with_bars_of_one_standard_deviation():
    axes = axes_of([*SACT, *PLAIN])
    sact, plain = axes.containers
    np.testing.assert_allclose(sact.lines[0].get_xydata(), [(11, 75), (22, 78)])
    bars = [segment[:, 0].tolist() for segment in sact.lines[2][0].get_segments()]
    np.testing.assert_allclose(bars, [(9, 13), (20, 24)])
    assert [container.get_label() for container in (sact, plain)] == ["SACT", "plain"]
    assert [text.get_text() for text in axes.texts] == ["224", "320", "224"]


@pytest.mark.parametrize(("largest", "scale"), [(2.5, "linear"), (4.0, "log")])
def test_flops_far_apart_are_on_a_logarithmic_axis(largest, scale):
    points = [Point("m", 224, 1e10, 1e9, 0.7), Point("m", 448, largest * 1e10, 1e9, 0.8)]
    assert axes_of(points).get_xscale() == scale


def test_a_bar_as_long_as_the_mean_can_be_drawn_on_a_logarithmic_axis():
    points = [Point("m", 32, 1e9, 2e9, 0.7), Point("m", 64, 8e9, 1e9, 0.8)]
    (container,) = axes_of(points).containers
    left, right = container.lines[2][0].get_segments()[0][:, 0]
    assert 0 < left < 0.1 and right == pytest.approx(3)
