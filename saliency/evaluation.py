"""The rows of the paper's Table 2: centre baselines, and each model's maps as they are, blurred, and with the centre.

A log density, and whatever is asked to be, is scored as it is, in one row. What is tuned (blur, share of the centre) is
tuned on other images than those it is scored on: on the first half of every category for its second half, as in the
paper, or on all other folds. Every row is scored on the same images.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Mapping, Optional, Sequence

import numpy as np

from sact_det.base.errors import InputError, naming
from saliency.center import KINDS, CenterBaseline
from saliency.center_bias import CenterBias
from saliency.dataset import FixationDataset, Split
from saliency.fixations import DENSITY_SIGMA
from saliency.intervals import Interval, bootstrap_intervals
from saliency.map_sources import Maps
from saliency.observers import PEOPLE, Observers, observer_scores
from saliency.observers import STAGES as PEOPLE_STAGES
from saliency.parallel import each_image
from saliency.postprocess import PostProcessing, resize
from saliency.prediction import Prediction
from saliency.scores import METRICS, Reference, get_metric, get_protocol, score_maps
from saliency.search import Grid, GridScores, grid_scores

Intervals = dict[str, Interval]  # by metric

CENTER = "centre baseline"
FITTED = "fitted to the other images"  # the centre baseline that is a centre bias
PONDER_MAP, GIVEN_MAP, LOG_DENSITY = "ponder map", "as given", "log density"  # what a model's maps are
STAGES = (PONDER_MAP, "blurred", "with centre")  # of a model's maps; the first may be another of these


@dataclass(frozen=True)
class Settings:
    """How maps are tuned and scored.

    Attributes:
        grid: blurs and multipliers to try.
        center: the baseline that maps are mixed and compared with, also in information gain.
        tuned_for: the metric that tuning improves, one of `metrics`.
        metrics: of the rows.
        density_sigma: blur of the fixation density, in pixels of the image.
        processes: as `each_image`'s.
        protocol: whose rules the metrics follow; it says whether a centre bias is fitted.

    Raises:
        InputError: a metric or protocol is unknown, or the width of the density's blur is out of range.
    """

    grid: Grid
    center: CenterBaseline
    tuned_for: str = "auc_judd"
    metrics: Sequence[str] = tuple(METRICS)
    density_sigma: float = DENSITY_SIGMA
    processes: int = 1
    protocol: str = "mit"

    def __post_init__(self) -> None:
        get_protocol(self.protocol)
        for name in (self.tuned_for, *self.metrics):
            get_metric(name)
        if self.tuned_for not in self.metrics:
            raise InputError(f"`tuned_for` must be one of the metrics of the rows; got {self.tuned_for!r}")
        if not 0 < self.density_sigma < np.inf:
            raise InputError(f"`density_sigma` must be positive; got {self.density_sigma}")
        if 0 not in self.grid.multipliers:
            raise InputError("`multipliers` of the grid must hold 0, the map without the centre")


@dataclass(frozen=True)
class Model:
    """A source of maps under a name.

    Attributes:
        name, maps: of the model.
        chain: has the maps' resolutions; sigma, multiplier and centre are replaced.
        kind: what the maps are: PONDER_MAP, GIVEN_MAP or LOG_DENSITY.
        as_is: whether they are scored as they are, only resized where they have another size than the image. Always
            so of log densities, which are never resized.
    """

    name: str
    maps: Maps
    chain: PostProcessing
    kind: str = PONDER_MAP
    as_is: bool = False

    @property
    def is_tuned(self) -> bool:
        """Whether blur and share of the centre are tuned."""
        return not self.as_is and self.kind != LOG_DENSITY


@dataclass(frozen=True)
class Method:
    """A row before it is scored: what becomes of a model's maps, for every split.

    Attributes:
        model: its name, or CENTER.
        stage: one of STAGES, another kind of map, or the kind of centre baseline.
        chains: for every split; none for what is scored as it is.
        notices: on what to be wary of in what was tuned.
    """

    model: str
    stage: str
    chains: Sequence[PostProcessing]
    notices: Sequence[str] = ()


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
    bias = _center_bias(dataset, settings)
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
    rows = [Row(method, values) for method, values in zip(methods, np.stack(scores, axis=1))]
    return Evaluation(dataset, splits, settings, models, indices, rows)


def _center_bias(dataset: FixationDataset, settings: Settings) -> Optional[CenterBias]:
    is_asked_for = get_protocol(settings.protocol).center_bias
    return CenterBias.fit([image.fixations for image in dataset]) if is_asked_for else None


def center_methods(center: CenterBaseline, splits: int) -> list[Method]:
    """The given baseline as a method, then the other kinds, each for so many splits."""
    kinds = (center, *(CenterBaseline(kind) for kind in KINDS if kind != center.kind))
    return [Method(CENTER, one.kind, [PostProcessing(multiplier=np.inf, center=one)] * splits) for one in kinds]


def tuned_methods(dataset: FixationDataset, model: Model, splits: Sequence[Split], settings: Settings) -> list[Method]:
    """A model's maps as they are, at the best blur, and at the best blur and share of the centre."""
    chain = replace(model.chain, sigma=0.0, multiplier=0.0, center=settings.center)
    tuned_on = sorted({index for split in splits for index in split.tuned_on})
    tuning = dataset.subset(tuned_on)
    search = grid_scores(
        tuning,
        model.maps,
        chain,
        settings.grid,
        metric=settings.tuned_for,
        density_sigma=settings.density_sigma,
        center_bias=_center_bias(tuning, settings),
        processes=settings.processes,
    )
    column = settings.grid.multipliers.index(0)
    alone = GridScores(Grid(settings.grid.sigmas, (0,)), search.metric, search.values[:, :, column : column + 1])
    methods = [Method(model.name, model.kind, [chain] * len(splits))]
    position = {index: row for row, index in enumerate(tuned_on)}
    for stage, scores in zip(STAGES[1:], (alone, search)):
        points = [scores.best([position[index] for index in split.tuned_on]) for split in splits]
        notices = dict.fromkeys(line for point in points for line in scores.edge_notices(point))
        chains = [replace(chain, sigma=point.sigma, multiplier=point.multiplier) for point in points]
        methods.append(Method(model.name, stage, chains, list(notices)))
    return methods


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


def as_it_is(model: Model, made: np.ndarray, shape: tuple[int, int]) -> Prediction:
    """A model's map without post-processing, resized to [H, W] of `shape` if it has another size.

    Raises:
        InputError: it is a log density of another size.
    """
    if model.kind != LOG_DENSITY:
        return Prediction(resize(made, shape, model.chain.interpolation))
    if made.shape != shape:
        raise InputError(
            f"a log density of {made.shape[1]}x{made.shape[0]} pixels; the image has {shape[1]}x{shape[0]}"
        )
    return Prediction(made, is_log_density=True)


@lru_cache(maxsize=len(KINDS))
def _center_prediction(center: CenterBaseline, shape: tuple[int, int]) -> Prediction:
    """A baseline as a prediction, kept for the next image of this shape: what metrics make of it is made once."""
    return Prediction(center.single(shape))


def saliency_map(chain: PostProcessing, made: Optional[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """float32 [H, W] of `shape`: what a chain makes of a map, or of none (the centre alone)."""
    return chain.center.single(shape) if made is None else chain(made, shape)
