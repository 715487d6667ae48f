"""All metrics under their names, what each needs to know about an image besides the map, and whose rules it follows."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Callable, Iterable, Optional, Sequence, Union

import numpy as np

from sact_det.base.errors import InputError
from saliency import metrics
from saliency.arguments import checked_map
from saliency.center import CenterBaseline
from saliency.center_bias import CenterBias
from saliency.dataset import FixationDataset
from saliency.fixations import DENSITY_SIGMA, Fixations, Shape, pooled
from saliency.prediction import Prediction, as_prediction


class Reference:
    """The truth about one image of a data set; made when first asked for.

    Args:
        dataset: the image's; its other images give the negatives of shuffled AUC.
        index: of the image.
        density_sigma: blur of the fixation density, in pixels of the image.
        baseline: what information gain compares with.
        center_bias: of the same images; what the Tuebingen protocol's information gain compares with.
        chosen: a mask [n] of the fixations that count, such as those of a viewer; default: all.
    """

    def __init__(
        self,
        dataset: FixationDataset,
        index: int,
        density_sigma: float = DENSITY_SIGMA,
        baseline: CenterBaseline = CenterBaseline(),  # noqa: B008  (frozen)
        center_bias: Optional[CenterBias] = None,
        chosen: Optional[np.ndarray] = None,
    ):
        self._dataset, self._index = dataset, index
        self._density_sigma, self._baseline, self._center_bias = density_sigma, baseline, center_bias
        self._chosen = slice(None) if chosen is None else chosen
        own: Fixations = dataset[index].fixations
        self.fixations = own if chosen is None else own.chosen(chosen)

    @cached_property
    def density(self) -> np.ndarray:
        """The fixations blurred to a density, float64 [H, W], sum 1."""
        return self.fixations.density(self._density_sigma)

    @cached_property
    def density_distribution(self) -> np.ndarray:
        """The density as the metrics make distributions: float64 [H, W]."""
        return metrics.distribution(self.density)

    @cached_property
    def density_deviations(self) -> np.ndarray:
        """The density less its mean, float64 [H, W]."""
        return metrics.deviations(self.density)

    @cached_property
    def baseline_distribution(self) -> np.ndarray:
        """The baseline's map as a distribution, float64 [H, W]; not to be written to."""
        return _baseline_distribution(self._baseline, self.fixations.shape)

    @cached_property
    def other_fixations(self) -> Fixations:
        """The fixations of all other images, scaled to this one."""
        others = (image.fixations for number, image in enumerate(self._dataset) if number != self._index)
        return pooled(others, self.fixations.shape)

    @cached_property
    def center_log_likelihoods(self) -> np.ndarray:
        """ln of the centre bias's density at the fixations, float64 [n]. Raises InputError without a centre bias."""
        if self._center_bias is None:
            raise InputError("information gain of the Tuebingen protocol needs a centre bias (saliency/center_bias.py)")
        return self._center_bias.log_likelihoods(self._index)[self._chosen]


@lru_cache(maxsize=4)
def _baseline_distribution(baseline: CenterBaseline, shape: Shape) -> np.ndarray:
    return metrics.distribution(baseline.map(shape))


def gain_over_center_bias(prediction: Prediction, fixations: Fixations, center_log_likelihoods: np.ndarray) -> float:
    """Bits per fixation by which a density predicts better than the centre bias of the other images; higher is better.

    Where a log density is -inf at a fixation, so is the gain.
    """
    gains = prediction.log_density_at(fixations.pixels) - center_log_likelihoods
    return float(gains.mean() / np.log(2))


