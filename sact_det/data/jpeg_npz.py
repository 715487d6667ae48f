"""Small images in one npz: their encoded bytes one after the other."""

from pathlib import Path

import numpy as np
from typing_extensions import override

from sact_det.base.errors import InputError
from sact_det.base.npz_file import read_arrays
from sact_det.data.labelled_images import EncodedImages

_KEYS = ("jpeg", "end", "label", "classes")


class JpegNpz(EncodedImages):
    """The images of an npz with the arrays

        jpeg: uint8, the image files one after the other;
        end: integers [n], where each of them ends in `jpeg`;
        label: integers [n];
        classes: names, in the order of the labels.

    Raises:
        InputError: the file is broken, or its arrays do not fit together.
    """

    def __init__(self, path: Path):
        self._path = path
        arrays = read_arrays(path)
        absent = [key for key in _KEYS if key not in arrays]
        if absent:
            raise InputError(f"{path}: expected the arrays jpeg, end, label and classes; there is no {absent[0]}")
        jpeg, end, label, classes = (arrays[key] for key in _KEYS)
        fits = (
            jpeg.dtype == np.uint8
            and all(array.ndim == 1 for array in (jpeg, end, label, classes))
            and all(array.dtype.kind in "iu" for array in (end, label))
            and classes.dtype.kind == "U"
            and len(end) == len(label) > 0
        )
        self._ends = np.concatenate([[0], end]).astype(np.int64) if fits else np.zeros(1, np.int64)
        if (
            not fits
            or (np.diff(self._ends) < 0).any()
            or self._ends[-1] != len(jpeg)
            or not 0 <= label.min() <= label.max() < len(classes)
        ):
            raise InputError(
                f"{path}: the arrays do not fit together; expected jpeg (bytes), end (rising, to the last byte), label "
                "(as many, below the number of classes) and classes (names)"
            )
        self._jpeg = jpeg
        super().__init__(classes.tolist(), label.astype(np.int64))

    @override
    def name(self, index: int) -> str:
        return f"{self._path}: image {index}"

    @override
    def encoded(self, index: int) -> bytes:
        return self._jpeg[self._ends[index] : self._ends[index + 1]].tobytes()
