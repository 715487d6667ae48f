"""Between this package and pysaliency: our maps as its models, its stimuli and fixations as our data sets.

pysaliency is imported when first needed. Release 0.2.22 calls numpy.trapz and pkg_resources, which current releases of
numpy and setuptools have dropped: it needs numpy < 2.4 and setuptools < 81, or these two names supplied before.
"""

from pathlib import Path
from typing import Any, Callable

import numpy as np

from sact_det.base.errors import InputError, naming
from saliency.dataset import FixationDataset, FixationImage
from saliency.scanpaths import fixations_of_points


def _pysaliency() -> Any:
    with naming("this needs pysaliency (pip install pysaliency)", ImportError):
        import pysaliency
    return pysaliency


def as_saliency_map_model(map_of: Callable[[np.ndarray], np.ndarray], *, caching: bool = True) -> Any:
    """A pysaliency.SaliencyMapModel.

    Args:
        map_of: from an image, uint8 RGB [H, W, 3], to its saliency map, float [H, W].
        caching: keeps the maps in memory, as pysaliency's models do.

    Raises:
        InputError: pysaliency cannot be imported. The model, if asked for a map of a picture that is not uint8.
    """

    class MapModel(_pysaliency().SaliencyMapModel):  # type: ignore[misc]
        def _saliency_map(self, stimulus: np.ndarray) -> np.ndarray:
            return np.asarray(map_of(_as_rgb(stimulus)), np.float64)

    return MapModel(caching=caching)


def from_pysaliency(stimuli: Any, fixations: Any, name: str = "pysaliency") -> FixationDataset:
    """A data set from pysaliency's `Stimuli` and `Fixations`; stimuli without fixations are listed as left out.

    The attribute "category" of the stimuli becomes the category. Images of `FileStimuli` stay on disk.

    Raises:
        InputError: no stimulus has fixations, or a fixation lies outside its stimulus.
    """
    categories = getattr(stimuli, "attributes", {}).get("category", [""] * len(stimuli))
    files = getattr(stimuli, "filenames", None)
    numbers, x, y = (np.asarray(values) for values in (fixations.n, fixations.x, fixations.y))
    order = np.argsort(numbers, kind="stable")
    first = np.searchsorted(numbers[order], np.arange(len(stimuli) + 1))
    images, skipped = [], []
    for index in range(len(stimuli)):
        chosen = order[first[index] : first[index + 1]]
        title = f"{index:0{len(str(len(stimuli)))}}" if files is None else str(files[index])
        if chosen.size == 0:
            skipped.append(f"{name}: {title}: no fixations")
            continue
        points = np.stack([x[chosen], y[chosen]], axis=1)
        with naming(f"{name}: {title}", InputError):
            viewers = getattr(fixations, "subjects", None)
            known = None if viewers is None else np.asarray(viewers)[chosen]
            found = fixations_of_points(points, tuple(stimuli.sizes[index]), known)
        source: Any = _as_rgb(stimuli.stimuli[index]) if files is None else Path(files[index])
        images.append(FixationImage(title, str(categories[index]), found, source))
    return FixationDataset(name, images, skipped)


def to_pysaliency(dataset: FixationDataset) -> tuple[Any, Any]:
    """pysaliency's `Stimuli` and `Fixations` of a data set; images that are files stay files."""
    pysaliency = _pysaliency()
    attributes = {"category": [image.category for image in dataset]}
    if any(isinstance(image.source, np.ndarray) for image in dataset):
        stimuli = pysaliency.Stimuli([image.pixels() for image in dataset], attributes=attributes)
    else:
        stimuli = pysaliency.FileStimuli([str(image.source) for image in dataset], attributes=attributes)
    x, y = (np.concatenate([getattr(image.fixations, axis) for image in dataset]).astype(float) for axis in "xy")
    numbers = np.repeat(np.arange(len(dataset)), [len(image.fixations) for image in dataset])
    return stimuli, pysaliency.Fixations.create_without_history(x, y, numbers)


def _as_rgb(stimulus: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3], also of a grey stimulus."""
    stimulus = np.asarray(stimulus)
    if stimulus.dtype != np.uint8:
        raise InputError(f"a stimulus must be uint8; got {stimulus.dtype}")
    return np.repeat(stimulus[:, :, None], 3, axis=2) if stimulus.ndim == 2 else stimulus[:, :, :3]
