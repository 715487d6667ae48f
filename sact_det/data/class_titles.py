"""What people call the classes of a data set, whose folders may have names for programs: "tench" for n01440764.

`classes.txt` in the folder of the class folders, or beside that folder, says it: a line for a class, its folder's name
and after a space what people call it. Without one, WordNet's synsets of ImageNet 2012 have the names that torchvision
gives them.
"""

import functools
from importlib import resources
from pathlib import Path
from typing import Mapping, Sequence

from torchvision.models import ResNet50_Weights

from sact_det.base.errors import InputError, shown
from sact_det.base.text_files import read_text

FILE_NAME = "classes.txt"


def imagenet_titles() -> list[str]:
    """The names of ImageNet's 1000 classes, in the order of their synsets."""
    return list(ResNet50_Weights.DEFAULT.meta["categories"])


@functools.cache
def _synset_titles() -> Mapping[str, str]:
    synsets = resources.files("sact_det.data").joinpath("imagenet_synsets.txt").read_text("ascii").split()
    return dict(zip(synsets, imagenet_titles()))


def synset_titles(classes: Sequence[str]) -> list[str]:
    """The classes' names where all of them are synsets of ImageNet 2012; else they stand for themselves."""
    known = _synset_titles()
    return [known[name] for name in classes] if all(name in known for name in classes) else list(classes)


def folder_titles(classes: Sequence[str], root: Path) -> list[str]:
    """The names of the class folders in `root`: those of its `classes.txt`, or the one beside `root`, or as synsets.

    A class that the file leaves out stands for itself; lines of other classes are passed over.

    Raises:
        InputError: the file cannot be read, a line has no name, or no line is of one of the classes.
    """
    file = next((path for path in (root / FILE_NAME, root.absolute().parent / FILE_NAME) if path.is_file()), None)
    if file is None:
        return synset_titles(classes)
    titles = {}
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip():
            continue
        name, _, title = line.strip().partition(" ") if "\t" not in line else line.strip().partition("\t")
        if not title.strip():
            raise InputError(f"{file}: line {number}: expected a class folder and its name; got {shown(repr(line))}")
        titles[name] = title.strip()
    if not titles.keys() & set(classes):
        raise InputError(f"{file}: names none of the class folders in {root}, such as {classes[0]}")
    return [titles.get(name, name) for name in classes]
