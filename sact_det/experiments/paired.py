"""Two classifiers on the same images: which images tell them apart, and whether chance would."""

from pathlib import Path
from typing import Any, Mapping, NamedTuple, Union

from scipy.stats import binomtest

from sact_det.base.errors import InputError
from sact_det.base.text_files import read_json

_EXPECTED = "expected the OUTPUT_DIR of a classifier's evaluation"


class Paired(NamedTuple):
    """Counts of images by who classifies them right, and McNemar's test of them.

    Attributes:
        images: all.
        both: right by both.
        first: by the first alone.
        second: by the second alone.
    """

    images: int
    both: int
    first: int
    second: int

    @property
    def difference(self) -> float:
        """Accuracy of the first minus that of the second, in percent."""
        return 100 * (self.first - self.second) / self.images

    @property
    def p_value(self) -> float:
        """Two-sided, exact (McNemar 1947): how often fair coins would split the images of one alone so unevenly."""
        alone = self.first + self.second
        return float(binomtest(self.first, alone).pvalue) if alone else 1.0


def right_images(folder: Union[str, Path]) -> dict[str, bool]:
    """Of every image that a training or evaluation classified, by its file's name: whether its first guess is right.

    Args:
        folder: OUTPUT_DIR of tools/train_net.py, evaluated on one data set.

    Raises:
        InputError: it has no such evaluation, or more than one; the file is not as the evaluation writes it.
    """
    found = sorted(Path(folder).glob("inference/*/classification.json"))
    if len(found) != 1:
        raise InputError(f"{folder}: has {len(found)} of inference/*/classification.json; {_EXPECTED} on one data set")
    content = read_json(found[0])
    try:
        return {str(row["file_name"]): _is_right(row) for row in content["images"]}
    except (IndexError, KeyError, TypeError):
        raise InputError(f"{found[0]}: expected file_name, label and top of every image") from None


def compare_images(first: Mapping[str, bool], second: Mapping[str, bool]) -> Paired:
    """Counts of the images, which must be the same ones.

    Args:
        first: of `right_images`.
        second: as well.

    Raises:
        InputError: an image is in one of them alone, or there are none.
    """
    if alone := sorted(first.keys() ^ second.keys()):
        raise InputError(f"{alone[0]}: was classified by one network alone; expected the same images of both")
    if not first:
        raise InputError("no image was classified")
    both = sum(first[name] and second[name] for name in first)
    return Paired(len(first), both, sum(first.values()) - both, sum(second.values()) - both)


def _is_right(row: Mapping[str, Any]) -> bool:
    return bool(row["top"][0] == row["label"])
