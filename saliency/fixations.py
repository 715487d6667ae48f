"""Where people looked in one image: points, with the maps and the files they come from and turn into.

Coordinates are pixels counted from 0, x to the right and y down.
"""

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Iterable, Optional, Union

import numpy as np

from sact_det.base.errors import InputError, naming, shown
from saliency.blur import gaussian_blur
from saliency.images import read_levels
from saliency.matlab import MAT_SUFFIX, read_matrix

logger = logging.getLogger(__name__)

Shape = tuple[int, int]

MAT_VARIABLE = "fixLocs"  # of CAT2000
DENSITY_SIGMA = 40.0  # pixels at 1920x1080: about one degree of visual angle
BENCHMARK_SIGMAS = {"cat2000": DENSITY_SIGMA, "mit300": 24.0, "coco-freeview": 30.0}  # of the benchmark's densities
_FAR = 2.0**53  # pixels; beyond it floats are no longer whole numbers of their own
_MANY = 0.01  # share of an image's pixels; of CAT2000's fewer than 0.0003 are fixated


@dataclass(frozen=True, eq=False)
class Fixations:
    """The fixations of one image, any number of them on one pixel.

    Attributes:
        x, y: int64 [n].
        shape: (height, width) of the image.
        of_map: whether they are the fixated pixels of a map, which cannot say how many fixations a pixel had.
        viewer: int64 [n], a number for everyone who looked, where it is known; each one's fixations are in order.
        time: float64 [n], when each began, in the data set's own unit, where it is known.

    Raises:
        InputError: a fixation lies outside the image, or viewers or times are not as many as fixations.
    """

    x: np.ndarray
    y: np.ndarray
    shape: Shape
    of_map: bool = False
    viewer: Optional[np.ndarray] = None
    time: Optional[np.ndarray] = None

    def __post_init__(self) -> None:
        for name, values in (("viewers", self.viewer), ("times", self.time)):
            if values is not None and len(values) != len(self.x):
                raise InputError(f"{len(values)} {name} of {len(self.x)} fixations")
        height, width = self.shape
        outside = (self.x < 0) | (self.x >= width) | (self.y < 0) | (self.y >= height)
        if outside.any():
            first = int(np.argmax(outside))
            raise InputError(
                f"{int(outside.sum())} of {len(self)} fixations lie outside the image of {width}x{height} pixels, "
                f"the first at x={self.x[first]}, y={self.y[first]}"
            )

    def __len__(self) -> int:
        return len(self.x)

    @classmethod
    def from_map(cls, fixation_map: np.ndarray) -> "Fixations":
        """One fixation for each pixel of a [H, W] map that is not 0. Raises InputError if it is no such map."""
        fixation_map = np.asarray(fixation_map)
        if fixation_map.ndim != 2 or fixation_map.size == 0 or fixation_map.dtype.kind not in "biuf":
            raise InputError(
                f"a fixation map must be numbers [H, W]; got {fixation_map.dtype} {list(fixation_map.shape)}"
            )
        if fixation_map.dtype.kind == "f" and not np.isfinite(fixation_map).all():
            raise InputError("a fixation map must be finite; it holds NaN or infinity")
        y, x = np.nonzero(fixation_map)
        return cls(x.astype(np.int64), y.astype(np.int64), fixation_map.shape, of_map=True)

    @classmethod
    def from_points(cls, points: Any, shape: Shape) -> "Fixations":
        """Points [n, 2] of x and y; fractions are cut off. Raises InputError if they are none or lie outside."""
        try:
            array = np.asarray(points)
            array = array.astype(float) if array.dtype.kind in "biufUO" else array
        except (TypeError, ValueError, OverflowError) as error:  # ragged, words, numbers of 400 digits
            raise InputError(
                f"fixations must be points [n, 2] of x and y; got {shown(' '.join(repr(points).split()), 60)}"
            ) from error
        if array.shape == (0,):
            return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), shape)
        if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind != "f":
            raise InputError(
                f"fixations must be points [n, 2] of x and y; got {shown(' '.join(repr(points).split()), 60)}"
            )
        if not np.isfinite(array).all():
            raise InputError("fixations must be finite points x, y; they hold NaN or infinity")
        pixels = np.floor(array.clip(-_FAR, _FAR)).astype(np.int64)
        return cls(pixels[:, 0].copy(), pixels[:, 1].copy(), shape)

    @cached_property
    def pixels(self) -> np.ndarray:
        """The pixels of the fixations, numbered row by row, int64 [n]."""
        return self.y * self.shape[1] + self.x

    @cached_property
    def distinct_pixels(self) -> np.ndarray:
        """The fixated pixels, numbered row by row, each once, ascending: int64."""
        return np.unique(self.pixels)

    def distinct(self) -> "Fixations":
        """At most one fixation on a pixel, as in a binary map."""
        y, x = np.divmod(self.distinct_pixels, self.shape[1])
        return Fixations(x, y, self.shape, of_map=True)

    def scaled_to(self, shape: Shape) -> "Fixations":
        """The same places in an image of another size."""
        if shape == self.shape:
            return self
        x = (self.x * (shape[1] / self.shape[1])).astype(np.int64)
        y = (self.y * (shape[0] / self.shape[0])).astype(np.int64)
        x, y = np.minimum(x, shape[1] - 1), np.minimum(y, shape[0] - 1)
        return Fixations(x, y, shape, self.of_map, self.viewer, self.time)

    def chosen(self, which: np.ndarray) -> "Fixations":
        """Those of a mask or of indices, with their viewers and times."""
        viewer, time = (None if values is None else values[which] for values in (self.viewer, self.time))
        return Fixations(self.x[which], self.y[which], self.shape, self.of_map, viewer, time)

    def counts(self) -> np.ndarray:
        """How many fixations there are on every pixel, int64 [H, W]."""
        return np.bincount(self.pixels, minlength=self.shape[0] * self.shape[1]).reshape(self.shape)

    def density(self, sigma: float = DENSITY_SIGMA) -> np.ndarray:
        """The counts blurred by a Gaussian and divided by their number: float64 [H, W], >= 0, sum 1.

        Args:
            sigma: in pixels; reflecting borders.

        Raises:
            InputError: there are no fixations.
        """
        if len(self) == 0:
            raise InputError("there are no fixations to make a density of")
        density = np.maximum(gaussian_blur(self.counts().astype(np.float64), sigma), 0)  # rounding may go below 0
        return density / density.sum()


