"""CAT2000 and whatever has its layout (Borji and Itti, "CAT2000", 2015).

    ROOT/Stimuli/<Category>/<Name>.jpg          images; folders `Output` in there hold model output and are passed over
    ROOT/FIXATIONLOCS/<Category>/<Name>.mat     variable fixLocs, a binary map of the image's size; or an image or .npy
    ROOT/FIXATIONMAPS/<Category>/<Name>.jpg     smoothed; not needed here

ROOT may also be the folder that holds `trainSet`. Numbers in names may have gaps: the order is the natural one.
"""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Sequence, Union

from sact_det.base.errors import InputError
from sact_det.data.image_files import IMAGE_SUFFIXES, is_visible
from saliency.dataset import FixationDataset, FixationImage, fixations_of, load_images, natural_order
from saliency.fixations import MAT_SUFFIX, MAT_VARIABLE
from saliency.images import LEVEL_SUFFIXES, files_by_stem

STIMULI, LOCATIONS = "Stimuli", "FIXATIONLOCS"
LOCATION_SUFFIXES = (MAT_SUFFIX, *LEVEL_SUFFIXES)
OUTPUT = "output"  # a folder of this name, in any case, is not one of stimuli

# fmt: off
CATEGORIES = frozenset((
    "Action", "Affective", "Art", "BlackWhite", "Cartoon", "Fractal", "Indoor", "Inverted", "Jumbled", "LineDrawing",
    "LowResolution", "Noisy", "Object", "OutdoorManMade", "OutdoorNatural", "Pattern", "Random", "Satelite", "Sketch",
    "Social",
))
# fmt: on
TRAINING_IMAGES, TRAINING_CATEGORIES, TRAINING_SHAPE = 2000, 20, (1080, 1920)
TRAINING_FIXATIONS = {"1.0": 672_053, "1.1": 667_804}  # of the eye tracks, by version of pysaliency's data set
_LEAST_LOCATIONS = 0.9  # of 1.0's fixations, that maps of locations must show: several on one pixel are one there


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
    return FixationImage(f"{category}/{image.stem}", category, fixations_of(image, source, variable), image)


def description(dataset: FixationDataset) -> str:
    """What a data set holds, in one line: `statistics` if it claims to be CAT2000, else the counts.

    It does where it has no categories but CAT2000's, or its images lie in folders of those names.
    """
    folders = {image.name.split("/")[0] for image in dataset}
    if CATEGORIES.issuperset(dataset.categories) or CATEGORIES.issuperset(folders):
        return statistics(dataset)
    categories = len(dataset.categories)
    return (
        f"{len(dataset)} images, {categories} {'category' if categories == 1 else 'categories'}, {_sizes(dataset)}, "
        f"{sum(len(image.fixations) for image in dataset)} {dataset.counted}, {len(dataset.skipped)} left out"
    )


def _sizes(dataset: FixationDataset) -> str:
    shapes = [shape for shape, _ in Counter(image.shape for image in dataset).most_common()]
    more = f" and {len(shapes) - 3} more sizes" if len(shapes) > 3 else ""
    return ", ".join(f"{width}x{height}" for height, width in shapes[:3]) + more


def statistics(dataset: FixationDataset) -> str:
    """What a data set holds, in one line: whether it is CAT2000's full training set, and the published numbers.

    Several fixations on one pixel of a map of locations are one, so that there may be fewer than published; lists of
    fixations are those of a version of pysaliency's data set, or not the full set.
    """
    images, categories = len(dataset), len(dataset.categories)
    per_category = sorted({len(indices) for indices in dataset.categories.values()})
    shapes = list({image.shape for image in dataset})
    fixations = sum(len(image.fixations) for image in dataset)
    of_maps = all(image.fixations.of_map for image in dataset)
    most = TRAINING_FIXATIONS["1.0"]
    version = next((f", version {name}" for name, number in TRAINING_FIXATIONS.items() if number == fixations), None)
    is_full = (
        (images, categories) == (TRAINING_IMAGES, TRAINING_CATEGORIES)
        and per_category == [TRAINING_IMAGES // TRAINING_CATEGORIES]
        and shapes == [TRAINING_SHAPE]
        and (_LEAST_LOCATIONS * most <= fixations <= most if of_maps else version is not None)
    )
    versions = ", ".join(f"version {name}: {number}" for name, number in TRAINING_FIXATIONS.items())
    counts = f"{fixations} {dataset.counted} ({f'at most {most}' if of_maps else versions})"
    which = version if is_full and not of_maps else ""
    return (
        f"this is {'' if is_full else 'not '}the full CAT2000 training set{which}: {images} images (published: "
        f"{TRAINING_IMAGES}), {categories} categories of {' or '.join(map(str, per_category))} ({TRAINING_CATEGORIES} "
        f"of 100), {_sizes(dataset)} (1920x1080), {counts}, {len(dataset.skipped)} left out"
    )
