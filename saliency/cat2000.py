"""CAT2000 and whatever has its layout (Borji and Itti, "CAT2000", 2015).

    ROOT/Stimuli/<Category>/<Name>.jpg          images; folders `Output` in there hold model output and are passed over
    ROOT/FIXATIONLOCS/<Category>/<Name>.mat     variable fixLocs, a binary map of the image's size; or an image or .npy
    ROOT/FIXATIONMAPS/<Category>/<Name>.jpg     smoothed; not needed here

ROOT may also be the folder that holds `trainSet`. Numbers in names may have gaps: the order is the natural one.
"""

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Sequence, Union

from sact_det.base.errors import InputError
from sact_det.data.image_files import IMAGE_SUFFIXES, is_visible
from saliency.dataset import FixationDataset, FixationImage, check_same_shape, load_images, natural_order
from saliency.fixations import MAT_SUFFIX, MAT_VARIABLE, read_fixations
from saliency.images import LEVEL_SUFFIXES, files_by_stem

STIMULI, LOCATIONS = "Stimuli", "FIXATIONLOCS"
LOCATION_SUFFIXES = (MAT_SUFFIX, *LEVEL_SUFFIXES)
OUTPUT = "output"  # a folder of this name, in any case, is not one of stimuli

TRAINING_IMAGES, TRAINING_CATEGORIES, TRAINING_SHAPE = 2000, 20, (1080, 1920)
TRAINING_FIXATIONS = 672_053  # as pysaliency counts them, from the eye tracks
_LEAST_LOCATIONS = 0.9  # of these fixations, that maps of locations must show: several on one pixel are one there


def read_cat2000(root: Union[str, Path], *, variable: str = MAT_VARIABLE, skip_bad: bool = False) -> FixationDataset:
    """Reads the fixations of a data set in CAT2000's layout; images are looked at, and read again when needed.

    Args:
        root: the folder with `Stimuli`, or the one with `trainSet`.
        variable: the map's name in the MATLAB files.
        skip_bad: leaves out images that cannot be used and lists them; otherwise the first one is an error.

    Raises:
        InputError: there is no such folder or it holds no images; an image has no fixation file, one that cannot be
            read, that is empty or of another size, or cannot be read itself; a fixation file has no image.
    """
    root = _root(Path(root))
    loaders = []
    for folder in sorted((root / STIMULI).iterdir(), key=lambda path: natural_order(path.name)):
        if not folder.is_dir() or not is_visible(folder.name) or folder.name.lower() == OUTPUT:
            continue
        images = files_by_stem(folder, IMAGE_SUFFIXES)
        locations = files_by_stem(root / LOCATIONS / folder.name, LOCATION_SUFFIXES)
        for stem in sorted(images, key=natural_order):
            found = locations.pop(stem, [])
            loaders += [partial(_load, root, folder.name, path, found, variable) for path in images[stem]]
        alone = (path for stem in sorted(locations, key=natural_order) for path in locations[stem])
        loaders += [partial(_without_image, path, folder) for path in alone]
    if not loaders:
        raise InputError(f"{root / STIMULI}: no images; expected {STIMULI}/<Category>/<Name>.jpg")
    return load_images(str(root), loaders, skip_bad=skip_bad)


def _root(path: Path) -> Path:
    for candidate in (path, path / "trainSet"):
        if (candidate / STIMULI).is_dir():
            if not (candidate / LOCATIONS).is_dir():
                raise InputError(f"{candidate}: has {STIMULI} but no folder {LOCATIONS} with the fixations")
            return candidate
    problem = "not in CAT2000's layout: no folder Stimuli" if path.is_dir() else "no such folder"
    raise InputError(f"{path}: {problem}")


def _without_image(source: Path, folder: Path) -> FixationImage:
    raise InputError(f"{source}: there is no image of this name in {folder}")


def _load(root: Path, category: str, image: Path, sources: Sequence[Path], variable: str) -> FixationImage:
    if not sources:
        missing = root / LOCATIONS / category / f"{image.stem}{MAT_SUFFIX}"
        raise InputError(f"{missing}: no such fixation file, for {image}")
    source = sources[0]
    if len(sources) > 1:
        raise InputError(f"{source}: also {sources[1].name}: which of them are the fixations?")
    fixations = read_fixations(source, variable)
    check_same_shape(fixations, source, image)
    if len(fixations) == 0:
        raise InputError(f"{source}: no fixations")
    return FixationImage(f"{category}/{image.stem}", category, fixations, image)


@dataclass(frozen=True)
class Statistics:
    """What a data set holds, beside the published facts about CAT2000's training set.

    Attributes:
        images, categories, fixations: numbers; several fixations on one pixel of a map of locations are one.
        images_per_category: the distinct numbers, ascending.
        shapes: the distinct (height, width), the most frequent first.
        skipped: images that were left out.
    """

    images: int
    categories: int
    fixations: int
    images_per_category: tuple[int, ...]
    shapes: tuple[tuple[int, int], ...]
    skipped: int = 0

    @classmethod
    def of(cls, dataset: FixationDataset) -> "Statistics":
        """Counts what a data set holds."""
        sizes = [len(indices) for indices in dataset.categories.values()]
        shapes = Counter(image.shape for image in dataset)
        return cls(
            images=len(dataset),
            categories=len(sizes),
            fixations=sum(len(image.fixations) for image in dataset),
            images_per_category=tuple(sorted(set(sizes))),
            shapes=tuple(shape for shape, _ in shapes.most_common()),
            skipped=len(dataset.skipped),
        )

    @property
    def is_full_training_set(self) -> bool:
        """Whether all published numbers fit, fixations up to those that share a pixel."""
        return (
            self.images == TRAINING_IMAGES
            and self.categories == TRAINING_CATEGORIES
            and self.images_per_category == (TRAINING_IMAGES // TRAINING_CATEGORIES,)
            and self.shapes == (TRAINING_SHAPE,)
            and _LEAST_LOCATIONS * TRAINING_FIXATIONS <= self.fixations <= TRAINING_FIXATIONS
        )

    def line(self) -> str:
        """One line: whether this is the full training set, and the numbers beside the published ones."""
        verdict = "this is" if self.is_full_training_set else "this is not"
        per_category = " or ".join(str(number) for number in self.images_per_category)
        shapes = ", ".join(f"{width}x{height}" for height, width in self.shapes[:3])
        more = f" and {len(self.shapes) - 3} more sizes" if len(self.shapes) > 3 else ""
        return (
            f"{verdict} the full CAT2000 training set: {self.images} images (published: {TRAINING_IMAGES}), "
            f"{self.categories} categories of {per_category} ({TRAINING_CATEGORIES} of 100), {shapes}{more} "
            f"(1920x1080), {self.fixations} fixated pixels (at most {TRAINING_FIXATIONS}), {self.skipped} left out"
        )
