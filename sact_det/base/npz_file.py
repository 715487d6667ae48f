"""Arrays in one npz: damaged ones are refused, pickled ones are not loaded."""

from pathlib import Path
from typing import Union

import numpy as np

from sact_det.base.errors import InputError
from sact_det.base.files import check_input


def read_arrays(path: Union[str, Path], what: str = "npz") -> dict[str, np.ndarray]:
    """All arrays by name of a file that errors call `what`; zipfile compares their checksums.

    Raises:
        InputError: the file is missing, cannot be read, is damaged or no npz, or holds pickled objects.
    """
    check_input(path, what)
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # a parser's answer to arbitrary bytes may be any exception
        raise InputError(f"{path}: damaged, pickled, or not an {what}") from error
