"""Gaussian blur with reflecting borders, by the cosine transform: one transform of a map serves every width.

A map that is mirrored at its borders (d c b a | a b c d | d c b a) is a sum of cosines, and a symmetric kernel scales
each of them by a number of its own. The result is scipy.ndimage.gaussian_filter(mode="reflect") with the same sampled
and truncated kernel, up to rounding, at a price that does not grow with sigma.
"""

from typing import Union

import numpy as np
from scipy import fft

from sact_det.base.errors import InputError

Sigma = Union[float, tuple[float, float]]

TRUNCATE = 4.0  # the kernel ends at so many sigmas, as in scipy


class ReflectingBlur:
    """A map, ready to be blurred with many widths.

    Args:
        values: float [H, W]; float32 and float64 keep their precision, others become float64.
    """

    def __init__(self, values: np.ndarray):
        values = np.asarray(values)
        if values.dtype not in (np.float32, np.float64):
            values = values.astype(np.float64)
        self._values = values
        self._transform: Union[np.ndarray, None] = None

    def blurred(self, sigma: Sigma) -> np.ndarray:
        """The map blurred with `sigma`, in pixels of the map (or a pair: vertical, horizontal); 0 leaves it as it is.

        Returns:
            [H, W], a new array.

        Raises:
            InputError: a sigma is negative or not finite.
        """
        vertical, horizontal = (float(value) for value in np.broadcast_to(np.asarray(sigma, float), 2))
        if not (0 <= vertical < np.inf and 0 <= horizontal < np.inf):
            raise InputError(f"`sigma` of a blur must be finite and not negative; got {sigma}")
        if vertical == horizontal == 0 or self._values.min() == self._values.max():
            return self._values.copy()
        if self._transform is None:
            self._transform = fft.dctn(self._values, type=2, norm="ortho")
        height, width = self._values.shape
        dtype = self._values.dtype
        scaled = self._transform * axis_response(height, vertical).astype(dtype)[:, None]
        scaled *= axis_response(width, horizontal).astype(dtype)
        return fft.idctn(scaled, type=2, norm="ortho", overwrite_x=True)


def gaussian_blur(values: np.ndarray, sigma: Sigma) -> np.ndarray:
    """`values`, float [H, W], blurred once. Sigma, result and errors are those of `ReflectingBlur.blurred`."""
    return ReflectingBlur(values).blurred(sigma)


def blur_matrix(length: int, sigma: float) -> np.ndarray:
    """What the blur does to an axis of `length` pixels, as a matrix, float64 [length, length]; symmetric."""
    cosines = fft.dct(np.eye(length), type=2, norm="ortho", axis=0)
    return cosines.T @ (axis_response(length, sigma)[:, None] * cosines)


def axis_response(length: int, sigma: float) -> np.ndarray:
    """What the kernel scales each of the cosines of an axis of `length` pixels by, float64 [length]."""
    radius = int(TRUNCATE * sigma + 0.5)
    offsets = np.arange(1, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2) if sigma > 0 else np.zeros(0)
    # cos(pi k j / n) is periodic in j: folding the kernel keeps the sum short when it is wider than the map.
    folded = np.bincount(offsets % (2 * length), weights, minlength=2 * length)
    response = 1 + 2 * fft.rfft(folded).real[:length]
    return response / (1 + 2 * weights.sum())
