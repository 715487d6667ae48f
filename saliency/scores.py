"""All metrics under their names, and what each needs to know about an image besides the map."""

from dataclasses import dataclass
from functools import cached_property
from typing import Callable, Iterable, Sequence

import numpy as np

from sact_det.base.errors import InputError
from saliency import metrics
from saliency.center import CenterBaseline
from saliency.dataset import FixationDataset
from saliency.fixations import DENSITY_SIGMA, Fixations, pooled


class Reference:
    """The truth about one image of a data set; made when first asked for.

    Args:
        dataset: the image's; its other images give the negatives of shuffled AUC.
        index: of the image.
        density_sigma: blur of the fixation density, in pixels of the image.
        baseline: what information gain compares with.
    """

    def __init__(
        self,
        dataset: FixationDataset,
        index: int,
        density_sigma: float = DENSITY_SIGMA,
        baseline: CenterBaseline = CenterBaseline(),  # noqa: B008  (frozen)
    ):
        self._dataset, self._index = dataset, index
        self._density_sigma, self._baseline = density_sigma, baseline
        self.fixations: Fixations = dataset[index].fixations

    @cached_property
    def density(self) -> np.ndarray:
        """float64 [H, W], sum 1."""
        return self.fixations.density(self._density_sigma)

    @cached_property
    def other_fixations(self) -> Fixations:
        """Of all other images, scaled to this one."""
        others = (image.fixations for number, image in enumerate(self._dataset) if number != self._index)
        return pooled(others, self.fixations.shape)

    @cached_property
    def baseline(self) -> np.ndarray:
        """float64 [H, W]."""
        return self._baseline.map(self.fixations.shape)


@dataclass(frozen=True)
class Metric:
    """A metric as a function of a map and a reference.

    Attributes:
        name: as in METRICS.
        title: for tables.
        higher_is_better: its direction.
        of: computes it.
    """

    name: str
    title: str
    higher_is_better: bool
    of: Callable[[np.ndarray, Reference], float]


def _auc_judd(values: np.ndarray, truth: Reference) -> float:
    return metrics.auc_judd(values, truth.fixations)


def _auc_borji(values: np.ndarray, truth: Reference) -> float:
    return metrics.auc_borji(values, truth.fixations)


def _shuffled_auc(values: np.ndarray, truth: Reference) -> float:
    return metrics.shuffled_auc(values, truth.fixations, truth.other_fixations)


def _nss(values: np.ndarray, truth: Reference) -> float:
    return metrics.nss(values, truth.fixations)


def _cc(values: np.ndarray, truth: Reference) -> float:
    return metrics.cc(values, truth.density)


def _sim(values: np.ndarray, truth: Reference) -> float:
    return metrics.sim(values, truth.density)


def _kld(values: np.ndarray, truth: Reference) -> float:
    return metrics.kld(values, truth.density)


def _information_gain(values: np.ndarray, truth: Reference) -> float:
    return metrics.information_gain(values, truth.fixations, truth.baseline)


METRICS = {
    metric.name: metric
    for metric in (
        Metric("auc_judd", "AUC-Judd", True, _auc_judd),
        Metric("auc_borji", "AUC-Borji", True, _auc_borji),
        Metric("shuffled_auc", "sAUC", True, _shuffled_auc),
        Metric("nss", "NSS", True, _nss),
        Metric("cc", "CC", True, _cc),
        Metric("sim", "SIM", True, _sim),
        Metric("kld", "KL", False, _kld),
        Metric("information_gain", "IG", True, _information_gain),
    )
}


def get_metric(name: str) -> Metric:
    """The metric of this name. Raises InputError if there is none."""
    if name not in METRICS:
        raise InputError(f"`metric` must be one of {', '.join(METRICS)}; got {name!r}")
    return METRICS[name]


def score_maps(maps: Iterable[np.ndarray], truth: Reference, names: Sequence[str] = tuple(METRICS)) -> np.ndarray:
    """Several maps of one image by several metrics; density, negatives and baseline are made once.

    Args:
        maps: each [H, W], of the image's size; also an array [B, H, W].
        truth: about the image.
        names: keys of METRICS.

    Returns:
        float64 [B, len(names)].
    """
    chosen = [get_metric(name) for name in names]
    rows = [[metric.of(values, truth) for metric in chosen] for values in maps]
    return np.array(rows, np.float64).reshape(-1, len(chosen))
