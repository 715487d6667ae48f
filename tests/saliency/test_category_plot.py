"""Twenty categories, as CAT2000 has, are one figure: every mean and interval, a panel for every metric."""

import numpy as np
import pytest
from cat2000_folder import write_cat2000_folder

from saliency.cat2000 import CATEGORIES, read_cat2000
from saliency.category_plot import draw_categories
from saliency.center import CenterBaseline
from saliency.evaluation import evaluate
from saliency.methods import GIVEN_MAP, Model, Settings
from saliency.page import saliency_section
from saliency.pictures import CATEGORIES as FILE
from saliency.pictures import write_pictures
from saliency.postprocess import PostProcessing
from saliency.report import as_dict, write_report
from saliency.scores import PROTOCOLS
from saliency.search import Grid


def noise(name):
    return np.random.default_rng(len(name)).random((9, 16))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    root = write_cat2000_folder(tmp_path_factory.mktemp("set"), sorted(CATEGORIES), (1, 2, 3, 4, 5))
    protocol = PROTOCOLS["tuebingen"]
    settings = Settings(
        Grid((0, 2), (0, 1)), CenterBaseline(), protocol.tuned_for, protocol.metrics, 4.0, 1, "tuebingen"
    )
    models = [Model("a network $", noise, PostProcessing()), Model("maps", noise, PostProcessing(), GIVEN_MAP, True)]
    dataset = read_cat2000(root)
    return evaluate(dataset, models, dataset.halves(), settings)


def test_the_figure_has_every_mean_and_interval(evaluated):
    results = {"title": "Noise", **as_dict(evaluated)}
    figure = draw_categories(results)
    metrics = ["auc", *(name for name in results["metrics"] if name != "auc")]
    assert len(figure.axes) == len(metrics) == 7
    shown = [results["rows"][0], *(row for row in results["rows"] if row["map"] in ("with centre", "as given"))]
    for name, axes in zip(metrics, figure.axes):
        labels = ["all (60)", *(f"{category} (3)" for category in sorted(CATEGORIES))]
        assert axes.yaxis.get_major_formatter().format_ticks(axes.get_yticks()) == labels
        assert len(axes.containers) == len(shown) == 3
        for bars, row in zip(axes.containers, shown):
            found = [row["overall"][name], *(row["categories"][category][name] for category in sorted(CATEGORIES))]
            assert bars.lines[0].get_xdata() == pytest.approx([one["mean"] for one in found])
            ends = np.array([segment[:, 0] for segment in bars.lines[2][0].get_segments()])
            assert ends == pytest.approx(np.array([[one["low"], one["high"]] for one in found]))


def test_picture_and_report_show_all_of_them(evaluated, tmp_path):
    write_report(tmp_path, evaluated, "Noise", {})
    write_pictures(tmp_path, evaluated, "Noise", photographs=False)
    assert (tmp_path / f"{FILE}.png").read_bytes().startswith(b"\x89PNG")
    bars = [part for part in saliency_section(tmp_path).parts if part.kind == "bars"]
    assert [chart.x_label for chart in bars] == ["AUC", "IG", "sAUC", "NSS", "CC", "KL", "SIM"]
    overall = evaluated.intervals["Social"][0]["nss"]
    chart, place = bars[3], sorted(CATEGORIES).index("Social")
    name = "centre baseline, fitted to the other images"
    assert chart.categories[place] == "Social" and chart.series[name][place] == overall.mean
    assert chart.intervals[name][place] == (overall.low, overall.high)