@dataclass(frozen=True)
class Metric:
    """A function of saliency.metrics as one of a prediction and a reference.

    Attributes:
        title: for tables.
        higher_is_better: its direction.
        function: of what `reads` names, and what `takes` names.
        takes: attributes of `Reference`, in order.
        reads: an attribute of `Prediction`, "map", "ranking" or "distribution"; or "prediction", the whole.
    """

    title: str
    higher_is_better: bool
    function: Callable[..., float]
    takes: tuple[str, ...]
    reads: str = "map"

    def of(self, values: Union[np.ndarray, Prediction], truth: Reference) -> float:
        """The score of a map or prediction, [H, W], of the image's size."""
        prediction = as_prediction(values)
        read = prediction if self.reads == "prediction" else getattr(prediction, self.reads)
        return self.function(read, *(getattr(truth, name) for name in self.takes))


def _correlation(saliency_map: np.ndarray, density_deviations: np.ndarray) -> float:
    return metrics.correlation(checked_map(saliency_map), density_deviations)


METRICS = {
    "auc_judd": Metric("AUC-Judd", True, metrics.auc_judd, ("fixations",)),
    "auc_borji": Metric("AUC-Borji", True, metrics.auc_borji, ("fixations",)),
    "shuffled_auc": Metric("sAUC", True, metrics.shuffled_auc, ("fixations", "other_fixations"), "ranking"),
    "nss": Metric("NSS", True, metrics.nss, ("fixations",)),
    "cc": Metric("CC", True, _correlation, ("density_deviations",)),
    "sim": Metric("SIM", True, metrics.shared_mass, ("density_distribution",), "distribution"),
    "kld": Metric("KL", False, metrics.divergence, ("density_distribution",), "distribution"),
    "information_gain": Metric("IG", True, metrics.gain, ("fixations", "baseline_distribution"), "distribution"),
}
TUEBINGEN_METRICS = {
    "gain_over_center_bias": Metric(
        "IG", True, gain_over_center_bias, ("fixations", "center_log_likelihoods"), "prediction"
    ),
    "auc": Metric("AUC", True, metrics.auc, ("fixations",), "ranking"),
    **{name: METRICS[name] for name in ("shuffled_auc", "nss", "cc", "kld", "sim")},
}


@dataclass(frozen=True)
class Protocol:
    """Whose rules scores follow.

    Attributes:
        metrics: in the order of the table.
        tuned_for: what blur and centre are tuned for, unless said otherwise; one of the metrics.
        center_bias: whether a centre bias is fitted: information gain compares with it, and it is the first row.
    """

    metrics: tuple[str, ...]
    tuned_for: str
    center_bias: bool


PROTOCOLS = {
    "mit": Protocol(tuple(METRICS), "auc_judd", False),  # the MIT benchmark's MATLAB code
    "tuebingen": Protocol(tuple(TUEBINGEN_METRICS), "auc", True),  # the MIT/Tuebingen benchmark, by pysaliency
}
ALL_METRICS = {**METRICS, **TUEBINGEN_METRICS}


def get_metric(name: str) -> Metric:
    """The metric of this name. Raises InputError if there is none."""
    if name not in ALL_METRICS:
        raise InputError(f"`metric` must be one of {', '.join(ALL_METRICS)}; got {name!r}")
    return ALL_METRICS[name]


def get_protocol(name: str) -> Protocol:
    """The protocol of this name. Raises InputError if there is none."""
    if name not in PROTOCOLS:
        raise InputError(f"`protocol` must be one of {', '.join(PROTOCOLS)}; got {name!r}")
    return PROTOCOLS[name]


def score_maps(
    maps: Iterable[Union[np.ndarray, Prediction]], truth: Reference, names: Sequence[str] = tuple(METRICS)
) -> np.ndarray:
    """Several maps of one image by several metrics; density, negatives and baseline are made once.

    Args:
        maps: each [H, W], of the image's size, or a prediction; also an array [B, H, W].
        truth: about the image.
        names: keys of ALL_METRICS.

    Returns:
        float64 [B, len(names)].
    """
    chosen = [get_metric(name) for name in names]
    rows = [[metric.of(prediction, truth) for metric in chosen] for prediction in map(as_prediction, maps)]
    return np.array(rows, np.float64).reshape(-1, len(chosen))
