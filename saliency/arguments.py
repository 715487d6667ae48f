"""The arguments of metrics, checked: maps, densities, fixations. Whatever is wrong is an InputError that names it."""

import numpy as np

from sact_det.base.errors import InputError
from saliency.fixations import Fixations, FixationsLike, as_fixations


def as_map(values: np.ndarray, name: str = "saliency_map") -> np.ndarray:
    """[H, W], contiguous, float32 or float64. Raises InputError."""
    values = np.asarray(values)
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "biuf":
        raise InputError(f"`{name}` must be numbers [H, W]; got shape {list(values.shape)} of {values.dtype}")
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    return np.ascontiguousarray(values)


def checked_map(values: np.ndarray, name: str = "saliency_map") -> np.ndarray:
    """[H, W], contiguous, float32 or float64, all finite. Raises InputError."""
    values = as_map(values, name)
    # A sum is the quickest look at every value; one that overflows is looked into.
    with np.errstate(over="ignore", invalid="ignore"):
        if not np.isfinite(values.sum()) and not np.isfinite(values).all():
            raise InputError(f"`{name}` must be finite; it holds NaN or infinity")
    return values


def checked_density(density: np.ndarray, values: np.ndarray, name: str = "density") -> np.ndarray:
    """`density` as `checked_map` has it, of the size of the map `values`."""
    density = checked_map(density, name)
    if density.shape != values.shape:
        raise InputError(
            f"`{name}` has {density.shape[1]}x{density.shape[0]} pixels and the saliency map has "
            f"{values.shape[1]}x{values.shape[0]}; resize the map first (saliency.postprocess.resize)"
        )
    return density


def checked_fixations(value: FixationsLike, values: np.ndarray, name: str = "fixations") -> Fixations:
    """At least one fixation, in the map `values`."""
    fixations = as_fixations(value, values.shape)
    if len(fixations) == 0:
        raise InputError(f"`{name}` is empty: a metric needs at least one fixation")
    return fixations


def positive(splits: int) -> int:
    """A number of splits, at least 1."""
    if splits < 1:
        raise InputError(f"`splits` must be at least 1; got {splits}")
    return splits
