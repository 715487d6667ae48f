"""The grid search finds what a plain loop finds, in the paper's protocol, with one process or several."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from cat2000_folder import REAL, write_cat2000_folder
from scipy.stats import bootstrap

from sact_det.base.errors import InputError
from saliency.cat2000 import read_cat2000
from saliency.center import CenterBaseline
from saliency.intervals import bootstrap_intervals
from saliency.metrics import auc_judd
from saliency.postprocess import PostProcessing
from saliency.scores import METRICS, Reference, score_maps
from saliency.search import Grid, GridPoint, GridScores, grid_scores

GRID = Grid((0, 2, 6), (0, 0.5, np.inf))


def ponder_map(name, shape=(9, 16)):
    """A map that depends on the name."""
    return np.random.default_rng(sum(name.encode())).uniform(8, 40, shape).astype(np.float32)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return read_cat2000(write_cat2000_folder(tmp_path_factory.mktemp("cat2000")))


def plain_loop(dataset, chain, metric="auc_judd"):
    return [
        [
            [
                METRICS[metric].of(
                    replace(chain, sigma=s, multiplier=m)(ponder_map(image.name), image.shape), Reference(dataset, i)
                )
                for m in GRID.multipliers
            ]
            for s in GRID.sigmas
        ]
        for i, image in enumerate(dataset)
    ]


@pytest.mark.parametrize("blur_at", ["image", "map"])
@pytest.mark.parametrize("metric", METRICS)
def test_the_grid_has_the_scores_of_a_plain_loop(dataset, blur_at, metric):
    chain = PostProcessing(blur_at=blur_at, center=CenterBaseline("isotropic"))
    scores = grid_scores(dataset, ponder_map, chain, GRID, metric=metric)
    assert scores.values == pytest.approx(np.array(plain_loop(dataset, chain, metric)), abs=1e-12)


def test_processes_do_not_change_the_scores(dataset):
    maps = partial(ponder_map, shape=(18, 32))
    one, two = (grid_scores(dataset, maps, PostProcessing(), GRID, processes=number) for number in (1, 2))
    assert (one.values == two.values).all()


def test_a_metric_that_is_better_when_low_is_minimised():
    values = np.array([[[3.0, 1.0], [2.0, 5.0]]])
    grid = Grid((1, 2), (1, 2))
    assert GridScores(grid, "kld", values).best() == GridPoint(1, 2, 1.0)
    assert GridScores(grid, "nss", values).best() == GridPoint(2, 2, 5.0)


def test_of_equal_points_the_least_blurred_and_centred_is_chosen():
    assert GridScores(GRID, "nss", np.ones((2, 3, 3))).best() == GridPoint(0, 0, 1.0)


@pytest.mark.parametrize(
    ("sigma", "multiplier", "notices"),
    [
        (2, 0.5, []),
        (6, 0.5, ["the best sigma, 6, lies on the edge of the grid: a wider grid may hold a better one"]),
        (0, 0.5, ["the best sigma, 0, lies on the edge of the grid: which is the end of its range"]),
        (2, np.inf, ["the best multiplier, inf, lies on the edge of the grid: which is the end of its range"]),
    ],
)
def test_an_optimum_on_the_edge_of_the_grid_is_said(sigma, multiplier, notices):
    scores = GridScores(GRID, "nss", np.zeros((1, 3, 3)))
    assert scores.edge_notices(GridPoint(sigma, multiplier, 0.0)) == notices


def test_an_axis_with_one_value_has_no_edge():
    grid = Grid((3,), (1, 2, 3))
    assert GridScores(grid, "nss", np.zeros((1, 1, 3))).edge_notices(GridPoint(3, 2, 0.0)) == []


def test_the_mit_grid_has_99_points_from_no_centre_to_the_centre_alone():
    grid = Grid.mit()
    assert (len(grid.sigmas), len(grid.multipliers)) == (9, 11)
    assert grid.multipliers[0] == 0 and grid.multipliers[5] == 1 and np.isinf(grid.multipliers[-1])


@pytest.mark.parametrize(
    ("sigmas", "multipliers", "message"),
    [
        ((), (1,), "`sigmas` of a grid must ascend"),
        ((2, 1), (1,), "`sigmas` of a grid must ascend"),
        ((1, np.nan), (1,), "`sigmas` of a grid must ascend"),
        ((1, np.inf), (1,), "`sigmas` of a grid must be finite"),
        ((1,), (-1, 1), "`multipliers` of a grid must ascend"),
    ],
)
def test_a_grid_must_ascend(sigmas, multipliers, message):
    with pytest.raises(InputError, match=message):
        Grid(sigmas, multipliers)


def broken_map(name):
    return ponder_map(name) if name != "Action/004" else np.full((9, 16), np.nan)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_bad_map_ends_the_search_and_is_named(dataset, processes):
    with pytest.raises(InputError, match="Action/004: a map must be finite"):
        grid_scores(dataset, broken_map, PostProcessing(), GRID, processes=processes)


def test_arguments_out_of_range_are_refused(dataset):
    with pytest.raises(InputError, match=r"`metric` must be one of auc_judd, .*; got 'emd'"):
        grid_scores(dataset, ponder_map, PostProcessing(), GRID, metric="emd")
    with pytest.raises(InputError, match="`processes` must be at least 1; got 0"):
        grid_scores(dataset, ponder_map, PostProcessing(), GRID, processes=0)


def test_several_maps_are_scored_by_all_metrics(dataset):
    truth = Reference(dataset, 0)
    maps = np.random.default_rng(0).random((3, *dataset[0].shape))
    scores = score_maps(maps, truth)
    assert scores.shape == (3, len(METRICS))
    assert scores[1].tolist() == [metric.of(maps[1], truth) for metric in METRICS.values()]


def test_the_negatives_of_shuffled_auc_are_the_fixations_of_the_other_images(dataset):
    expected = sum(len(image.fixations) for image in dataset) - len(dataset[3].fixations)
    assert len(Reference(dataset, 3).other_fixations) == expected


def test_the_bootstrap_interval_is_scipys():
    values = np.random.default_rng(0).normal(0.8, 0.1, 200)
    (ours,) = bootstrap_intervals(values[:, None])
    theirs = bootstrap((values,), np.mean, n_resamples=10_000, method="percentile").confidence_interval
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=2e-3)
    assert [ours] == bootstrap_intervals(values[:, None])
    assert ours.mean == pytest.approx(values.mean()) and ours.low < ours.mean < ours.high
    assert bootstrap_intervals([[0.5]])[0].low == 0.5
    with pytest.raises(InputError, match="at least one value"):
        bootstrap_intervals([])


@pytest.mark.skipif(not REAL.is_dir(), reason=f"needs the OSIE fixations in {REAL}")
def test_on_real_fixations_the_centre_baseline_predicts_better_than_chance():
    dataset = read_cat2000(REAL).subset(range(0, 350, 35))
    scores = [auc_judd(CenterBaseline().map(image.shape), image.fixations) for image in dataset]
    assert 0.65 < np.mean(scores) < 0.85
