"""Folders of YOLO as COCO's format has it: images/SPLIT/, labels/SPLIT/*.txt, data.yaml with the names of classes.

A line of labels is a class, then the box's middle and size, or a polygon's corners, as shares of the image's sides:
https://docs.ultralytics.com/datasets/detect/
"""

import os
from pathlib import Path
from typing import Any, Iterator, Sequence, Union

from sact_det.base.errors import InputError, shown
from sact_det.base.text_files import read_text, read_yaml
from sact_det.data.decoding import decode_size
from sact_det.data.image_files import is_image_name, is_visible, naming_image, read_encoded

_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")
_LAYOUTS = (("images/{}", "labels/{}"), ("{}/images", "{}/labels"))


def yolo_files(folder: str, split: str) -> tuple[str, str]:
    """The folders of a split's labels and images. Raises InputError if the folder has no such split."""
    for images, labels in _LAYOUTS:
        found = [Path(folder) / layout.format(split) for layout in (labels, images)]
        if all(path.is_dir() for path in found):
            return str(found[0]), str(found[1])
    expected = " or ".join(" and ".join(layout.format(split) for layout in layouts) for layouts in _LAYOUTS)
    raise InputError(f"{folder}: no such split of a YOLO folder; expected {expected} in it")


def is_yolo_folder(path: Union[str, Path]) -> bool:
    """Whether a path is a folder of labels as `yolo_files` gives it."""
    return "labels" in Path(path).parts and os.path.isdir(path)


def read_yolo(labels: Union[str, Path]) -> dict[str, Any]:
    """A split's annotations in COCO's format, with numbers for ids; polygons are segmentations, too.

    An image without a file of labels has no objects.

    Raises:
        InputError: a file is missing or broken; it is named, with the line.
    """
    labels = Path(labels)
    folder = _images_of(labels)
    names = _class_names(labels)
    files = sorted(path for path in folder.iterdir() if is_image_name(path.name))
    stems = {path.stem for path in files}
    for path in sorted(labels.glob("*.txt")):
        if is_visible(path.name) and path.stem not in stems and path.name not in _NAMES:
            raise InputError(f"{path}: no image of this name is in {folder}")
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, path in enumerate(files, 1):
        with naming_image(path):
            height, width = decode_size(read_encoded(path))
        images.append({"id": number, "file_name": path.name, "height": height, "width": width})
        for category, values in _lines(labels / f"{path.stem}.txt", len(names)):
            shape = _shape(values, height, width)
            number_of_it = {"id": len(annotations) + 1, "image_id": number, "category_id": category, "iscrowd": 0}
            annotations.append({**number_of_it, **shape})
    categories = [{"id": index, "name": name} for index, name in enumerate(names)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _images_of(labels: Path) -> Path:
    """The folder of images beside one of labels: the last part of its path that says so, exchanged."""
    parts = list(labels.parts)
    parts[len(parts) - 1 - parts[::-1].index("labels")] = "images"
    return Path(*parts)


def _class_names(labels: Path) -> list[str]:
    for folder in labels.parents[:3]:
        for name in _NAMES:
            if (folder / name).is_file():
                return _read_names(folder / name)
    raise InputError(f"{labels}: no names of classes in a folder above; expected one of {', '.join(_NAMES)}")


def _read_names(path: Path) -> list[str]:
    if path.suffix in (".txt", ".names"):
        names: Any = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    else:
        content = read_yaml(path)
        names = content.get("names") if isinstance(content, dict) else None
        if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
            names = [names[index] for index in range(len(names))]
    if not (isinstance(names, list) and names and all(isinstance(name, (str, int)) for name in names)):
        raise InputError(f"{path}: 'names' must list the classes, or have them by their numbers from 0 on")
    return [str(name) for name in names]


def _lines(path: Path, classes: int) -> Iterator[tuple[int, list[float]]]:
    """Class and numbers of every line."""
    if not path.exists():
        return
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words, where = line.split(), f"{path}:{number}"
        if not words:
            continue
        try:
            category, values = float(words[0]), [float(word) for word in words[1:]]
        except ValueError:
            raise InputError(f"{where}: must be numbers; got {shown(line)!r}") from None
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            raise InputError(f"{where}: must be a class and a box of 4 numbers, or a polygon's; got {len(values)}")
        if category not in range(classes):
            raise InputError(f"{where}: there are {classes} classes, from 0 to {classes - 1}; got {words[0]}")
        for value, word in zip(values, words[1:]):
            if not 0 <= value <= 1:
                raise InputError(f"{where}: must be shares of the image's sides, from 0 to 1; got {word}")
        yield int(category), values


def _shape(values: Sequence[float], height: int, width: int) -> dict[str, Any]:
    """The box in pixels, and the polygon if it is one."""
    if len(values) == 4:
        x, y, w, h = values
        return {"bbox": [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]}
    polygon = [value * (height if index % 2 else width) for index, value in enumerate(values)]
    columns, rows = polygon[::2], polygon[1::2]
    left, top = min(columns), min(rows)
    return {"bbox": [left, top, max(columns) - left, max(rows) - top], "segmentation": [polygon]}
