"""How sure a mean over images is: bootstrap confidence intervals."""

from dataclasses import dataclass

import numpy as np

from sact_det.base.errors import InputError

LEVEL = 0.95
RESAMPLES = 10_000
_SEED = 0
_BATCH = 1_000_000  # numbers drawn at once


@dataclass(frozen=True)
class Interval:
    """A mean over so many images, and the interval from `low` to `high` that holds it with probability LEVEL."""

    mean: float
    low: float
    high: float
    images: int


def bootstrap_intervals(values: np.ndarray) -> list[Interval]:
    """The percentile interval of the mean of every column (Efron 1979): images drawn with replacement, RESAMPLES times.

    Args:
        values: [n, k], a row for each image, finite; the same images are drawn for all columns, and in every call.

    Raises:
        InputError: there are no values, or one is not finite.
    """
    values = np.asarray(values, np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise InputError("an interval needs at least one value, all of them finite")
    rng, number = np.random.default_rng(_SEED), len(values)
    rows = max(1, _BATCH // number)
    means = [
        _drawn_counts(rng, min(rows, RESAMPLES - start), number) @ values / number
        for start in range(0, RESAMPLES, rows)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    ends = zip(values.mean(axis=0).tolist(), low.tolist(), high.tolist())
    return [Interval(mean, bottom, top, number) for mean, bottom, top in ends]


def _drawn_counts(rng: np.random.Generator, rows: int, number: int) -> np.ndarray:
    """How often each of so many images is drawn in each of so many resamples: float64 [rows, number]."""
    drawn = rng.integers(number, size=(rows, number)) + number * np.arange(rows)[:, None]
    return np.bincount(drawn.reshape(-1), minlength=rows * number).reshape(rows, number).astype(np.float64)
