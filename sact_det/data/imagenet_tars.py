"""ImageNet's archives as published, read in place: nothing is unpacked.

The outer tar of the training images holds one tar per class; an image is read from where it lies in the outer one
(tar_index.py).
"""

import io
import os
from pathlib import Path
from typing import Sequence

import numpy as np
from scipy.io import loadmat
from typing_extensions import override

from sact_det.base.errors import InputError, naming
from sact_det.data.image_files import is_image_name
from sact_det.data.labelled_images import EncodedImages
from sact_det.data.tar_index import TarIndex, tar_index
from sact_det.data.tar_members import read_members

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VAL_TAR = "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
_META = "ILSVRC2012_devkit_t12/data/meta.mat"
_TRUTH = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"


class TarImages(EncodedImages):
    """Labelled images inside tars.

    Args:
        tars: the files.
        index: of them.
        classes: their names.
        labels: int64 [M], of the images.
        files: int64 [M], which files of the index they are.
    """

    def __init__(
        self, tars: Sequence[Path], index: TarIndex, classes: Sequence[str], labels: np.ndarray, files: np.ndarray
    ):
        self._tars = list(tars)
        # Arrays, because a million Python objects would be copied, page by page, into every loading process.
        self._tar = index.tar[index.archive[files]]
        self._range = index.ranges[files]
        self._names = index.names[files]
        super().__init__(classes, labels)

    @override
    def name(self, index: int) -> str:
        return f"{self._tars[self._tar[index]]}: {os.fsdecode(self._names[index])}"

    @override
    def encoded(self, index: int) -> bytes:
        offset, size = self._range[index].tolist()
        with open(self._tars[self._tar[index]], "rb") as file:
            file.seek(offset)
            return file.read(size)


class ClassTars(TarImages):
    """The training images: a tar of one tar per class, or the per-class tars themselves.

    Classes are the names of the per-class tars, in sorted order.

    Raises:
        InputError: a tar is broken, or has no images.
    """

    def __init__(self, tars: Sequence[Path]):
        index = tar_index(tars)
        images = _images(index)
        order = np.lexsort((index.tar, index.archives))
        empty = np.setdiff1d(order, index.archive[images])
        if len(empty):
            raise InputError(f"{tars[index.tar[empty[0]]]}: no images of class {index.archives[empty[0]]}")
        labels = np.argsort(order)[index.archive[images]]
        by_class = np.argsort(labels, kind="stable")
        super().__init__(tars, index, index.archives[order].tolist(), labels[by_class], images[by_class])


class ValidationTar(TarImages):
    """The validation images: a flat tar, ILSVRC2012_img_val.tar; the labels are in the development kit beside it.

    Classes are the synsets of the kit, in sorted order, as in the training images.

    Raises:
        InputError: the tar or the kit is missing or broken, or they do not fit together.
    """

    def __init__(self, path: Path):
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        kit = path.parent / DEVKIT
        classes, labels = read_devkit(kit)
        index = tar_index([path])
        images = _images(index)
        if not len(images) or len(images) != len(labels):
            raise InputError(f"{path}: holds {len(images)} images, but {kit} has {len(labels)} labels")
        images = images[np.argsort(index.names[images])]
        super().__init__([path], index, classes, np.array(labels, np.int64), images)


def _images(index: TarIndex) -> np.ndarray:
    """The numbers, int64 [M], of the files that are images by their names."""
    return np.flatnonzero([is_image_name(os.fsdecode(name)) for name in index.names.tolist()])


def read_devkit(path: Path) -> tuple[list[str], list[int]]:
    """Classes (synsets, sorted) and the labels of the validation images in the order of their names.

    Raises:
        InputError: the development kit is missing, broken or something else.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; the labels of {VAL_TAR} are in it")
    with naming(f"{path}: not a readable development kit of ImageNet 2012"):  # parsers raise whatever they like
        members = read_members(path, (_META, _TRUTH))
        meta, truth = members[_META], members[_TRUTH]
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        leaves = synsets[synsets["num_children"] == 0]  # the others are groups of classes
        synset_of = {int(number): str(name) for number, name in zip(leaves["ILSVRC2012_ID"], leaves["WNID"])}
        classes = sorted(synset_of.values())
        return classes, [classes.index(synset_of[int(number)]) for number in truth.split()]
