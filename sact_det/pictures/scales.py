"""Colour scales, as the original program has them: a map's own extremes, or the 0.1 and 99.9 percentiles of a set."""

import numpy as np

from sact_det.pictures.style import Limits

PERCENTILES = (0.1, 99.9)

_BIN = 1e-3  # of the histogram, in units of ponder cost


def one_value(low: float, high: float) -> bool:
    """Whether the two are one value but for float32 rounding."""
    return high - low <= 1e-5 * max(abs(low), abs(high))


def widened(low: float, high: float) -> Limits:
    """(low, high), or value -+ 0.5 where the two are one value but for float32 rounding."""
    return (low - 0.5, high + 0.5) if one_value(low, high) else (low, high)


def map_limits(ponder_map: np.ndarray) -> Limits:
    """(minimum, maximum) of a map, or value -+ 0.5 around a constant one."""
    return widened(float(ponder_map.min()), float(ponder_map.max()))


def is_flat(ponder_map: np.ndarray) -> bool:
    """Whether a map has one value: then a colour bar would say nothing."""
    return one_value(float(ponder_map.min()), float(ponder_map.max()))


class SharedLimits:
    """Collects ponder maps for one colour scale; what is kept of them is a histogram of their values."""

    def __init__(self) -> None:
        self._counts = np.zeros(0, dtype=np.int64)

    def add(self, ponder_map: np.ndarray) -> None:
        """Takes a ponder map, float [H, W], non-negative."""
        bins = np.rint(np.asarray(ponder_map, dtype=np.float64).ravel() / _BIN).astype(np.int64)
        counts = np.bincount(bins, minlength=len(self._counts))
        counts[: len(self._counts)] += self._counts
        self._counts = counts

    @property
    def flat(self) -> bool:
        """Whether all maps have the same one value, to 0.001 units."""
        return int(np.count_nonzero(self._counts)) <= 1

    def limits(self) -> Limits:
        """The 0.1 and 99.9 percentiles of all values of all maps, to 0.001 units.

        Raises:
            ValueError: nothing was added.
        """
        if not self._counts.any():
            raise ValueError("the set of ponder maps is empty: there are no limits")
        cumulative = np.cumsum(self._counts)
        low, high = (
            float(np.searchsorted(cumulative, percent / 100 * (cumulative[-1] - 1), side="right")) * _BIN
            for percent in PERCENTILES
        )
        return widened(low, high)
