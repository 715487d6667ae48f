"""Metrics agree with the published definitions, written out; odd input scores as stated or is refused."""

import cv2
import numpy as np
import published_metrics as published
import pytest
from cat2000_folder import random_locations

from sact_det.base.errors import InputError
from saliency.center import CenterBaseline
from saliency.fixations import Fixations
from saliency.metrics import auc_borji, auc_judd, cc, information_gain, kld, nss, shuffled_auc, sim

SHAPE = (270, 480)  # large enough for bins rather than a sort


def case(seed, shape=SHAPE, levels=None, number=60, dtype=np.float64):
    """A map and a fixation map; with `levels`, the map has so many distinct values."""
    rng = np.random.default_rng(seed)
    values = rng.random(shape)
    if levels:
        values = np.floor(values * levels) / levels
    return values.astype(dtype), random_locations(rng, shape, number)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8])
@pytest.mark.parametrize("levels", [None, 1000, 7, 2, 1])
@pytest.mark.parametrize("shape", [(9, 16), SHAPE])
def test_auc_judd_is_the_definition_in_words_and_the_program_where_asked(shape, levels, dtype):
    values, locations = case(1, shape, levels)
    values = (255 * values).astype(dtype) if dtype == np.uint8 else values.astype(dtype)
    assert auc_judd(values, locations) == pytest.approx(published.auc_judd_words(values, locations), abs=1e-12)
    program = published.auc_judd_program(values, locations)
    assert auc_judd(values, locations, ties="program") == pytest.approx(program, abs=1e-12)
    if len(set(values[locations > 0])) == locations.sum():
        assert auc_judd(values, locations) == pytest.approx(program, abs=1e-12)


@pytest.mark.parametrize("number", [1, 2, 5])
def test_auc_judd_of_few_fixations_is_exact(number):
    values, locations = case(2, number=number)
    assert auc_judd(values, locations) == pytest.approx(published.auc_judd_program(values, locations), abs=1e-12)


