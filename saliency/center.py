"""Centre baselines: where people look whatever the image shows.

AUC depends on the order of the pixels alone, and all Gaussians of one aspect order them alike: as a map of its own the
width of a baseline changes nothing, in a mixture it does.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sact_det.base.errors import InputError

KINDS = ("stretched", "isotropic", "mit")


@dataclass(frozen=True)
class CenterBaseline:
    """A map that is high in the middle, between 0 and 1.

    Attributes:
        kind: "stretched", a Gaussian with the aspect of the image; "isotropic", one with circular contours; "mit", the
            MIT benchmark's, 1 - 2e-4 ((x - 49)^2 + (y - 49)^2) on 100x100 pixels, stretched to the image.
        width: sigma of the Gaussian. "stretched": in widths and heights of the image; "isotropic": in its heights.
            Without meaning for "mit".

    Raises:
        InputError: there is no such kind, or the width is not positive.
    """

    kind: str = "stretched"
    width: float = 0.25

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"`kind` of a centre baseline must be one of {', '.join(KINDS)}; got {self.kind!r}")
        if not 0 < self.width < np.inf:
            raise InputError(f"`width` of a centre baseline must be positive; got {self.width}")

    def map(self, shape: tuple[int, int]) -> np.ndarray:
        """float64 [H, W]; the middle lies between the pixels where a side is even."""
        height, width = shape
        if self.kind == "mit":
            x, y = _mit_axis(width), _mit_axis(height)
            return np.maximum(1 - 2e-4 * (x[None, :] ** 2 + y[:, None] ** 2), 0)
        unit_x, unit_y = (height, height) if self.kind == "isotropic" else (width, height)
        x, y = (
            np.exp(-0.5 * ((np.arange(side) - (side - 1) / 2) / (self.width * unit)) ** 2)
            for side, unit in ((width, unit_x), (height, unit_y))
        )
        return y[:, None] * x[None, :]

    def single(self, shape: tuple[int, int]) -> np.ndarray:
        """The map as float32, not to be written to: those of the last images are kept."""
        return _single(self, shape)


@lru_cache(maxsize=8)
def _single(center: CenterBaseline, shape: tuple[int, int]) -> np.ndarray:
    made = center.map(shape).astype(np.float32)
    made.flags.writeable = False
    return made


def _mit_axis(side: int) -> np.ndarray:
    """Distance from pixel 49, in pixels of the 100x100 map, of the pixels of a side stretched over it."""
    return np.clip((np.arange(side) + 0.5) * (100 / side) - 0.5, 0, 99) - 49
