"""The paper's Table 2: centre baselines, and each model's maps as they are, blurred, and with the centre.

What is tuned (saliency/methods.py) is scored on other images: on the second half of every category after its first, as
in the paper, or on one fold after all others. Every row is scored on the same images.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Mapping, Optional, Sequence

import numpy as np

from sact_det.base.errors import InputError, naming
from saliency.center import KINDS, CenterBaseline
from saliency.center_bias import CenterBias
from saliency.dataset import FixationDataset, Split
from saliency.intervals import Interval, bootstrap_intervals
from saliency.methods import (
    CENTER,
    FITTED,
    Method,
    Model,
    Settings,
    as_it_is,
    center_methods,
    saliency_map,
    tuned_methods,
)
from saliency.observers import PEOPLE, Observers, observer_scores
from saliency.observers import STAGES as PEOPLE_STAGES
from saliency.parallel import each_image
from saliency.prediction import Prediction
from saliency.scores import Reference, score_maps

Intervals = dict[str, Interval]  # by metric


@dataclass(frozen=True, eq=False)
class Row:
    """A method and its scores: float64 [images, metrics]."""

    method: Method
    scores: np.ndarray


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Methods scored on the same images.

    Attributes:
        dataset: all images, of which some were tuned on only.
        splits, settings, models: what was asked for.
        indices: of the scored images, ascending.
        rows: the centre baselines first (that of the settings before the others, a fitted one before it), then the
            models' in order, then people's where viewers are known.
    """

    dataset: FixationDataset
    splits: Sequence[Split]
    settings: Settings
    models: Sequence[Model]
    indices: Sequence[int]
    rows: Sequence[Row]

    @property
    def categories(self) -> dict[str, list[int]]:
        """By category, the numbers of its images among the scored ones, in order."""
        return self.dataset.subset(self.indices).categories

    @cached_property
    def intervals(self) -> dict[Optional[str], list[Intervals]]:
        """For all images (None) and every category: a mean and its bootstrap interval for each row and metric."""
        groups: dict[Optional[str], list[int]] = {None: list(range(len(self.indices)))}
        groups.update(self.categories)
        return {name: self._summarized([row.scores[images] for row in self.rows]) for name, images in groups.items()}

    @cached_property
    def above_center(self) -> list[Intervals]:
        """The same of the difference to the first row, the centre baseline, on the same images; over all of them."""
        return self._summarized([row.scores - self.rows[0].scores for row in self.rows])

    def _summarized(self, scores: Sequence[np.ndarray]) -> list[Intervals]:
        names = self.settings.metrics
        flat = bootstrap_intervals(np.concatenate(scores, axis=1))
        return [dict(zip(names, flat[start:])) for start in range(0, len(flat), len(names))]


def evaluate(
    dataset: FixationDataset, models: Sequence[Model], splits: Sequence[Split], settings: Settings
) -> Evaluation:
    """Tunes, then scores.

    Args:
        dataset: the images.
        models: their names all different; none: only centre baselines are scored.
        splits: what is tuned on which images, for which images; no image is scored twice.
        settings: how.

    Raises:
        InputError: a map is missing or bad (its image is named), two models have one name.
    """
    names = [model.name for model in models]
    if len({CENTER, PEOPLE, *names}) != len(names) + 2:
        raise InputError(f"models need different names, other than {CENTER!r} and {PEOPLE!r}; got {', '.join(names)}")
    observers = Observers.fit_if_known(dataset)
    bias = settings.center_bias(dataset)
    methods = [Method(CENTER, FITTED, [])] if bias else []
    methods += center_methods(settings.center, len(splits))
    for model in models:
        tuned = model.is_tuned
        methods += tuned_methods(dataset, model, splits, settings) if tuned else [Method(model.name, model.kind, [])]
    methods += [Method(PEOPLE, stage, []) for stage in PEOPLE_STAGES] if observers else []
    fold_of = {index: fold for fold, split in enumerate(splits) for index in split.scored}
    indices = sorted(fold_of)
    task = _Scoring(
        dataset, indices, fold_of, {model.name: model for model in models}, methods, settings, bias, observers
    )
    scores = each_image(task, len(indices), "all metrics", settings.processes)
    scored = dataset.subset(indices)
    rows = [
        Row(_with_notice(method, values, scored), values) for method, values in zip(methods, np.stack(scores, axis=1))
    ]
    return Evaluation(dataset, splits, settings, models, indices, rows)


def _with_notice(method: Method, scores: np.ndarray, images: FixationDataset) -> Method:
    """Says of how many images a score is -inf: the density is 0 where somebody looked."""
    (impossible,) = np.nonzero(np.isneginf(scores).any(axis=1))
    if not len(impossible):
        return method
    first = images[impossible[0]].name
    line = f"p = 0 where somebody looked, in {len(impossible)} of {len(images)} images, the first: {first}; IG is -inf"
    return replace(method, notices=[*method.notices, line])


@dataclass(frozen=True, eq=False)
class _Scoring:
    """Scores one image by every method and metric."""

    dataset: FixationDataset
    indices: Sequence[int]
    fold_of: Mapping[int, int]
    models: Mapping[str, Model]
    methods: Sequence[Method]
    settings: Settings
    center_bias: Optional[CenterBias]
    observers: Optional[Observers]

    def __call__(self, number: int) -> np.ndarray:
        """The scores of the image of this number among the scored ones, float64 [methods, metrics]."""
        index = self.indices[number]
        image = self.dataset[index]
        settings, metrics = self.settings, self.settings.metrics

        def reference(chosen: Optional[np.ndarray]) -> Reference:
            sigma, center = settings.density_sigma, settings.center
            return Reference(self.dataset, index, sigma, center, self.center_bias, chosen)

        with naming(image.name, InputError):
            made = {name: model.maps(image.name) for name, model in self.models.items()}
            of_models = (method for method in self.methods if method.model != PEOPLE)
            predictions = (self._prediction(method, made.get(method.model), index) for method in of_models)
            scores = score_maps(predictions, reference(None), metrics)
            if self.observers is None:
                return scores
            return np.concatenate([scores, observer_scores(self.observers, index, metrics, reference)])

    def _prediction(self, method: Method, made: Optional[np.ndarray], index: int) -> Prediction:
        shape = self.dataset[index].shape
        if method.model == CENTER and method.chains:
            return _center_prediction(method.chains[0].center, shape)
        if method.chains:
            return Prediction(saliency_map(method.chains[self.fold_of[index]], made, shape))
        if made is None:
            assert self.center_bias is not None
            return Prediction(self.center_bias.log_density(index), is_log_density=True)
        return as_it_is(self.models[method.model], made, shape)


@lru_cache(maxsize=len(KINDS))
def _center_prediction(center: CenterBaseline, shape: tuple[int, int]) -> Prediction:
    """A baseline as a prediction, kept for the next image of this shape: what metrics make of it is made once."""
    return Prediction(center.single(shape))
