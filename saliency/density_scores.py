"""Scores of ponder densities by the Tuebingen protocol, each metric on the map that is expected to be its best."""

from dataclasses import dataclass
from typing import Optional, Sequence

import numpy as np

from saliency.center_bias import CenterBias
from saliency.dataset import FixationDataset
from saliency.map_sources import Maps
from saliency.parallel import each_image
from saliency.ponder_density import PonderDensity, best_maps
from saliency.scores import TUEBINGEN_METRICS, Reference


@dataclass(frozen=True, eq=False)
class DensityData:
    """A data set, its halves, and what its scores need.

    Attributes:
        name: of the data set in tables.
        images: all of them.
        sigma: blur of the fixation density, in pixels.
        center_bias: of all images.
        fitted_on, scored: indices of images.
    """

    name: str
    images: FixationDataset
    sigma: float
    center_bias: CenterBias
    fitted_on: Sequence[int]
    scored: Sequence[int]


def density_scores(
    data: DensityData, maps: Optional[Maps], density: Optional[PonderDensity], processes: int = 1
) -> np.ndarray:
    """The scores of the images that were not fitted on, float64 [images, metrics] in the order of TUEBINGEN_METRICS.

    Args:
        data: the images.
        maps: by block, from an image's name to [B, h, w].
        density: fitted; None scores the centre bias, which needs no maps.
        processes: as `each_image`'s.

    Raises:
        InputError: a map is missing or bad.
    """
    return np.stack(each_image(_Scoring(data, maps, density), len(data.scored), "densities", processes))


@dataclass(frozen=True, eq=False)
class _Scoring:
    data: DensityData
    maps: Optional[Maps]
    density: Optional[PonderDensity]

    def __call__(self, number: int) -> np.ndarray:
        """The scores of the image of this number among the scored ones, float64 [metrics]."""
        data, index = self.data, self.data.scored[number]
        image, found = data.images[index], data.center_bias.log_density(index)
        center = found
        if self.density is not None and self.maps is not None:
            found = self.density.log_density(self.maps(image.name), image.shape)
        truth = Reference(data.images, index, data.sigma, center_bias=data.center_bias)
        best = best_maps(found, center, data.sigma)
        return np.array([metric.of(best[name](), truth) for name, metric in TUEBINGEN_METRICS.items()])
