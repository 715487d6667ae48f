"""Fixations as lists: who looked, when, in which order, and by which convention the coordinates count.

CAT2000's eye tracks count from 1, as MATLAB does, and repeat several thousand fixations; version 1.1 of pysaliency's
data set subtracts 1 from x and y, and drops what then lies outside the image and what repeats the viewer's previous
fixation. "as given" takes points as they are: pixels counted from 0, each fixation once.
"""

from typing import Any, Optional

import numpy as np

from sact_det.base.errors import InputError
from saliency.fixations import Fixations, Shape

CONVENTIONS = ("as-given", "cat2000-1.1")


def fixations_of_points(
    points: Any,
    shape: Shape,
    viewers: Any = None,
    times: Any = None,
    convention: str = "as-given",
) -> Fixations:
    """Fixations of points [n, 2] of x and y; fractions are cut off.

    Args:
        points: of one image, a viewer's in their order unless there are times.
        shape: (height, width) of the image.
        viewers: who looked, [n], names or numbers; viewers are numbered in the order of their sorted names.
        times: [n], when each fixation began: each viewer's fixations are sorted by it.
        convention: one of CONVENTIONS.

    Raises:
        InputError: points are none or lie outside, times are no numbers, or there are not as many.
    """
    if convention not in CONVENTIONS:
        raise InputError(f"`convention` must be one of {', '.join(CONVENTIONS)}; got {convention!r}")
    if convention == "cat2000-1.1":
        everywhere = Fixations.from_points(np.asarray(points, float) - 1 + _FAR, (2 * _FAR, 2 * _FAR))
        x, y = everywhere.x - _FAR, everywhere.y - _FAR
    else:
        found = Fixations.from_points(points, shape)
        x, y = found.x, found.y
    viewer = None if viewers is None else np.unique(np.asarray([str(one) for one in viewers]), return_inverse=True)[1]
    try:
        time = None if times is None else np.asarray(times, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("times of fixations must be numbers") from error
    for name, values in (("viewers", viewer), ("times", time)):
        if values is not None and len(values) != len(x):
            raise InputError(f"{len(values)} {name} of {len(x)} fixations")
    order = np.lexsort([key for key in (time, viewer) if key is not None] or [np.arange(len(x))])
    if convention == "cat2000-1.1":
        kept = (x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0])
        order = order[kept[order]]
        order = order[_is_new(x[order], y[order], None if viewer is None else viewer[order])]
    viewer, time = (None if viewer is None else viewer[order]), (None if time is None else time[order])
    return Fixations(x[order], y[order], shape, viewer=viewer, time=time)


_FAR = 1 << 20  # pixels: further away no image has any


def _is_new(x: np.ndarray, y: np.ndarray, viewer: Optional[np.ndarray]) -> np.ndarray:
    """Whether each fixation is another place, or another viewer's, than the one before."""
    new = np.ones(len(x), bool)
    new[1:] = (np.diff(x) != 0) | (np.diff(y) != 0)
    if viewer is not None:
        new[1:] |= np.diff(viewer) != 0
    return new
