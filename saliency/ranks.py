"""Where the values of a map lie among a few thresholds, exactly and without sorting the map.

An ROC curve needs the ranks of the fixated values only: some hundred out of two million. OpenCV puts the values into
65,536 bins: one below all thresholds, one above, equal ones between. Whole bins lie between two thresholds; only the
bins that hold a threshold (about one pixel in a hundred) are looked at value by value. Where these are many, because
the map has few distinct values, each is compared with the few thresholds of its bin; else they are sorted.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np

from sact_det.base.errors import InputError

_BINS = 1 << 16
_UNDECIDED = _BINS - 1  # in the table of bins: this bin holds a threshold
_CHUNK = 1 << 16  # values worked on at once, so that they stay in the processor's cache
_WORTH_BINNING = 1 << 15  # values; fewer are sorted sooner
_WORTH_A_THREAD = 1 << 18  # values
_WORTH_COMPARING = 1 << 13  # undecided values; fewer are sorted sooner
_FEW = 4  # thresholds of a bin that values are compared with
_FARTHEST = 2.0**30  # bins; OpenCV makes integers of them


def _looks_up_16_bits() -> bool:
    """Whether this OpenCV's LUT takes more than 8 bits (5.0 does)."""
    indices = np.array([[7, _BINS - 1]], np.uint16)
    try:
        return bool((cv2.LUT(indices, np.arange(_BINS, dtype=np.uint16)) == indices).all())
    except cv2.error:
        return False


_LOOKS_UP_16_BITS = _looks_up_16_bits()


