"""Masks and keypoints of a file in COCO format: what a detector of either needs of its annotations, checked."""

from pathlib import Path
from typing import Any, NamedTuple, Optional, Sequence, Union

import numpy as np
from pycocotools import mask as rle

from sact_det.base.errors import InputError
from sact_det.data.coco_json import Annotation, is_number, shown

# Polygons (x0, y0, x1, y1, ...) in pixels, or what pycocotools has as a compressed mask: "size" and "counts".
Segmentation = Union[list[list[float]], dict[str, Any]]

_LEAST_COORDINATES = 6  # three points
_VALUES = 3  # of a keypoint: x, y, visibility (0: not labelled, 1: hidden, 2: visible)


class Skeleton(NamedTuple):
    """The keypoints of a file's objects.

    Attributes:
        names: of the keypoints, in their order.
        flips: pairs of names that change places in a mirrored image.
        bones: pairs of names that are connected when they are drawn.
    """

    names: list[str]
    flips: list[tuple[str, str]]
    bones: list[tuple[str, str]]


def has_segmentations(content: dict[str, Any]) -> bool:
    """Whether any annotation that is no crowd says something about its mask."""
    annotations = (one for one in content["annotations"] if isinstance(one, dict))
    return any(one.get("segmentation") for one in annotations if not one.get("iscrowd"))


def read_segmentation(json_file: Union[str, Path], annotation: Annotation) -> Optional[Segmentation]:
    """The mask of an annotation; None if it has none. A polygon of less than three points encloses nothing.

    Raises:
        InputError: it is neither a list of polygons nor a run-length encoded mask of its image's size.
    """
    found, where = annotation.segmentation, f"{json_file}: {annotation.where}: segmentation"
    if not found and (found is None or isinstance(found, (list, dict))):
        return None
    if isinstance(found, dict):
        return _compressed(where, found, (annotation.image.height, annotation.image.width))
    if not isinstance(found, list) or not all(isinstance(polygon, list) for polygon in found):
        raise InputError(f"{where} must be a list of polygons or an object with size and counts; got {shown(found)}")
    for polygon in found:
        if len(polygon) % 2 or not all(map(is_number, polygon)):
            raise InputError(
                f"{where}: a polygon must list finite numbers, x and y of each point; got {shown(polygon)}"
            )
    return [list(map(float, polygon)) for polygon in found if len(polygon) >= _LEAST_COORDINATES] or None


def _compressed(where: str, found: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    counts, stated = found.get("counts"), found.get("size")
    if not isinstance(stated, list) or tuple(stated) != size:
        raise InputError(f"{where}: size must be that of the image, {list(size)} (height, width); got {shown(stated)}")
    runs = _runs(counts) if isinstance(counts, str) else counts
    whole = isinstance(runs, list) and all(isinstance(run, int) and run >= 0 for run in runs)
    if runs is None or not whole or sum(runs) != size[0] * size[1]:
        raise InputError(f"{where}: counts must be runs of {size[0] * size[1]} pixels together; got {shown(counts)}")
    return rle.frPyObjects({"size": list(size), "counts": runs}, *size)


def _runs(text: str) -> Optional[list[int]]:
    """The lengths of runs from COCO's own text: 6 bits a character, from the third run on as differences."""
    runs: list[int] = []
    value = bits = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            return None
        value |= (code & 0x1F) << bits
        bits += 5
        if not code & 0x20:
            if code & 0x10:
                value -= 1 << bits
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = bits = 0
    return None if bits else runs


def mask_area(segmentation: Segmentation, size: tuple[int, int]) -> int:
    """How many pixels of an image of (height, width) are in a mask."""
    return int(rle.area(as_rle(segmentation, size)))


def as_rle(segmentation: Segmentation, size: tuple[int, int]) -> dict[str, Any]:
    """A mask as pycocotools has it; polygons of one object are united."""
    return rle.merge(rle.frPyObjects(segmentation, *size)) if isinstance(segmentation, list) else segmentation


def read_keypoints(json_file: Union[str, Path], annotation: Annotation, number: int) -> list[float]:
    """x, y and visibility of every keypoint of an annotation; zeros, "not labelled", if it has none.

    Raises:
        InputError: they are not so many.
    """
    found = annotation.keypoints
    if found is None or found == []:
        return [0.0] * (_VALUES * number)
    if not isinstance(found, list) or len(found) != _VALUES * number or not all(map(is_number, found)):
        raise InputError(
            f"{json_file}: {annotation.where}: keypoints must list {_VALUES * number} finite numbers, (x, y, "
            f"visibility) of each of the {number} that its category names; got {shown(found)}"
        )
    return list(map(float, found))


def labelled(keypoints: Sequence[float]) -> int:
    """How many keypoints are labelled, hidden ones included."""
    return int(np.count_nonzero(np.asarray(keypoints[2::_VALUES]) > 0))


def read_skeleton(json_file: Union[str, Path], content: dict[str, Any]) -> Optional[Skeleton]:
    """The keypoints that the file's categories name; None if none does.

    Those named "left" and "right" alike change places in a mirrored image.

    Raises:
        InputError: a category's keypoints are no names, or two categories have different ones.
    """
    having = [category for category in content["categories"] if category.get("keypoints")]
    if not having:
        return None
    names, bones = having[0]["keypoints"], having[0].get("skeleton") or []
    for category in having:
        found = category["keypoints"]
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found) or found != names:
            raise InputError(
                f"{json_file}: keypoints of category {category.get('name')!r} must be a list of names, the same in "
                f"every category that has any; got {shown(found)}"
            )
    if len(set(names)) < len(names):
        raise InputError(f"{json_file}: two keypoints of category {having[0].get('name')!r} have one name")
    mirrored = {name: name.replace("left", "right").replace("Left", "Right") for name in names}
    flips = [(name, other) for name, other in mirrored.items() if other != name and other in names]
    numbers = range(1, 1 + len(names))
    fits = isinstance(bones, list) and all(
        isinstance(bone, list) and len(bone) == 2 and all(isinstance(end, int) and end in numbers for end in bone)
        for bone in bones
    )
    if not fits:
        raise InputError(
            f"{json_file}: skeleton of category {having[0].get('name')!r} must list pairs of keypoints, numbered from "
            f"1; got {shown(bones)}"
        )
    return Skeleton(names, flips, [(names[first - 1], names[second - 1]) for first, second in bones])
