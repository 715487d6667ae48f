"""ImageNet's archives as published, read in place: nothing is unpacked.

An uncompressed tar is indexed once, by the headers of its members; an image is then read from its offset. The outer tar
of the training images holds one tar per class, whose members have offsets in the same file.
"""

import io
import os
import tarfile
from pathlib import Path
from typing import Iterator, NamedTuple, Sequence

import numpy as np
from scipy.io import loadmat

from sact_det.data.labelled_images import IMAGE_SUFFIXES, EncodedImages
from sact_det.errors import InputError, one_line

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VAL_TAR = "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
_META = "ILSVRC2012_devkit_t12/data/meta.mat"
_TRUTH = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"


class Member(NamedTuple):
    """A file in a tar: its bytes are `size` many from `offset` on, in the file of the outermost tar."""

    name: str
    offset: int
    size: int


def read_index(path: Path, start: int = 0) -> Iterator[Member]:
    """The files of the uncompressed tar that starts at byte `start` of `path`. Raises InputError."""
    try:
        with open(path, "rb") as file:
            file.seek(start)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    if member.isfile():
                        yield Member(member.name, member.offset_data, member.size)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise InputError(f"{path}: not a readable, uncompressed tar: {one_line(error)}") from error


class TarImages(EncodedImages):
    """Labelled images inside tars.

    Args:
        tars: the files.
        classes: their names.
        members: (number of the tar, label, member) of each image.
    """

    def __init__(self, tars: Sequence[Path], classes: Sequence[str], members: Sequence[tuple[int, int, Member]]):
        self._tars = list(tars)
        # Arrays, because a million Python objects would be copied, page by page, into every loading process.
        self._tar = np.array([tar for tar, _, _ in members], np.int64)
        self._range = np.array([(member.offset, member.size) for _, _, member in members], np.int64)
        self._names = np.array([os.fsencode(member.name) for _, _, member in members])
        super().__init__(classes, np.array([label for _, label, _ in members], np.int64))

    def name(self, index: int) -> str:
        """Tar and member."""
        return f"{self._tars[self._tar[index]]}: {os.fsdecode(self._names[index])}"

    def encoded(self, index: int) -> bytes:
        """The image file."""
        offset, size = self._range[index].tolist()
        with open(self._tars[self._tar[index]], "rb") as file:
            file.seek(offset)
            return file.read(size)


class ClassTars(TarImages):
    """The training images: a tar of one tar per class, or the per-class tars themselves.

    Classes are the names of the per-class tars, in sorted order.

    Args:
        tars: one tar of tars, or a tar for each class.

    Raises:
        InputError: a tar is broken, or has no images.
    """

    def __init__(self, tars: Sequence[Path]):
        members: list[tuple[int, int, Member]] = []
        parts = []  # class, number of the tar, where the class's tar starts in it
        for number, path in enumerate(tars):
            if not path.is_file():
                raise InputError(f"{path}: no such file")
            inner = [member for member in read_index(path) if member.name.endswith(".tar")]
            if inner:
                parts += [(Path(member.name).stem, number, member.offset) for member in inner]
            else:
                parts.append((path.stem, number, 0))
        parts.sort()
        for label, (name, number, start) in enumerate(parts):
            images = [m for m in read_index(tars[number], start) if m.name.lower().endswith(IMAGE_SUFFIXES)]
            if not images:
                raise InputError(f"{tars[number]}: no images of class {name}")
            members += [(number, label, member) for member in images]
        super().__init__(tars, [name for name, _, _ in parts], members)


class ValidationTar(TarImages):
    """The validation images: a flat tar; the labels are in the development kit beside it.

    Classes are the synsets of the kit, in sorted order, as in the training images.

    Args:
        path: of ILSVRC2012_img_val.tar.

    Raises:
        InputError: the tar or the kit is missing or broken, or they do not fit together.
    """

    def __init__(self, path: Path):
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        kit = path.parent / DEVKIT
        classes, labels = read_devkit(kit)
        images = sorted(member for member in read_index(path) if member.name.lower().endswith(IMAGE_SUFFIXES))
        if not images or len(images) != len(labels):
            raise InputError(f"{path}: holds {len(images)} images, but {kit} has {len(labels)} labels")
        super().__init__([path], classes, [(0, label, member) for label, member in zip(labels, images)])


def read_devkit(path: Path) -> tuple[list[str], list[int]]:
    """Classes (synsets, sorted) and the labels of the validation images in the order of their names.

    Raises:
        InputError: the development kit is missing, broken or something else.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; the labels of {VAL_TAR} are in it")
    try:
        with tarfile.open(path) as archive:
            meta, truth = (archive.extractfile(name).read() for name in (_META, _TRUTH))  # type: ignore[union-attr]
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        leaves = synsets[synsets["num_children"] == 0]  # the others are groups of classes
        synset_of = {int(number): str(name) for number, name in zip(leaves["ILSVRC2012_ID"], leaves["WNID"])}
        classes = sorted(synset_of.values())
        return classes, [classes.index(synset_of[int(number)]) for number in truth.split()]
    except Exception as error:  # parsers raise whatever they like
        raise InputError(f"{path}: not a readable development kit of ImageNet 2012: {one_line(error)}") from error
