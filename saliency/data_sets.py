"""Data sets of images and fixations by their path, whichever of the known forms they have."""

from pathlib import Path
from typing import Union

from saliency.cat2000 import read_cat2000
from saliency.dataset import FixationDataset
from saliency.fixations import MAT_VARIABLE
from saliency.image_list import SUFFIXES, read_image_list
from saliency.pysaliency_files import is_pysaliency_folder, read_pysaliency


def read_dataset(
    path: Union[str, Path], *, variable: str = MAT_VARIABLE, convention: str = "as-given", skip_bad: bool = False
) -> FixationDataset:
    """Reads a folder that pysaliency wrote, a list (.json or .csv), or a folder in CAT2000's layout.

    Args:
        path: of the folder or list.
        variable: of a fixation map in MATLAB files.
        convention: of points, as `fixations_of_points`'.
        skip_bad: leaves out images that cannot be used, and lists them; otherwise the first one is an error.

    Raises:
        InputError: as `read_pysaliency`, `read_image_list` or `read_cat2000`.
    """
    path = Path(path)
    if is_pysaliency_folder(path):
        return read_pysaliency(path, convention=convention, skip_bad=skip_bad)
    if path.suffix.lower() in SUFFIXES:
        return read_image_list(path, variable=variable, convention=convention, skip_bad=skip_bad)
    return read_cat2000(path, variable=variable, skip_bad=skip_bad)
