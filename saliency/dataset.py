"""Images with the fixations of people, in categories; halves, folds, and what had to be left out."""

import logging
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterable, Sequence, Union

import numpy as np
from tqdm import tqdm

from sact_det.base.errors import InputError
from saliency.fixations import Fixations, read_fixations
from saliency.images import read_image

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FixationImage:
    """An image and where people looked.

    Attributes:
        name: unique in its data set, such as "Action/001".
        category: the empty string where a data set has none.
        fixations: at least one; they know the size of the image.
        source: the image file, or the image itself, uint8 RGB [H, W, 3].
    """

    name: str
    category: str
    fixations: Fixations
    source: Union[Path, np.ndarray]

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the image, in pixels."""
        return self.fixations.shape

    def pixels(self) -> np.ndarray:
        """uint8 RGB [H, W, 3]. Raises InputError, naming the file, if it cannot be read."""
        return self.source if isinstance(self.source, np.ndarray) else read_image(self.source)


@dataclass(frozen=True)
class Split:
    """Images to tune on and images to score, by their indices; no image is in both."""

    tuned_on: Sequence[int]
    scored: Sequence[int]


@dataclass(frozen=True, repr=False)
class FixationDataset(Sequence[FixationImage]):
    """Images in order, category by category.

    Attributes:
        name: what messages call it.
        images: at least one.
        skipped: a line for every image that was left out, why.

    Raises:
        InputError: there is no image, or two have one name.
    """

    name: str
    images: Sequence[FixationImage]
    skipped: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        if not self.images:
            left_out = f" ({len(self.skipped)} left out, the first: {self.skipped[0]})" if self.skipped else ""
            raise InputError(f"{self.name}: no images with fixations{left_out}")
        seen: set[str] = set()
        for image in self.images:
            if image.name in seen:
                raise InputError(f"{self.name}: two images are called {image.name!r}")
            seen.add(image.name)

    def __repr__(self) -> str:
        return f"FixationDataset({self.name!r}, {len(self.images)} images, {len(self.skipped)} left out)"

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        return self.images[index]

    @property
    def categories(self) -> dict[str, list[int]]:
        """Indices of the images of every category, both in order."""
        found: dict[str, list[int]] = {}
        for index, image in enumerate(self.images):
            found.setdefault(image.category, []).append(index)
        return found

    @property
    def counted(self) -> str:
        """What its fixations are: "fixations", or "fixated pixels" where they come from maps."""
        of_maps = sum(image.fixations.of_map for image in self.images)
        if of_maps in (0, len(self)):
            return "fixated pixels" if of_maps else "fixations"
        return f"fixations, of {of_maps} images fixated pixels"

    def subset(self, indices: Iterable[int]) -> "FixationDataset":
        """A data set of the images of these indices, in this order. Raises InputError if there are none."""
        return FixationDataset(self.name, [self.images[index] for index in indices], self.skipped)

    def halves(self, skip_bad: bool = False) -> list[Split]:
        """The paper's protocol, one split: tuned on the first half of every category, scored on the second.

        Of an odd number the second half gets one more.

        Args:
            skip_bad: leaves a category with a single image out, and says so in the log.

        Raises:
            InputError: a category has a single image.
        """
        first: list[int] = []
        second: list[int] = []
        for category, indices in self.categories.items():
            middle = len(indices) // 2
            if middle:
                first += indices[:middle]
                second += indices[middle:]
                continue
            problem = f"{self.images[indices[0]].name}: the only image of category {category!r}: it has no halves"
            if not skip_bad:
                raise InputError(f"{self.name}: {problem}")
            logger.warning("left out: %s", problem)
        if not first:
            raise InputError(f"{self.name}: every category has a single image: there are no halves")
        return [Split(first, second)]

    def folds(self, number: int) -> list[Split]:
        """Splits in which every image is scored once, with what was tuned on the others.

        The images of every category are dealt out to the folds in turn.

        Raises:
            InputError: there are fewer images than folds, or fewer than two folds.
        """
        if not 2 <= number <= len(self):
            raise InputError(f"{self.name}: the number of folds must lie between 2 and its {len(self)} images")
        dealt = [index for indices in self.categories.values() for index in indices]
        parts = [sorted(dealt[start::number]) for start in range(number)]
        return [Split(sorted(set(dealt).difference(part)), part) for part in parts]


Loader = Callable[[], FixationImage]


def load_images(name: str, loaders: Sequence[Loader], *, skip_bad: bool = False) -> FixationDataset:
    """A data set from functions that each read one image's fixations and look at the image.

    Args:
        name: of the data set.
        loaders: each returns an image with fixations or raises InputError. They run in threads.
        skip_bad: leaves out what cannot be used, and lists it; otherwise the first such image ends the reading.

    Raises:
        InputError: an image cannot be used, or none can.
    """

    def attempt(loader: Loader) -> Union[FixationImage, InputError]:
        try:
            return loader()
        except InputError as error:
            return error

    images, skipped = [], []
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        results = threads.map(attempt, loaders)
        for result in tqdm(results, desc=name, total=len(loaders), unit="image", disable=None):
            if isinstance(result, FixationImage):
                images.append(result)
            elif skip_bad:
                skipped.append(str(result))
            else:
                threads.shutdown(cancel_futures=True)
                raise result
    return FixationDataset(name, images, skipped)


def fixations_of(image: Path, source: Path, variable: str) -> Fixations:
    """The fixations in a file, as of `read_fixations`, at least one.

    Raises:
        InputError: they cannot be read, there are none, the image cannot be read to its end or is of another size.
    """
    fixations = read_fixations(source, variable)
    height, width = read_image(image).shape[:2]
    if fixations.shape != (height, width):
        raise InputError(
            f"{source}: a fixation map of {fixations.shape[1]}x{fixations.shape[0]} pixels; "
            f"the image {image} has {width}x{height}"
        )
    if len(fixations) == 0:
        raise InputError(f"{source}: no fixations")
    return fixations


def natural_order(text: str) -> list[Any]:
    """A key that sorts numbers in names by value: 2 before 10; names without regard to case."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.casefold()) for part in re.split(r"(\d+)", text)]
