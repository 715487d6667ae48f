"""The centre bias of a data set, fitted: where people look in its other images, whatever this one shows.

The density of an image is (1 - u) times the fixations of all other images, scaled to its size and blurred by a Gaussian
of b widths and heights, plus u times the uniform one: pysaliency's `CrossvalidatedBaselineModel`. b and u are those
with the greatest likelihood of all fixations, each image's predicted by the others' (leave one image out).

Blurring is linear: what the others give at a fixation is what all give, less what the image itself gives, so that an
image costs a few small matrix products instead of a blur.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Sequence

import numpy as np
from scipy.optimize import minimize_scalar

from sact_det.base.errors import InputError
from saliency.blur import blur_matrix, gaussian_blur
from saliency.fixations import Fixations, Shape, pooled

_CANVAS: Shape = (256, 256)  # the fit is done on; b and u do not depend on an image's size
_BANDWIDTHS = (0.005, 0.3)  # between which b is looked for
_LEAST_SHARE, _STEPS = 1e-6, 60  # of u; of its fit


@dataclass(frozen=True, eq=False)
class CenterBias:
    """The fitted centre bias.

    Attributes:
        fixations: of every image of the data set.
        bandwidth: b, sigma of the Gaussian in widths and heights of the image.
        uniform: u, share of the uniform density, in (0, 1).

    Raises:
        InputError: there are no two images with fixations, or a value is out of range.
    """

    fixations: Sequence[Fixations]
    bandwidth: float
    uniform: float

    def __post_init__(self) -> None:
        if sum(len(own) > 0 for own in self.fixations) < 2:
            raise InputError("a centre bias is that of other images: it needs two images with fixations")
        if not 0 < self.bandwidth < np.inf or not 0 < self.uniform < 1:
            raise InputError(
                f"`bandwidth` must be positive and `uniform` in (0, 1); got {self.bandwidth}, {self.uniform}"
            )

    @classmethod
    def fit(cls, fixations: Sequence[Fixations]) -> "CenterBias":
        """The centre bias under which the fixations are likeliest, leaving one image out; every image counts alike.

        Raises:
            InputError: as the class.
        """
        on_canvas = [own.scaled_to(_CANVAS) for own in fixations]
        everything = pooled(on_canvas, _CANVAS)
        known = [own for own in on_canvas if len(own)]
        cls(known, 1.0, 0.5)  # enough images

        def fitted(log_bandwidth: float) -> tuple[float, float]:
            """u at this b, and the mean ln likelihood."""
            matrices = _matrices(_CANVAS, float(np.exp(log_bandwidth)))
            blurred = matrices[0] @ everything.counts() @ matrices[1]
            shares = [_others(own, blurred, matrices, len(everything)) * blurred.size for own in known]
            weights = np.concatenate([np.full(len(own), 1 / (len(own) * len(known))) for own in shares])
            return _uniform_share(np.concatenate(shares), weights)

        bounds = tuple(np.log(_BANDWIDTHS))
        found = minimize_scalar(
            lambda value: -fitted(value)[1], bounds=bounds, method="bounded", options={"xatol": 0.01}
        )
        return cls(fixations, float(np.exp(found.x)), fitted(float(found.x))[0])

    def log_likelihoods(self, index: int) -> np.ndarray:
        """ln of the density at the fixations of the image of this index, float64 [n]."""
        own = self.fixations[index]
        blurred, matrices, number = self._of_shape(own.shape)
        return self._mixed(_others(own, blurred, matrices, number), blurred.size)

    def log_density(self, index: int) -> np.ndarray:
        """ln of the density of the image of this index, float64 [H, W]."""
        own = self.fixations[index]
        blurred, (vertical, horizontal), number = self._of_shape(own.shape)
        others = blurred - vertical[:, own.y] @ horizontal[own.x]
        return self._mixed(others / (number - len(own)), blurred.size)

    def unseen(self, shape: Shape) -> np.ndarray:
        """ln of the density of an image of another data set, float64 [H, W] of `shape`: all images give theirs."""
        blurred, _, number = self._of_shape(shape)
        return self._mixed(blurred / number, blurred.size)

    def _mixed(self, density: np.ndarray, pixels: int) -> np.ndarray:
        mixed: np.ndarray = np.log((1 - self.uniform) * np.maximum(density, 0) + self.uniform / pixels)
        return mixed

    def _of_shape(self, shape: Shape) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], int]:
        return _blurred_counts(self, shape)


def _others(own: Fixations, blurred: np.ndarray, matrices: tuple[np.ndarray, np.ndarray], number: int) -> np.ndarray:
    """The density of the others at an image's own fixations, float64 [n]; `blurred` are the counts of all."""
    vertical, horizontal = matrices
    of_own = (vertical[np.ix_(own.y, own.y)] * horizontal[np.ix_(own.x, own.x)]).sum(axis=1)
    return np.maximum(blurred[own.y, own.x] - of_own, 0) / (number - len(own))


def _uniform_share(ratios: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """u with the greatest mean ln((1 - u) r + u) of ratios r to the uniform density, and this mean."""
    low, high = _LEAST_SHARE, 1 - _LEAST_SHARE
    for _ in range(_STEPS):  # the derivative falls: where it is 0 lies the maximum
        middle = (low + high) / 2
        rises = weights @ ((1 - ratios) / ((1 - middle) * ratios + middle)) > 0
        low, high = (middle, high) if rises else (low, middle)
    share = (low + high) / 2
    return share, float(weights @ np.log((1 - share) * ratios + share))


@lru_cache(maxsize=4)
def _matrices(shape: Shape, bandwidth: float) -> tuple[np.ndarray, np.ndarray]:
    return blur_matrix(shape[0], bandwidth * shape[0]), blur_matrix(shape[1], bandwidth * shape[1])


@lru_cache(maxsize=4)
def _blurred_counts(bias: CenterBias, shape: Shape) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], int]:
    """The counts of all images blurred, the matrices that blur, and how many fixations there are."""
    everything = pooled(bias.fixations, shape)
    sigma = (bias.bandwidth * shape[0], bias.bandwidth * shape[1])
    return (
        gaussian_blur(everything.counts().astype(np.float64), sigma),
        _matrices(shape, bias.bandwidth),
        len(everything),
    )
