"""Budgets spent at the best of several scales of images, on networks whose shares are known functions."""

import math

import numpy as np
import pytest

from sact_det.base.errors import InputError
from sact_det.budget.scaled_search import ScaledSearch
from sact_det.budget.search import Measured
from sact_det.budget.shifts import FAR

BLOCKS = ("block1", "block2")
SCALES = (1.0, 0.8, 0.5)
FLOOR = 0.4  # of the plain network's at any scale
RANDOM = np.random.default_rng(0)


def scaled_search(quality, scales=SCALES, judge=None, flops=lambda scale: scale**2):
    """What is open falls with the mean shift from 1 to FLOOR; FLOPs at a scale are as many as it has pixels, mostly."""

    def measure(shifts, scale):
        open_share = 1 / (1 + math.exp(min(float(np.mean(list(shifts.values()))), 700)))
        share = FLOOR + (1 - FLOOR) * open_share
        return Measured(flops(scale) * share, 0.0, quality(scale, share))

    return ScaledSearch(BLOCKS, measure, scales, judge)


def spent(search, *budgets):
    found = []
    for budget in budgets:
        search.check(budget)
        own = search.best(budget, 0, RANDOM, lambda ways: None)
        assert own.shifts.keys() == set(BLOCKS) and all(map(math.isfinite, own.shifts.values()))
        found.append((own.scale, round(own.measured.flops, 2)))
    return found


def test_where_halting_costs_nothing_images_stay_whole_as_long_as_they_can():
    search = scaled_search(lambda scale, share: scale)
    assert spent(search, 1.0, 0.7, 0.4) == [(1.0, 1.0), (1.0, 0.7), (1.0, 0.4)]
    assert spent(search, 0.3) == [(0.8, 0.3)]  # whole images take 0.4 at least


def test_where_halting_costs_more_than_pixels_images_are_so_large_that_the_plain_network_spends_the_budget():
    search = scaled_search(lambda scale, share: share)
    assert spent(search, 1.0, 0.7, 0.5, 0.26) == [(1.0, 1.0), (0.83, 0.69), (0.71, 0.5), (0.51, 0.26)]
    own = search.best(0.26, 0, RANDOM, lambda ways: None)
    assert set(own.shifts.values()) == {-FAR}


def test_smaller_images_that_would_leave_a_part_of_the_budget_are_not_tried():
    search = scaled_search(lambda scale, share: share - 2 * (scale != 0.8))
    assert spent(search, 0.7, 0.64) == [(0.83, 0.69), (0.8, 0.64)]


def test_a_row_of_positions_for_a_row_of_pixels_is_not_bought():
    def flops(scale):  # of 100 pixels: half of them in a map of the same size, half in one with a stride of 16
        return (scale**2 + (math.ceil(round(100 * scale) / 16) / 7) ** 2) / 2

    search = scaled_search(lambda scale, share: scale - 10 * (1 - share), (0.5,), flops=flops)
    assert flops(0.9) < 0.775 < flops(0.91) and flops(0.81) < 0.7 < flops(0.82)
    assert [scale for scale, _ in spent(search, 0.775, 0.7)] == [
        0.9,
        0.8,
    ]  # not 0.81


def test_below_the_smallest_images_something_halts():
    search = scaled_search(lambda scale, share: share)
    assert spent(search, 0.2) == [(0.5, 0.2)]


def test_without_scales_images_stay_whole():
    search = scaled_search(lambda scale, share: scale - 10 * (share < 1), scales=())
    assert spent(search, 0.7) == [(1.0, 0.7)] and search.ways(3) == 4


def test_what_spends_a_budget_is_judged_and_nothing_else():
    judged = []

    def judge(shifts, scale):
        judged.append(scale)
        return Measured(0.5, 0.1, 1.0 if scale == 0.71 else 0.0)

    search = scaled_search(lambda scale, share: share, judge=judge)
    own = search.best(0.5, 0, RANDOM, lambda ways: None)
    assert own.scale == 0.71 and own.measured == (0.5, 0.1, 1.0, False)
    assert sorted(judged) == [0.71, 0.8, 1.0]


def test_a_trade_between_both_ends_where_it_is_best():
    search = scaled_search(lambda scale, share: 3 * scale - (1 - share) * 10 * (share < 0.6))
    assert spent(search, 0.65, 0.45, 0.2) == [(1.0, 0.65), (0.8, 0.45), (0.5, 0.2)]


def test_of_equals_what_takes_more_counts_and_without_a_quality_the_largest_images():
    assert spent(scaled_search(lambda scale, share: 1.0), 0.62) == [(1.0, 0.62)]
    assert spent(scaled_search(lambda scale, share: math.nan), 0.62, 0.3) == [(1.0, 0.62), (0.8, 0.3)]


def test_at_1_images_are_whole_however_good_smaller_ones_are():
    assert spent(scaled_search(lambda scale, share: -scale), 1.0) == [(1.0, 1.0)]


def test_what_no_scale_can_spend_is_refused_and_the_least_is_that_of_the_smallest_images():
    search = scaled_search(lambda scale, share: scale)
    assert search.least == pytest.approx(0.25 * FLOOR)
    with pytest.raises(InputError, match=r"budget 0\.09 cannot be reached: .* take 0\.1000 of"):
        search.check(0.09)


def test_every_candidate_of_every_scale_is_counted():
    counted = []
    for quality in (lambda scale, share: scale, lambda scale, share: share):
        search = scaled_search(quality)
        for budget in (1.0, 0.7, 0.3):
            search.best(budget, 2, RANDOM, counted.append)
    assert sum(counted) == 2 * 3 * search.ways(2) == 2 * 3 * (3 * len(SCALES) + 1)