FixationsLike = Union[Fixations, np.ndarray]


def as_fixations(value: FixationsLike, shape: Shape) -> Fixations:
    """Fixations of an image of `shape`, from `Fixations`, a fixation map of this shape, or points [n, 2] of x and y.

    Raises:
        InputError: they belong to an image of another size. Nothing is resized here.
    """
    if not isinstance(value, Fixations):
        array = np.asarray(value)
        is_points = array.ndim == 2 and array.shape[1] == 2 and array.shape != shape
        value = Fixations.from_points(array, shape) if is_points else Fixations.from_map(array)
    if value.shape != shape:
        raise InputError(
            f"the fixations belong to an image of {value.shape[1]}x{value.shape[0]} pixels and the saliency map has "
            f"{shape[1]}x{shape[0]}; resize the map first (saliency.postprocess.resize)"
        )
    return value


def pooled(parts: Iterable[Fixations], shape: Shape) -> Fixations:
    """The fixations of several images together, scaled to one of `shape`: the negatives of shuffled AUC."""
    scaled = [part.scaled_to(shape) for part in parts]
    x, y = (np.concatenate([np.zeros(0, np.int64), *(getattr(part, axis) for part in scaled)]) for axis in "xy")
    return Fixations(x, y, shape)


def read_fixations(path: Union[str, Path], variable: str = MAT_VARIABLE) -> Fixations:
    """Reads a fixation map from a MATLAB file, an image file or a .npy: pixels that are not 0 are fixated.

    Of an image that lossy compression (JPEG, for one) may have blurred, it is the pixels above half of its greatest
    value. Where fixations are so many that the map may be a smoothed or inverted one, a warning says their share.

    Args:
        path: of a .mat file (version 4 to 7.3) with a matrix, a sparse one, or a cell that holds one; of an image in
            grey levels; or of an array [H, W].
        variable: the map's name in a MATLAB file.

    Raises:
        InputError: there is no such file, it cannot be read, or it holds no such map.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such fixation file")
    fixations = _from_mat(path, variable) if path.suffix.lower() == MAT_SUFFIX else _from_levels(path)
    height, width = fixations.shape
    share = len(fixations) / (height * width)
    if share > _MANY:
        logger.warning(
            "%s: %.1f%% of the pixels are fixated (%d of %dx%d): is the map smoothed or inverted? Expected fixations",
            *(path, 100 * share, len(fixations), width, height),
        )
    return fixations


def _from_levels(path: Path) -> Fixations:
    levels = read_levels(path)
    return Fixations.from_map(levels.values > levels.values.max() / 2 if levels.lossy else levels.values)


def _from_mat(path: Path, variable: str) -> Fixations:
    matrix = read_matrix(path, variable)
    with naming(f"{path}: {variable}", InputError):
        return Fixations.from_map(matrix)
