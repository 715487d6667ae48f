"""What the MIT/Tuebingen benchmark takes: an HDF5 file of log densities, or an archive of maps in category folders."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Optional, Sequence

import numpy as np

from sact_det.data.image_files import distinct_stems
from saliency.center import CenterBaseline
from saliency.dataset import FixationDataset, FixationImage
from saliency.methods import LOG_DENSITY, Model, as_it_is, saliency_map
from saliency.postprocess import PostProcessing
from saliency.stored import read_back, write_archive, write_hdf5

logger = logging.getLogger(__name__)


def write_submissions(
    folder: Path,
    dataset: FixationDataset,
    models: Sequence[Model],
    center: CenterBaseline,
    sigma: Optional[float] = None,
    multiplier: Optional[float] = None,
) -> list[Path]:
    """Writes FOLDER/<model>.h5 of every model of log densities, FOLDER/<model>.zip of every other.

    Each is read back with pysaliency, where that can be imported.

    Args:
        folder: an existing one.
        dataset: the images; fixations are not looked at.
        models: what is submitted.
        center: the baseline that `multiplier` adds.
        sigma, multiplier: what is done with maps, as in `PostProcessing`; None for both: nothing.

    Raises:
        InputError: a map is missing, bad or no log density, or is read back as another.
    """
    names = [model.name for model in models]
    written = []
    for model, stem in zip(models, distinct_stems(["".join(c if c.isalnum() else "_" for c in one) for one in names])):
        is_density = model.kind == LOG_DENSITY
        chain: Optional[PostProcessing] = None
        if not is_density and not (sigma is None and multiplier is None):
            chain = replace(model.chain, sigma=sigma or 0.0, multiplier=multiplier or 0.0, center=center)

        def made(image: FixationImage, model: Model = model, chain: Optional[PostProcessing] = chain) -> np.ndarray:
            values = model.maps(image.name)
            if chain is not None:
                return saliency_map(chain, values, image.shape)
            return as_it_is(model, values, image.shape).values

        path = folder / f"{stem}{'.h5' if is_density else '.zip'}"
        (write_hdf5 if is_density else write_archive)(path, dataset, made)
        read = read_back(path, dataset, is_density)
        seen = "pysaliency is not installed: not read back" if read is None else f"pysaliency reads {read} images"
        logger.info("%s: %d images; %s", path, len(dataset), seen)
        written.append(path)
    return written
