"""How sure a mean over images is: bootstrap confidence intervals."""

from dataclasses import dataclass
from typing import Any

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


def as_numbers(interval: dict[str, Any]) -> dict[str, float]:
    """An `Interval` of a JSON file, in which infinite numbers are texts."""
    return {key: float(value) for key, value in interval.items()}


def bootstrap_intervals(values: np.ndarray) -> list[Interval]:
    """The percentile interval of the mean of every column (Efron 1979): images drawn with replacement, RESAMPLES times.

    Args:
        values: [n, k], a row for each image; the same images are drawn for all columns, and in every call. Finite, or
            -inf: what the images are drawn from has this mean then, too, and the interval is -inf alone.

    Raises:
        InputError: there are no values, or one is NaN or +inf.
    """
    values = np.asarray(values, np.float64)
    if values.size == 0 or not (values < np.inf).all():
        raise InputError("an interval needs at least one value, all of them finite (or -inf)")
    without_end = np.isneginf(values).any(axis=0)
    finite = np.where(without_end, 0, values)
    rng, number = np.random.default_rng(_SEED), len(values)
    rows = max(1, _BATCH // number)
    means = [
        _drawn_counts(rng, min(rows, RESAMPLES - start), number) @ finite / number
        for start in range(0, RESAMPLES, rows)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    found = np.where(without_end, -np.inf, [finite.mean(axis=0), low, high])
    return [Interval(mean, bottom, top, number) for mean, bottom, top in found.T.tolist()]


def _drawn_counts(rng: np.random.Generator, rows: int, number: int) -> np.ndarray:
    """How often each of so many images is drawn in each of so many resamples: float64 [rows, number]."""
    drawn = rng.integers(number, size=(rows, number)) + number * np.arange(rows)[:, None]
    return np.bincount(drawn.reshape(-1), minlength=rows * number).reshape(rows, number).astype(np.float64)
