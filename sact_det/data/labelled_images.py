"""Images, each with one label: what every layout of a classification data set becomes."""

from abc import abstractmethod
from typing import Any, Sequence, Union, overload

import numpy as np
from typing_extensions import override

from sact_det.data.class_titles import synset_titles
from sact_det.data.decoding import decode_rgb, decode_size
from sact_det.data.image_files import naming_image


class LabelledImages(Sequence[dict[str, Any]]):
    """A sequence of dicts; an image is read when its dict is taken.

    Keys: "image" (uint8 RGB [H, W, 3]), "label" (index into `classes`), "image_id" (index in the sequence) and
    "file_name" (what error messages call it).

    Args:
        classes: their names.
        labels: int64 [n], of every image.
    """

    def __init__(self, classes: Sequence[str], labels: np.ndarray):
        self.classes = list(classes)
        self.labels = labels

    @property
    def titles(self) -> list[str]:
        """What people call the classes (class_titles.py). Raises InputError if a file of such names is none."""
        return synset_titles(self.classes)

    @abstractmethod
    def name(self, index: int) -> str:
        """What error messages call the image: its path, or its file and its place in it, counted from 0."""

    @abstractmethod
    def pixels(self, index: int) -> np.ndarray:
        """The image, uint8 RGB [H, W, 3]. Raises InputError, naming the image, if it cannot be read."""

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of the image. Raises InputError, naming the image, if it cannot be read."""
        return self.pixels(index).shape[:2]

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: Union[int, slice]) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return {
            "image": self.pixels(index),
            "label": int(self.labels[index]),
            "image_id": index,
            "file_name": self.name(index),
        }


class EncodedImages(LabelledImages):
    """Labelled images that lie somewhere as image files (JPEG, PNG, ...), decoded by the rule of decoding.py."""

    @abstractmethod
    def encoded(self, index: int) -> bytes:
        """The bytes of the image file."""

    @override
    def pixels(self, index: int) -> np.ndarray:
        with naming_image(self.name(index)):
            return decode_rgb(self.encoded(index))

    @override
    def size(self, index: int) -> tuple[int, int]:
        with naming_image(self.name(index)):
            return decode_size(self.encoded(index))
