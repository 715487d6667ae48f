"""Sums of steps over a map are exact, whatever its values are like: compared with a search for every value."""

import numpy as np
import pytest

from sact_det.base.errors import InputError
from saliency.ranks import step_sum

SIZE = 70_000  # more than one chunk

MAPS = {
    "noise": lambda rng: rng.random(SIZE),
    "two values": lambda rng: rng.integers(0, 2, SIZE),
    "few values": lambda rng: rng.integers(0, 90, SIZE) / 7,
    "far from 0": lambda rng: rng.normal(1000, 1e-2, SIZE),
    "over many orders of magnitude": lambda rng: np.exp(rng.normal(0, 15, SIZE)),
    "half of it in one bin": lambda rng: np.where(rng.random(SIZE) < 0.5, 1e-9, 1) * rng.random(SIZE),
    "outliers beyond all integers": lambda rng: np.concatenate([rng.random(SIZE), [1e30, -1e30, 3e38, -3e38, 1e10]]),
}


def expected(values, thresholds, heights):
    return sum(heights[np.searchsorted(thresholds, values, side="right")].tolist())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("number", [1, 20, 700])
@pytest.mark.parametrize("make", MAPS.values(), ids=MAPS)
def test_the_sum_is_that_of_a_search_for_every_value(make, number, dtype):
    rng = np.random.default_rng(number)
    values = make(rng).astype(dtype)
    thresholds = np.unique(values[rng.integers(SIZE, size=number)])  # no outlier among them
    for chosen in (thresholds, thresholds[len(thresholds) // 2 :]):  # many values below, in one bin
        heights = rng.integers(0, 60_000, len(chosen) + 1)
        assert step_sum(values, chosen, heights) == expected(values, chosen, heights)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [100, SIZE])
def test_a_value_that_is_not_finite_is_refused_wherever_it_is(size, bad):
    thresholds, heights = np.array([0.25, 0.5]), np.array([3, 2, 1])
    for place in (0, size - 1):
        values = np.random.default_rng(0).random(size)
        values[place] = bad
        with pytest.raises(InputError, match="must be finite"):
            step_sum(values, thresholds, heights)
