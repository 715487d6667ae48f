"""How well people predict people: the upper rows of a table, where it is known who looked.

The density of some viewers is k times their fixations blurred by a Gaussian of s pixels, plus c times the centre bias
of the other images, plus the rest uniform. s, k and c are those under which every viewer's fixations are likeliest,
predicted by the other viewers of the image. "One viewer by the others" (the inter-observer limit) scores these
predictions, against the viewer left out; the "gold standard" is the density of all viewers, against all.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Callable, Optional, Sequence

import numpy as np
from scipy.optimize import minimize_scalar

from sact_det.base.errors import InputError
from saliency.blur import blur_matrix
from saliency.center_bias import CenterBias
from saliency.dataset import FixationDataset
from saliency.fixations import Fixations, Shape
from saliency.prediction import Prediction
from saliency.scores import Reference, score_maps

PEOPLE = "people"
STAGES = ("one viewer by the others", "gold standard")
_WIDTHS = (0.005, 0.2)  # between which s is looked for, in longer sides of an image
_STEPS = 100  # of the fit of the weights


def has_viewers(dataset: FixationDataset) -> bool:
    """Whether every image has two viewers or more."""
    known = (image.fixations.viewer for image in dataset)
    return all(viewer is not None and len(np.unique(viewer)) > 1 for viewer in known)


@dataclass(frozen=True, eq=False)
class Observers:
    """The fitted density of viewers.

    Attributes:
        dataset: whose fixations have viewers.
        center_bias: of its images.
        width: s, in longer sides of an image.
        weights: k, c and the uniform density's; their sum is 1.
    """

    dataset: FixationDataset
    center_bias: CenterBias
    width: float
    weights: tuple[float, float, float]

    @classmethod
    def fit_if_known(cls, dataset: FixationDataset) -> Optional["Observers"]:
        """`fit` with a centre bias of the same images; None where viewers are not known, or there is one image."""
        if not has_viewers(dataset) or len(dataset) < 2:
            return None
        return cls.fit(dataset, CenterBias.fit([image.fixations for image in dataset]))

    @classmethod
    def fit(cls, dataset: FixationDataset, center_bias: CenterBias) -> "Observers":
        """The width and weights under which viewers are likeliest; every image counts alike.

        Raises:
            InputError: an image has no two viewers.
        """
        if not has_viewers(dataset):
            raise InputError(f"{dataset.name}: it is not known of every image which two viewers or more looked")
        centers = np.concatenate([np.exp(center_bias.log_likelihoods(index)) for index in range(len(dataset))])
        uniform = np.concatenate([np.full(len(one.fixations), 1 / (one.shape[0] * one.shape[1])) for one in dataset])
        counts = np.concatenate([np.full(len(one.fixations), len(one.fixations)) for one in dataset])
        per_image = 1 / (counts * len(dataset))

        def fitted(log_width: float) -> tuple[np.ndarray, float]:
            parts = [_by_others(image.fixations, float(np.exp(log_width))) for image in dataset]
            return _weights(np.stack([np.concatenate(parts), centers, uniform], axis=1), per_image)

        bounds = tuple(np.log(_WIDTHS))
        found = minimize_scalar(
            lambda value: -fitted(value)[1], bounds=bounds, method="bounded", options={"xatol": 0.02}
        )
        weights = fitted(float(found.x))[0].tolist()
        return cls(dataset, center_bias, float(np.exp(found.x)), (weights[0], weights[1], weights[2]))

    def log_density(self, index: int, viewers: np.ndarray) -> np.ndarray:
        """ln of the density of those fixations of an image that a mask [n] chooses, float64 [H, W]."""
        fixations = self.dataset[index].fixations.chosen(viewers)
        own, center, uniform = self.weights
        density = own * fixations.density(self.width * max(fixations.shape))
        density += center * np.exp(self.center_bias.log_density(index)) + uniform / density.size
        logarithm: np.ndarray = np.log(density)
        return logarithm


def _by_others(fixations: Fixations, width: float) -> np.ndarray:
    """The blurred density of all other viewers at every fixation, float64 [n]."""
    assert fixations.viewer is not None
    vertical, horizontal = _matrices(fixations.shape, width * max(fixations.shape))
    pairs = vertical[np.ix_(fixations.y, fixations.y)] * horizontal[np.ix_(fixations.x, fixations.x)]
    others = fixations.viewer[:, None] != fixations.viewer
    return (pairs * others).sum(axis=1).clip(min=0) / others.sum(axis=1)


def _weights(parts: np.ndarray, per_fixation: np.ndarray) -> tuple[np.ndarray, float]:
    """The weights of a mixture of densities [n, 3] with the greatest mean ln likelihood, and this mean (EM)."""
    weights = np.full(parts.shape[1], 1 / parts.shape[1])
    for _ in range(_STEPS):
        shares = parts * weights
        weights = per_fixation @ (shares / shares.sum(axis=1, keepdims=True))
    return weights, float(per_fixation @ np.log(parts @ weights))


@lru_cache(maxsize=4)
def _matrices(shape: Shape, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    return blur_matrix(shape[0], sigma), blur_matrix(shape[1], sigma)


def observer_scores(
    observers: Observers, index: int, names: Sequence[str], reference: Callable[[Optional[np.ndarray]], Reference]
) -> np.ndarray:
    """The scores of an image in the order of STAGES, float64 [2, metrics].

    One viewer by the others is the mean over viewers, each counting as often as they fixated.

    Args:
        observers: the fitted density.
        index: of the image.
        names: of the metrics.
        reference: to the fixations that a mask chooses, or to all.
    """
    viewer = observers.dataset[index].fixations.viewer
    assert viewer is not None
    viewers, counts = np.unique(viewer, return_counts=True)
    scores = []
    for one in viewers:
        others = Prediction(observers.log_density(index, viewer != one), is_log_density=True)
        scores.append(score_maps([others], reference(viewer == one), names)[0])
    everyone = Prediction(observers.log_density(index, np.ones(len(viewer), bool)), is_log_density=True)
    return np.stack([counts @ np.stack(scores) / counts.sum(), score_maps([everyone], reference(None), names)[0]])
