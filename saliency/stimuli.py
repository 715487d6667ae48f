"""Images without fixations, such as a benchmark's test set: what maps are made of, not what they are scored on."""

from pathlib import Path
from typing import Union

import numpy as np

from sact_det.base.errors import InputError
from sact_det.data.image_files import IMAGE_SUFFIXES, is_visible
from saliency.cat2000 import OUTPUT, STIMULI
from saliency.dataset import FixationDataset, FixationImage, natural_order
from saliency.fixations import Fixations
from saliency.images import read_image


def read_stimuli(folder: Union[str, Path]) -> FixationDataset:
    """The images below a folder, each called by its path in it without suffix; its folder is its category.

    Args:
        folder: of the images, or of a data set in CAT2000's layout (with `Stimuli`, or testSet or trainSet around it).

    Raises:
        InputError: there is no such folder, it holds no images, one cannot be read, or two would have one name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of images")
    inner = (folder / STIMULI, folder / "testSet" / STIMULI, folder / "trainSet" / STIMULI)
    root = next((candidate for candidate in inner if candidate.is_dir()), folder)
    images = []
    for path in sorted(root.rglob("*"), key=lambda path: natural_order(str(path.relative_to(root)))):
        parts = path.relative_to(root).parts
        hidden = not all(is_visible(part) for part in parts) or OUTPUT in map(str.lower, parts[:-1])
        if path.suffix.lower() not in IMAGE_SUFFIXES or hidden or not path.is_file():
            continue
        height, width = read_image(path).shape[:2]
        none = np.zeros(0, np.int64)
        name = Path(*parts).with_suffix("").as_posix()
        images.append(FixationImage(name, "/".join(parts[:-1]), Fixations(none, none, (height, width)), path))
    if not images:
        raise InputError(f"{folder}: no images")
    return FixationDataset(str(folder), images)
