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
        """The fixations blurred to a density, float64 [H, W], sum 1."""
        return self.fixations.density(self._density_sigma)

    @cached_property
    def other_fixations(self) -> Fixations:
        """The fixations of all other images, scaled to this one."""
        others = (image.fixations for number, image in enumerate(self._dataset) if number != self._index)
        return pooled(others, self.fixations.shape)

    @cached_property
    def baseline(self) -> np.ndarray:
        """The baseline's map, float64 [H, W]."""
        return self._baseline.map(self.fixations.shape)


@dataclass(frozen=True)
class Metric:
    """A function of saliency.metrics as one of a map and a reference.

    Attributes:
        title: for tables.
        higher_is_better: its direction.
        function: of a map and what `takes` names.
        takes: attributes of `Reference`, in order.
    """

    title: str
    higher_is_better: bool
    function: Callable[..., float]
    takes: tuple[str, ...]

    def of(self, values: np.ndarray, truth: Reference) -> float:
        """The score of a map, [H, W], of the image's size."""
        return self.function(values, *(getattr(truth, name) for name in self.takes))


METRICS = {
    "auc_judd": Metric("AUC-Judd", True, metrics.auc_judd, ("fixations",)),
    "auc_borji": Metric("AUC-Borji", True, metrics.auc_borji, ("fixations",)),
    "shuffled_auc": Metric("sAUC", True, metrics.shuffled_auc, ("fixations", "other_fixations")),
    "nss": Metric("NSS", True, metrics.nss, ("fixations",)),
    "cc": Metric("CC", True, metrics.cc, ("density",)),
    "sim": Metric("SIM", True, metrics.sim, ("density",)),
    "kld": Metric("KL", False, metrics.kld, ("density",)),
    "information_gain": Metric("IG", True, metrics.information_gain, ("fixations", "baseline")),
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
