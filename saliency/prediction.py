"""What a model says about one image: a saliency map, or a log density; each as the other where a metric asks for it.

A log density is ln p of every pixel. As a map it is p (but ordered by ln p, which never ties where p vanishes); a map
becomes a density when it is divided by its sum, as pysaliency's `SaliencyMapNormalizingModel` does.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sact_det.base.errors import InputError
from saliency.arguments import checked_map
from saliency.images import is_map
from saliency.metrics import distribution

LEAST = 1e-20  # added to every pixel of a map that becomes a density, so that no fixation is impossible
TOLERANCE = 0.01  # of ln(sum p), as in pysaliency


@dataclass(frozen=True, eq=False)
class Prediction:
    """A saliency map, or a log density.

    Attributes:
        values: float [H, W].
        is_log_density: whether they are ln p, with sum p = 1.

    Raises:
        InputError: a log density does not sum to 1, within `TOLERANCE`.
    """

    values: np.ndarray
    is_log_density: bool = False

    def __post_init__(self) -> None:
        if self.is_log_density:
            total = float(np.exp(checked_log_density(self.values)).sum(dtype=np.float64))
            if not np.exp(-TOLERANCE) <= total <= np.exp(TOLERANCE):
                raise InputError(f"a log density must sum to 1 after exp; the sum is {total:.6g}")

    @cached_property
    def ranking(self) -> np.ndarray:
        """Values in the order of the saliency, [H, W]: for metrics that know no more than the order.

        A log density's -inf is the number next below its others.
        """
        impossible = np.isneginf(self.values) if self.is_log_density else np.zeros(0, bool)
        if not impossible.any():
            return self.values
        least = self.values.min(where=~impossible, initial=np.inf)
        return np.where(impossible, np.nextafter(least, -np.inf, dtype=self.values.dtype), self.values)

    @cached_property
    def map(self) -> np.ndarray:
        """The map, or the density, float [H, W]."""
        return np.exp(self.values.astype(np.float64)) if self.is_log_density else self.values

    @cached_property
    def distribution(self) -> np.ndarray:
        """The map as a distribution by the MIT benchmark's rule, without `LEAST`: float64 [H, W], sum 1."""
        return distribution(checked_map(self.map))

    @cached_property
    def total(self) -> float:
        """The sum of the map after `LEAST` and, where values are negative, their minimum made it positive."""
        values = checked_map(self.values)
        return float(values.sum(dtype=np.float64)) - values.size * (min(float(values.min()), 0.0) - LEAST)

    def log_density_at(self, pixels: np.ndarray) -> np.ndarray:
        """ln p, float64 [n], at pixels numbered row by row."""
        chosen = self.values.reshape(-1)[pixels].astype(np.float64)
        if self.is_log_density:
            return chosen
        return np.log(chosen - min(float(self.values.min()), 0.0) + LEAST) - np.log(self.total)


def checked_log_density(values: np.ndarray) -> np.ndarray:
    """[H, W]; -inf is a probability of 0. Raises InputError for NaN, +inf and whatever is no map."""
    values = np.asarray(values)
    if values.dtype.kind != "f" or not is_map(values, log_density=True):
        raise InputError(f"a log density must be numbers below +inf [H, W]; got {values.dtype} {list(values.shape)}")
    return values


def as_prediction(values: "Prediction | np.ndarray") -> Prediction:
    """An array is a map."""
    return values if isinstance(values, Prediction) else Prediction(values)