def step_sum(values: np.ndarray, thresholds: np.ndarray, heights: np.ndarray) -> int:
    """The sum over all values of a step function: heights[number of thresholds <= value].

    Uses as many threads as OpenCV (cv2.setNumThreads), if there are values enough.

    Args:
        values: float32 or float64 [n], contiguous, n >= 1.
        thresholds: of the same dtype, [T], ascending, all different and finite, T >= 1.
        heights: integers >= 0, [T + 1].

    Returns:
        The sum, exact.

    Raises:
        InputError: a value is NaN or infinite.
    """
    binning = _Binning(thresholds)
    if values.size < _WORTH_BINNING or heights.max() >= _UNDECIDED or not binning.usable:
        return _by_sorting(values, thresholds, heights)
    table = binning.table(heights)
    parts = np.array_split(values, max(1, min(cv2.getNumThreads(), values.size // _WORTH_A_THREAD)))
    if len(parts) == 1:
        results = [_table_sum(values, binning, table)]
    else:
        with ThreadPoolExecutor(len(parts)) as threads:
            results = list(threads.map(lambda part: _table_sum(part, binning, table), parts))
    near, bins = (np.concatenate([result[part] for result in results]) for part in (1, 2))
    total = sum(result[0] for result in results) - near.size * _UNDECIDED
    if near.size >= _WORTH_COMPARING:
        compared, near = _by_comparing(near, bins, binning, heights)
        total += compared
    return total + _by_sorting(near, thresholds, heights)


def _by_comparing(
    near: np.ndarray, bins: np.ndarray, binning: "_Binning", heights: np.ndarray
) -> tuple[int, np.ndarray]:
    """The sum over the values whose bin holds no more than _FEW thresholds, and the other values."""
    number, first, held = binning.held(near.dtype)
    which = number.take(bins)
    below = first.take(which)
    left = near[:0]
    if first.min() < 0:
        crowded = below < 0
        left, near, which, below = near[crowded], near[~crowded], which[~crowded], below[~crowded]
    for of_bin in held:
        below += near >= of_bin.take(which)
    counts = np.bincount(below, minlength=len(heights))
    return int(counts @ heights.astype(np.int64)), left


def _by_sorting(values: np.ndarray, thresholds: np.ndarray, heights: np.ndarray) -> int:
    if not values.size:
        return 0
    ascending = np.sort(values)  # NaN comes last
    _check_finite(ascending[0], ascending[-1])
    first = np.searchsorted(ascending, thresholds, side="left")
    counts = np.diff(first, prepend=0, append=values.size)
    return int(counts.astype(np.int64) @ heights.astype(np.int64))


def _check_finite(lowest: float, highest: float) -> None:
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise InputError("`saliency_map` must be finite; it holds NaN or infinity")


def _table_sum(values: np.ndarray, binning: "_Binning", table: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """The sum of the values' entries in the table, the values that it leaves undecided, and their bins."""
    bins, steps = np.empty((2, 1, _CHUNK), np.uint16)
    is_undecided = np.empty(_CHUNK, bool)
    total, undecided, their_bins = 0, [], []
    for start in range(0, values.size, _CHUNK):
        chunk = values[start : start + _CHUNK]
        highest = chunk.max()  # NaN if a value is
        _check_finite(chunk.min(), highest)
        if highest > binning.farthest:
            chunk = np.minimum(chunk, binning.farthest)
        of_chunk = binning.bins(chunk, bins[:, : chunk.size])
        here = _looked_up(of_chunk, table, steps[:, : chunk.size])
        total += int(cv2.sumElems(here)[0])  # exact: a double, and the sum of a chunk is at most 2**32
        where = np.flatnonzero(np.equal(here[0], _UNDECIDED, out=is_undecided[: chunk.size]))
        undecided.append(chunk[where])
        their_bins.append(of_chunk[0][where])
    return total, np.concatenate(undecided), np.concatenate(their_bins)


def _looked_up(bins: np.ndarray, table: np.ndarray, out: np.ndarray) -> np.ndarray:
    """table[bins], uint16 [1, n], written to `out`."""
    return cv2.LUT(bins, table, dst=out) if _LOOKS_UP_16_BITS else table.take(bins, out=out, mode="clip")


class _Binning:
    """Equal bins from 1, which holds the first threshold, to 65,534, which holds the last; what lies beyond is in the
    end bins, 0 and 65,535.

    Values are scaled and rounded by OpenCV, which may treat equal values differently by the rounding errors of one
    product and one sum, less than `margin`.

    Attributes:
        usable: the thresholds differ, by a number that can be divided by.
        farthest: far above all thresholds; OpenCV makes integers of the bins of values up to it. Those far below come
            into bin 0.
    """

    def __init__(self, thresholds: np.ndarray):
        low, high = map(float, thresholds[[0, -1]])
        limits = np.finfo(thresholds.dtype)
        self.usable = float(limits.tiny) * _BINS < high - low < float(limits.max) / _BINS
        if not self.usable:
            return
        self._thresholds = thresholds.astype(np.float64)
        self._low = thresholds[0]
        self._scale = (_BINS - 3) / (high - low)
        self._shift = 1 - low * self._scale
        self.farthest = min(high + _FARTHEST / self._scale, float(limits.max))
        margin = 4 * float(limits.eps) * (_BINS + abs(self._shift))
        # A difference is rounded less than a product so much larger than the bins.
        self._subtracts = margin > 0.25
        if self._subtracts:
            margin = 4 * float(limits.eps) * _BINS
        exact = 1 + (self._thresholds - low) * self._scale
        # The first and the last bin that a value equal to each threshold may be in; they are neighbours at most.
        self._lower, self._upper = np.rint([exact - margin, exact + margin]).astype(np.intp)

    def held(self, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """A number for every bin that may hold a threshold; how many thresholds lie below each of these bins, -1 if it
        holds more than _FEW; and the thresholds of each.

        Returns:
            uint16 [_BINS]; int64 [bins with a number]; arrays of `dtype` of that length, each with one threshold of
            every bin, inf where there is none.
        """
        bins = np.unique([self._lower, self._upper])
        number = np.zeros(_BINS, np.uint16)
        number[bins] = np.arange(len(bins))
        first = np.searchsorted(self._upper, bins, side="left")
        last = np.searchsorted(self._lower, bins, side="right")
        padded = np.append(self._thresholds, np.inf).astype(dtype)
        most = min(int((last - first).max()), _FEW)
        held = [padded[np.where(first + step < last, first + step, len(padded) - 1)] for step in range(most)]
        return number, np.where(last - first > _FEW, -1, first), held

    def table(self, heights: np.ndarray) -> np.ndarray:
        """The height of every bin, uint16 [_BINS]; _UNDECIDED where a value may equal a threshold."""
        table = np.repeat(heights.astype(np.uint16), np.diff(self._lower, prepend=0, append=_BINS))
        table[self._lower] = table[self._upper] = _UNDECIDED
        return table

    def bins(self, values: np.ndarray, out: np.ndarray) -> np.ndarray:
        """uint16 [1, n], of [n] values."""
        if self._subtracts:
            row: Any = (values - self._low)[None]
            return cv2.addWeighted(row, self._scale, row, 0, 1, dst=out, dtype=cv2.CV_16U)
        row = values[None]
        return cv2.addWeighted(row, self._scale, row, 0, self._shift, dst=out, dtype=cv2.CV_16U)
