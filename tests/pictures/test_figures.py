"""Text in figures is drawn as it is written, however odd or long; a picture appears, without a warning."""

import copy
import json
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from sact_det.classification.accuracy_plot import Point, draw_accuracy
from sact_det.experiments.plots import draw_quality, draw_units
from sact_det.pictures.figures import new_figure, save_figure, wrapped
from sact_det.pictures.style import Style

RESULTS = json.loads((Path(__file__).parents[2] / "docs/results/bccd.json").read_text())
ODD = ["$\\frac{", "a_b^c $x$", "\\alpha %", "ünïcödé 漢字 \U0001f98a", "x" * 500, "many words " * 100, ""]


def pixels(figure, path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_figure(lambda: figure, path)
    return cv2.imread(str(path))


@pytest.mark.parametrize("text", ODD)
def test_any_title_and_name_can_be_drawn(text, tmp_path):
    results = copy.deepcopy(RESULTS)
    results["title"] = results["rows"][1]["name"] = text
    for index, draw in enumerate((draw_quality, draw_units)):
        assert pixels(draw(results), tmp_path / f"{index}.png").std() > 0
    points = [Point(text or "a", 64, 1e9, 1e8, 0.5), Point("b", 96, 9e9, 1e8, 0.6)]
    assert pixels(draw_accuracy(points, text), tmp_path / "sweep.png").std() > 0


@pytest.mark.parametrize("draw", [draw_quality, draw_units])
def test_many_rows_look_different_and_their_names_are_below(draw):
    row = next(row for row in RESULTS["rows"] if row["runs"][0]["halting"] != "none")
    rows = [{"name": f"row {number}", "runs": row["runs"][:1]} for number in range(14)]
    figure = draw({**RESULTS, "rows": rows})
    lines = [line for line in figure.axes[-1].lines if line.get_marker() != "|"]  # the ends of bars
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"row {number}" for number in range(14)]
    assert len(looks) == 14 and figure.axes[0].get_legend() is None
    few = draw_quality({**RESULTS, "rows": rows[:2]})
    assert not few.legends and len(few.axes[0].get_legend().get_texts()) == 2


def test_dollars_and_underscores_are_no_formula(tmp_path):
    """As a formula, both would be the same picture."""
    pictures = []
    for number, title in enumerate(("$a_1$", "$a_{1}$")):
        figure = draw_accuracy([Point("m", 64, 1e9, 0, 0.5)], title)
        assert figure.axes[0].get_title() == title
        pictures.append(pixels(figure, tmp_path / f"{number}.png"))
    assert not np.array_equal(*pictures)


def test_results_without_a_number_leave_a_gap(tmp_path):
    results = copy.deepcopy(RESULTS)
    results["rows"][0]["runs"][0]["results"]["bbox"]["AP"] = None
    assert pixels(draw_quality(results), tmp_path / "a.png").std() > 0


def test_long_text_is_wrapped_and_cut_after_three_lines():
    assert wrapped("short", 10) == "short"
    lines = wrapped("word " * 50, 20).split("\n")
    assert len(lines) == 3 and all(len(line) <= 20 for line in lines) and lines[-1].endswith("…")


def a_figure():
    figure = new_figure(3, 2, dpi=100)
    figure.add_subplot(title="a title", xlabel="x").plot([0, 1], [1, 2])
    return figure


def test_a_figure_is_written_in_every_format_the_same_each_time(tmp_path):
    for form, begins in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
        for name in ("once", "again"):
            save_figure(a_figure, tmp_path / name, Style(form, dpi=200))
        content = (tmp_path / "once").read_bytes()
        assert content.startswith(begins) and content == (tmp_path / "again").read_bytes()
        if form == "png":
            with Image.open(tmp_path / "once") as image:
                assert image.size == (600, 400)


def test_the_font_of_a_figure_is_as_large_as_asked_for_and_only_there(tmp_path):
    drawn = []

    def draw():
        drawn.append(a_figure())
        return drawn[-1]

    for size in (None, 20):
        save_figure(draw, tmp_path / "a.png", Style(font_size=size))
    first, second = (figure.axes[0].xaxis.label.get_size() for figure in drawn)
    assert (first, second) == (10, 20)
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (300, 200)  # a figure has its own dots per inch where the style says none
