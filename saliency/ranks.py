"""Where the values of a map lie among a few thresholds, exactly and without sorting the map.

An ROC curve needs the ranks of the fixated values only: some hundred out of two million. The values are put into
65,536 equal bins by a function that never decreases, so that whole bins lie between two thresholds; only the bins that
hold a threshold (about one pixel in a hundred) are looked at value by value.
"""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from sact_det.errors import InputError

_BINS = 1 << 16
_UNDECIDED = _BINS - 1  # in the table of bins: this bin holds a threshold
_CHUNK = 1 << 15  # values worked on at once, so that they stay in the processor's cache
_WORTH_BINNING = 1 << 15  # values; fewer are sorted sooner
_WORTH_A_THREAD = 1 << 18  # values

Buffers = tuple[np.ndarray, np.ndarray]


def step_sum(values: np.ndarray, thresholds: np.ndarray, heights: np.ndarray) -> int:
    """The sum over all values of a step function: heights[number of thresholds <= value].

    Uses as many threads as OpenCV (cv2.setNumThreads), if there are values enough.

    Args:
        values: float32 or float64 [n], contiguous.
        thresholds: of the same dtype, [T], ascending, all different and finite, T >= 1.
        heights: integers >= 0, [T + 1].

    Returns:
        The sum, exact.

    Raises:
        InputError: a value is NaN or infinite.
    """
    binning = _Binning(thresholds)
    if values.size < _WORTH_BINNING or heights.max() >= _UNDECIDED or not binning.usable:
        _check_finite(values)
        return _step_sum_sorted(np.sort(values), thresholds, heights)
    table = _table(binning, thresholds, heights)
    parts = np.array_split(values, max(1, min(cv2.getNumThreads(), values.size // _WORTH_A_THREAD)))
    if len(parts) == 1:
        results = [_table_sum(values, binning, table)]
    else:
        with ThreadPoolExecutor(len(parts)) as threads:
            results = list(threads.map(lambda part: _table_sum(part, binning, table), parts))
    near = np.sort(np.concatenate([undecided for _, undecided in results]))
    decided = sum(total for total, _ in results) - near.size * _UNDECIDED
    return decided + _step_sum_sorted(near, thresholds, heights)


def _table_sum(values: np.ndarray, binning: "_Binning", table: np.ndarray) -> tuple[int, np.ndarray]:
    """The sum of the values' entries in the table, and the values that it leaves undecided."""
    buffers, steps = binning.buffers(), np.empty(_CHUNK, np.uint16)
    total, undecided = 0, []
    for start in range(0, values.size, _CHUNK):
        chunk = values[start : start + _CHUNK]
        here = steps[: chunk.size]
        table.take(binning.bins(chunk, buffers), out=here, mode="clip")
        total += int(cv2.sumElems(here)[0])  # exact: a double, and the sum of a chunk is below 2**32
        undecided.append(chunk[np.flatnonzero(here == _UNDECIDED)])
    return total, np.concatenate(undecided)


def _check_finite(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise InputError("`saliency_map` must be finite; it holds NaN or infinity")


def _step_sum_sorted(ascending: np.ndarray, thresholds: np.ndarray, heights: np.ndarray) -> int:
    first = np.searchsorted(ascending, thresholds, side="left")
    counts = np.diff(first, prepend=0, append=ascending.size)
    return int(counts.astype(np.int64) @ heights.astype(np.int64))


def _table(binning: "_Binning", thresholds: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """The height of every bin, uint16 [_BINS]."""
    buffers = binning.buffers()
    bins = np.concatenate(
        [binning.bins(part, buffers) for part in np.split(thresholds, range(_CHUNK, len(thresholds), _CHUNK))]
    )
    bins = np.clip(bins, 0, _BINS - 1)
    table = np.repeat(heights.astype(np.uint16), np.diff(bins, prepend=0, append=_BINS))
    table[bins] = _UNDECIDED
    return table


class _Binning:
    """The bins of values, most of them between thresholds; a >= b implies bin(a) >= bin(b): rounding keeps the order.

    Product and sum are operations of their own: fused for some values and not for others, they could give equal values
    different bins.

    Attributes:
        usable: the thresholds differ, and by something that can be divided by.
    """

    def __init__(self, thresholds: np.ndarray):
        low, high = thresholds[[0, -1]]
        with np.errstate(all="ignore"):
            from_zero = low >= 0 and high <= 8 * (high - low)  # saves the sum
            self._scale = thresholds.dtype.type((_BINS - 1) / (high if from_zero else high - low))
            self._shift = thresholds.dtype.type(0 if from_zero else -low * self._scale)
            ends = thresholds[[0, -1]] * self._scale + self._shift
        self.usable = bool(0 < self._scale < np.inf and (np.abs(ends) < 2 * _BINS).all())

    def buffers(self) -> Buffers:
        """Room for the work of one thread."""
        return np.empty(_CHUNK, self._scale.dtype), np.empty(_CHUNK, np.intp)

    def bins(self, values: np.ndarray, buffers: Buffers) -> np.ndarray:
        """intp, to be clipped to the bins there are; at most _CHUNK values, kept in the buffers."""
        scaled, bins = (buffer[: values.size] for buffer in buffers)
        with np.errstate(over="ignore", under="ignore", invalid="raise"):
            try:
                np.multiply(values, self._scale, out=scaled)
                if self._shift:
                    np.add(scaled, self._shift, out=scaled)
                np.copyto(bins, scaled, casting="unsafe")
            except FloatingPointError:  # NaN, infinity, or a bin that no integer can hold
                _check_finite(values)
                np.copyto(bins, np.clip(scaled, 0, _BINS - 1), casting="unsafe")
        return bins
