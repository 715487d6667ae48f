"""Images with the fixations of people, in categories; halves, folds, and what had to be left out."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterable, Sequence, Union

import numpy as np
from tqdm import tqdm

from sact_det.base.errors import InputError
from saliency.fixations import Fixations
from saliency.images import read_image


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

    def subset(self, indices: Iterable[int]) -> "FixationDataset":
        """A data set of the images of these indices, in this order. Raises InputError if there are none."""
        return FixationDataset(self.name, [self.images[index] for index in indices], self.skipped)

    def halves(self, skip_bad: bool = False) -> tuple["FixationDataset", "FixationDataset"]:
        """The first and the second half of every category, in its order; of an odd number the second gets one more.

        The paper tunes on the first and validates on the second.

        Args:
            skip_bad: leaves a category with a single image out, and says so in `skipped`.

        Raises:
            InputError: a category has a single image.
        """
        first, second, skipped = [], [], list(self.skipped)
        for category, indices in self.categories.items():
            if len(indices) == 1:
                problem = f"{self.images[indices[0]].name}: the only image of category {category!r}: it has no halves"
                if not skip_bad:
                    raise InputError(f"{self.name}: {problem}")
                skipped.append(problem)
                continue
            middle = len(indices) // 2
            first += [self.images[index] for index in indices[:middle]]
            second += [self.images[index] for index in indices[middle:]]
        return FixationDataset(self.name, first, skipped), FixationDataset(self.name, second, skipped)

    def folds(self, number: int) -> list[list[int]]:
        """Indices of `number` folds; the images of every category are dealt out to them in turn.

        Raises:
            InputError: there are fewer images than folds, or fewer than two folds.
        """
        if not 2 <= number <= len(self):
            raise InputError(f"{self.name}: the number of folds must lie between 2 and its {len(self)} images")
        dealt = [index for indices in self.categories.values() for index in indices]
        return [sorted(dealt[start::number]) for start in range(number)]


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


def check_same_shape(fixations: Fixations, source: Path, image: Path) -> None:
    """Raises InputError if the image cannot be read to its end, or the fixations are of one of another size."""
    height, width = read_image(image).shape[:2]
    if fixations.shape != (height, width):
        raise InputError(
            f"{source}: a fixation map of {fixations.shape[1]}x{fixations.shape[0]} pixels; "
            f"the image {image} has {width}x{height}"
        )


def natural_order(text: str) -> list[Any]:
    """A key that sorts numbers in names by value: 2 before 10; names without regard to case."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.casefold()) for part in re.split(r"(\d+)", text)]
