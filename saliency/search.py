"""The grid of blurs and shares of the centre baseline, and every image's score at each of its points.

A map's cosine transform is taken once, each blur once per sigma, and every mixture is scored without being sorted
(saliency/ranks.py). Images are independent and go to several processes.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Optional, Sequence

import numpy as np

from sact_det.base.errors import InputError, naming
from saliency.center_bias import CenterBias
from saliency.dataset import FixationDataset
from saliency.fixations import DENSITY_SIGMA
from saliency.map_sources import Maps
from saliency.parallel import each_image
from saliency.postprocess import PostProcessing, mix
from saliency.scores import Reference, get_metric

# The MIT benchmark's optimisation code; the paper's own grid is unknown.
MIT_SIGMAS = (0, 1, 10, 20, 30, 40, 60, 80, 100)  # pixels
MIT_WEIGHTS = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)


@dataclass(frozen=True)
class Grid:
    """Values to try.

    Attributes:
        sigmas: of the blur, in pixels of the image, ascending.
        multipliers: of the centre baseline, ascending; inf is the centre alone.

    Raises:
        InputError: there are none, or they do not ascend from 0 or more.
    """

    sigmas: tuple[float, ...]
    multipliers: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, values in (("sigmas", self.sigmas), ("multipliers", self.multipliers)):
            if not values or not values[0] >= 0 or any(not a < b for a, b in pairwise(values)):
                raise InputError(f"`{name}` of a grid must ascend from 0 or more; got {', '.join(map(str, values))}")
        if np.isinf(self.sigmas[-1]):
            raise InputError("`sigmas` of a grid must be finite")

    @classmethod
    def from_weights(cls, sigmas: Sequence[float], weights: Sequence[float]) -> "Grid":
        """From weights w in [0, 1] of (1 - w) map + w centre, which AUC cannot tell from multipliers w / (1 - w)."""
        return cls(tuple(sigmas), tuple(weight / (1 - weight) if weight < 1 else np.inf for weight in weights))

    @classmethod
    def mit(cls) -> "Grid":
        """The grid of the MIT benchmark: 9 sigmas x 11 weights."""
        return cls.from_weights(MIT_SIGMAS, MIT_WEIGHTS)


@dataclass(frozen=True)
class GridPoint:
    """A point of a grid, and its mean score over some images."""

    sigma: float
    multiplier: float
    score: float


@dataclass(frozen=True, eq=False)
class GridScores:
    """Every image's score at every point.

    Attributes:
        grid, metric: what was tried, and measured.
        values: float64 [images, sigmas, multipliers].
    """

    grid: Grid
    metric: str
    values: np.ndarray

    def mean(self, indices: Optional[Sequence[int]] = None) -> np.ndarray:
        """float64 [sigmas, multipliers], over all images or those of `indices`."""
        return (self.values if indices is None else self.values[list(indices)]).mean(axis=0)

    def best(self, indices: Optional[Sequence[int]] = None) -> GridPoint:
        """The best point over all images or those of `indices`; of equal ones the least blurred, least centred."""
        mean = self.mean(indices)
        signed = mean if get_metric(self.metric).higher_is_better else -mean
        row, column = np.unravel_index(np.argmax(signed), mean.shape)
        return GridPoint(self.grid.sigmas[row], self.grid.multipliers[column], float(mean[row, column]))

    def edge_notices(self, point: GridPoint) -> list[str]:
        """A line for each axis on whose edge a point lies: beyond it there may be a better one."""
        lines = []
        axes = (("sigma", point.sigma, self.grid.sigmas), ("multiplier", point.multiplier, self.grid.multipliers))
        for name, value, values in axes:
            if len(values) > 1 and value in (values[0], values[-1]):
                end = value == 0 or np.isinf(value)
                advice = "which is the end of its range" if end else "a wider grid may hold a better one"
                lines.append(f"the best {name}, {value:g}, lies on the edge of the grid: {advice}")
        return lines


def grid_scores(
    dataset: FixationDataset,
    maps: Maps,
    chain: PostProcessing,
    grid: Grid,
    *,
    metric: str = "auc_judd",
    density_sigma: float = DENSITY_SIGMA,
    center_bias: Optional[CenterBias] = None,
    processes: int = 1,
) -> GridScores:
    """Scores every image at every point of a grid.

    Args:
        dataset: the images.
        maps: from an image's name to its map, float [h, w], such as a `MapCache`; sent to the processes.
        chain: the post-processing; the grid replaces its sigma and multiplier.
        grid: the points.
        metric: a key of ALL_METRICS.
        density_sigma: blur of the fixation density, in pixels of the image.
        center_bias: of the images, for a metric that compares with it.
        processes: as `each_image`'s.

    Raises:
        InputError: a map is missing or bad (its image is named), or an argument is out of range.
    """
    get_metric(metric)
    task = _Task(dataset, maps, chain, grid, metric, density_sigma, center_bias)
    return GridScores(grid, metric, np.stack(each_image(task, len(dataset), f"grid, {metric}", processes)))


@dataclass(frozen=True, eq=False)
class _Task:
    """Scores one image at every point."""

    dataset: FixationDataset
    maps: Maps
    chain: PostProcessing
    grid: Grid
    metric: str
    density_sigma: float
    center_bias: Optional[CenterBias]

    def __call__(self, index: int) -> np.ndarray:
        """The scores of the image of this index, float64 [sigmas, multipliers]."""
        image = self.dataset[index]
        with naming(image.name, InputError):
            truth = Reference(self.dataset, index, self.density_sigma, center_bias=self.center_bias)
            return self._scores(self.maps(image.name), truth, image.shape)

    def _scores(self, ponder_map: np.ndarray, truth: Reference, shape: tuple[int, int]) -> np.ndarray:
        metric = get_metric(self.metric)
        center = self.chain.center.single(shape)
        mixture = np.empty(shape, np.float32)
        scores = np.empty((len(self.grid.sigmas), len(self.grid.multipliers)))
        for row, normalized in enumerate(self.chain.normalized(ponder_map, shape, self.grid.sigmas)):
            for column, multiplier in enumerate(self.grid.multipliers):
                if row and np.isinf(multiplier):
                    scores[row, column] = scores[0, column]  # the centre alone
                else:
                    scores[row, column] = metric.of(mix(normalized, center, multiplier, out=mixture), truth)
        return scores
