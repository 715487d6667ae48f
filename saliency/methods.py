"""What is scored, before it is: models, and what becomes of their maps in the rows of the paper's Table 2.

A log density, and whatever is asked to be, is scored as it is, in one row. Of other maps blur and share of the centre
are tuned on other images than those they are scored on.
"""

from dataclasses import dataclass, replace
from typing import Optional, Sequence

import numpy as np

from sact_det.base.errors import InputError
from saliency.center import KINDS, CenterBaseline
from saliency.center_bias import CenterBias
from saliency.dataset import FixationDataset, Split
from saliency.fixations import DENSITY_SIGMA
from saliency.map_sources import Maps
from saliency.postprocess import PostProcessing, resize
from saliency.prediction import Prediction
from saliency.scores import METRICS, get_metric, get_protocol
from saliency.search import Grid, GridScores, grid_scores

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

    def center_bias(self, dataset: FixationDataset) -> Optional[CenterBias]:
        """One fitted to the images, if the protocol has one."""
        is_asked_for = get_protocol(self.protocol).center_bias
        return CenterBias.fit([image.fixations for image in dataset]) if is_asked_for else None


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
        notices: on what to be wary of in what was tuned, and in the scores.
    """

    model: str
    stage: str
    chains: Sequence[PostProcessing]
    notices: Sequence[str] = ()


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
        center_bias=settings.center_bias(tuning),
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


def saliency_map(chain: PostProcessing, made: Optional[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """float32 [H, W] of `shape`: what a chain makes of a map, or of none (the centre alone)."""
    return chain.center.single(shape) if made is None else chain(made, shape)