def test_auc_judd_does_not_change_with_the_scale_of_the_map():
    values, locations = case(3)
    values = np.round(values * 2**20) / 2**20  # exact under what follows
    expected = auc_judd(values, locations)
    for scaled in (values * 2.0**900, values * 2.0**-900, values - 8.0, -1 / (values + 1), (values + 2**20)):
        assert auc_judd(scaled, locations) == expected


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("offset", [0, -0.5, 1e4])
def test_auc_judd_finds_one_bad_value_in_a_large_map(dtype, bad, offset):
    values, locations = case(20, dtype=dtype)
    values += dtype(offset)
    for place in (0, values.size // 2, values.size - 1):
        broken = values.copy()
        broken.reshape(-1)[place] = bad
        with pytest.raises(InputError, match="`saliency_map` must be finite"):
            auc_judd(broken, locations)


@pytest.mark.parametrize("outlier", [1e38, -1e38, 1e300, -1e300])
def test_auc_judd_of_a_map_with_an_outlier_beyond_all_integers_is_exact(outlier):
    values, locations = case(21)
    values[0, :3] = outlier
    assert auc_judd(values, locations) == pytest.approx(published.auc_judd_program(values, locations), abs=1e-12)


def test_auc_judd_is_the_same_with_threads():
    values, locations = case(22, (800, 1000))
    scores = []
    before = cv2.getNumThreads()
    for number in (1, 2, 3):
        cv2.setNumThreads(number)
        scores.append(auc_judd(values, locations))
    cv2.setNumThreads(before)
    assert len(set(scores)) == 1


def test_auc_judd_of_values_closer_than_bins_can_tell_is_exact():
    values, locations = case(4)
    values[0, 0] = 1e12  # all others share a bin
    assert auc_judd(values, locations) == pytest.approx(published.auc_judd_program(values, locations), abs=1e-12)


def test_auc_judd_of_extreme_and_subnormal_ranges_is_exact():
    values, locations = case(5)
    for scaled in ((values - 0.5) * 2 * 1.7e308, values * 1e-310):
        expected = published.auc_judd_words(scaled, locations)
        assert auc_judd(scaled, locations) == pytest.approx(expected, abs=1e-12)


def test_auc_judd_counts_each_point_but_each_pixel_of_a_map_once():
    values, _ = case(6, (9, 16))
    points = np.array([[3, 2], [3, 2], [3, 2], [10, 7], [0, 0]])  # x, y
    counts = np.zeros((9, 16), int)
    np.add.at(counts, (points[:, 1], points[:, 0]), 1)
    expected = published.auc_judd_words(values, counts, counts)
    assert auc_judd(values, points) == pytest.approx(expected, abs=1e-12)
    once = Fixations.from_points(points, (9, 16)).distinct()
    assert auc_judd(values, once) == auc_judd(values, counts) != auc_judd(values, points)


def test_auc_judd_of_many_fixations_on_a_large_map_is_exact():
    values, _ = case(7)
    points = np.stack(np.divmod(np.arange(40_000) % values.size, values.shape[1])[::-1], axis=1)
    counts = Fixations.from_points(points, values.shape).counts()  # more fixations than a 16-bit table can weigh
    fixated, others = values[counts > 0], np.sort(values[counts == 0])
    order = np.sort(fixated)[::-1]
    fp = (len(others) - np.searchsorted(others, order)) / len(others)
    tp = np.arange(1, len(order) + 1) / len(order)
    expected = np.sum(np.diff(np.r_[0, fp, 1]) * (np.r_[0, tp] + np.r_[tp, 1]) / 2)
    assert auc_judd(values, points) == pytest.approx(expected, abs=1e-12)


def test_jitter_repeats_with_its_seed_and_breaks_ties_without_moving_the_rest():
    values, locations = case(8)
    assert auc_judd(values, locations, jitter=True) == auc_judd(values, locations, jitter=True)
    assert auc_judd(values, locations, jitter=True) == pytest.approx(auc_judd(values, locations), abs=1e-5)
    constant = np.ones(SHAPE)
    scores = [auc_judd(constant, locations, jitter=True, seed=seed) for seed in range(20)]
    assert len(set(scores)) == 20 and np.mean(scores) == pytest.approx(0.5, abs=0.03)
    noise = np.random.default_rng(0).random(SHAPE) * 1e-7
    assert scores[0] == pytest.approx(published.auc_judd_program(constant + noise, locations), abs=1e-12)


def test_auc_borji_is_the_program_on_the_same_draws():
    values, locations = case(9)
    stretched = ((values - values.min()) / (values.max() - values.min())).ravel()
    fixated = stretched[locations.ravel() > 0]
    drawn = np.random.default_rng(3).integers(values.size, size=(5, len(fixated)))
    expected = np.mean([published.stepped_area(fixated, stretched[row]) for row in drawn])
    assert auc_borji(values, locations, splits=5, seed=3) == pytest.approx(expected, abs=1e-12)
    assert auc_borji(values, locations) != auc_borji(values, locations, seed=1)


def test_shuffled_auc_is_the_probability_that_a_fixation_is_the_more_salient():
    values, locations = case(10, levels=50)
    others = Fixations.from_points(np.random.default_rng(4).integers(0, 200, (300, 2)), SHAPE)
    expected = published.mann_whitney(values[locations > 0], values[others.y, others.x])
    assert shuffled_auc(values, locations, others) == pytest.approx(expected, abs=1e-12)


def test_shuffled_auc_with_splits_is_the_program_on_the_same_draws():
    values, locations = case(11)
    _, others = case(12, number=100)
    stretched = ((values - values.min()) / (values.max() - values.min())).ravel()
    fixated, where = stretched[locations.ravel() > 0], np.flatnonzero(others)
    rows = np.random.default_rng(5).permuted(np.tile(where, (4, 1)), axis=1)[:, : len(fixated)]
    expected = np.mean([published.stepped_area(fixated, stretched[row]) for row in rows])
    assert shuffled_auc(values, locations, others, splits=4, seed=5) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_nss_cc_sim_kld_and_information_gain_are_the_definitions(dtype):
    values, locations = case(13, dtype=dtype)
    double = values.astype(np.float64)
    density = Fixations.from_map(locations).density(sigma=8)
    prior = CenterBaseline().map(SHAPE)
    tolerance = 1e-10 if dtype == np.float64 else 1e-6
    pairs = [
        (nss(values, locations), published.nss(double, locations)),
        (cc(values, density), np.corrcoef(double.ravel(), density.ravel())[0, 1]),
        (sim(values, density), published.sim(double, density)),
        (sim(values, density, stretch=True), published.similarity_program(double, density)),
        (kld(values, density), published.kld(double, density)),
        (information_gain(values, locations, prior), published.information_gain(double, locations, prior)),
        (
            information_gain(values, locations, prior, stretch=True),
            published.info_gain_program(double, locations, prior),
        ),
    ]
    for ours, theirs in pairs:
        assert ours == pytest.approx(theirs, abs=tolerance)


def test_the_density_itself_scores_best():
    _, locations = case(14)
    density = Fixations.from_map(locations).density(sigma=8)
    assert cc(density, density) == pytest.approx(1, abs=1e-12)
    assert sim(density, density) == pytest.approx(1, abs=1e-12)
    assert kld(density, density) == pytest.approx(0, abs=1e-9)
    assert information_gain(density, locations, density) == 0
    assert auc_judd(density, locations) > 0.95 and nss(density, locations) > 1


def test_a_map_without_contrast_scores_as_no_information():
    _, locations = case(15)
    density = Fixations.from_map(locations).density(sigma=8)
    uniform = np.ones(SHAPE) / np.prod(SHAPE)
    for constant in (np.full(SHAPE, 3.0), np.zeros(SHAPE)):
        assert auc_judd(constant, locations) == auc_borji(constant, locations) == 0.5
        assert shuffled_auc(constant, locations, locations) == 0.5
        assert shuffled_auc(constant, locations, locations, splits=3) == 0.5
        assert nss(constant, locations) == cc(constant, density) == 0
        assert sim(constant, density) == pytest.approx(published.sim(uniform, density))
        assert kld(constant, density) == pytest.approx(published.kld(uniform, density))
        assert information_gain(constant, locations, uniform) == pytest.approx(0, abs=1e-12)


def test_arguments_stay_as_they_are():
    values, locations = case(16)
    density = Fixations.from_map(locations).density(sigma=8)
    before = values.copy(), density.copy()
    auc_judd(values, locations, jitter=True), nss(values, locations), cc(values, density), kld(values - 1, density)
    assert (values == before[0]).all() and (density == before[1]).all()


FIXATION_METRICS = {
    "auc_judd": auc_judd,
    "auc_borji": auc_borji,
    "shuffled_auc": lambda values, fixations: shuffled_auc(values, fixations, fixations),
    "nss": nss,
    "information_gain": lambda values, fixations: information_gain(values, fixations, np.ones((9, 16))),
}
DENSITY_METRICS = {"cc": cc, "sim": sim, "kld": kld}


@pytest.mark.parametrize("metric", FIXATION_METRICS.values(), ids=FIXATION_METRICS)
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda values, where: (np.where(values > 0.5, np.nan, values), where), "must be finite"),
        (lambda values, where: (np.where(values > 0.5, np.inf, values), where), "must be finite"),
        (lambda values, where: (values[None], where), r"numbers \[H, W\]"),
        (lambda values, where: (values.astype(str), where), r"numbers \[H, W\]"),
        (lambda values, where: (values[:5], where), "16x9 pixels and the saliency map has 16x5; resize"),
        (lambda values, where: (values, np.zeros_like(where)), "empty"),
        (lambda values, where: (values, np.zeros((0, 2))), "empty"),
        (lambda values, where: (values, [[16, 0]]), "1 of 1 fixations lie outside the image of 16x9"),
        (lambda values, where: (values, [[-1, 0]]), "outside"),
        (lambda values, where: (values, [[np.nan, 0]]), "finite"),
    ],
)
def test_metrics_of_fixations_refuse_what_they_cannot_use(metric, edit, message):
    values, locations = case(17, (9, 16), number=5)
    with pytest.raises(InputError, match=message) as error:
        metric(*edit(values, locations))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("metric", DENSITY_METRICS.values(), ids=DENSITY_METRICS)
def test_metrics_of_densities_refuse_what_they_cannot_use(metric):
    values, _ = case(18, (9, 16))
    with pytest.raises(InputError, match="`density` has 16x5 pixels and the saliency map has 16x9; resize"):
        metric(values, values[:5])
    with pytest.raises(InputError, match="`density` must be finite"):
        metric(values, np.full_like(values, np.inf))
    with pytest.raises(InputError, match="`saliency_map` must be finite"):
        metric(np.full_like(values, np.nan), values)


def test_parameters_out_of_range_are_refused():
    values, locations = case(19, (9, 16), number=5)
    with pytest.raises(InputError, match="`ties` must be one of roc, program; got 'max'"):
        auc_judd(values, locations, ties="max")
    with pytest.raises(InputError, match="every pixel is fixated"):
        auc_judd(values, np.ones((9, 16)))
    with pytest.raises(InputError, match="`splits` must be at least 1; got 0"):
        auc_borji(values, locations, splits=0)
    with pytest.raises(InputError, match=r"`step` must lie in \(0, 1\]; got 0"):
        shuffled_auc(values, locations, locations, splits=1, step=0)
