"""The boxes of a file in COCO format, inside their images: the same ones for training and for evaluation."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple, Optional, Sequence, Union

from sact_det.data.coco_json import Annotation, Image, is_number, read_annotations, read_categories, read_images, shown

_NAMED_AT_MOST = 3

# Thinner boxes vanish where corners are float32; COCO's own numbers are multiples of 0.01.
_MIN_SIDE = 1e-3
# Rounding and counting from 1 move a corner by less than two pixels.
_REACHES_BEYOND = 2.0
# Shares of all boxes from which numbers look like corners: nearly all could be, and many cannot be sizes.
_MOST, _MANY = 0.95, 1 / 3


class Box(NamedTuple):
    """A box with area inside its image.

    Attributes:
        id: of the annotation, as the file has it; None if it has none.
        image_id: of one of the images.
        category: number of the category by ascending id, from 0.
        bbox: x, y, width, height in pixels, clipped to the image.
        area: square pixels: the file's, of a mask perhaps, where that is usable, else the box's.
        iscrowd: whether it is around a crowd, which training passes over and evaluation ignores.
        annotation: the entry that it is of.
    """

    id: Union[int, float, str, None]
    image_id: Union[int, str]
    category: int
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: bool
    annotation: Annotation


class CocoBoxes(NamedTuple):
    """What a box detector is trained on and judged by.

    Attributes:
        images: by ascending id, those without boxes too.
        categories: names by id, by ascending id.
        boxes: in the file's order.
        remarks: what a user should know about the file, one sentence each.
    """

    images: list[Image]
    categories: dict[int, str]
    boxes: list[Box]
    remarks: list[str]


def coco_boxes(json_file: Union[str, Path], content: dict[str, Any]) -> CocoBoxes:
    """The boxes of a file inside their images, with remarks on what is unusual.

    Boxes are clipped to their images, and left out where nothing remains: training could not see more, and an
    evaluation that asks for it would count as missed what nobody can find.

    Args:
        json_file: the file that errors name.
        content: of `read_coco`.

    Raises:
        InputError: an entry lacks what is needed, shares its id, or refers to no image or category.
    """
    images, categories = read_images(json_file, content), read_categories(json_file, content)
    numbers = {category_id: number for number, category_id in enumerate(categories)}
    annotations = list(read_annotations(json_file, content, images, categories))
    clipped = [_inside(one, numbers[one.category_id]) for one in annotations]
    boxes = [box for box in clipped if box]
    remarks = [*_about_names(content), *_about_boxes(annotations, clipped), *_about_areas(annotations)]
    if all(box.iscrowd for box in boxes):
        remarks.append(f"no boxes to find ({len(boxes)} crowds, which are ignored): AP is not defined")
    return CocoBoxes(list(images.values()), categories, boxes, remarks)


def _inside(annotation: Annotation, category: int) -> Optional[Box]:
    """The box clipped to its image; None if nothing remains."""
    image, (x, y, width, height) = annotation.image, annotation.bbox
    bbox, area = annotation.bbox, annotation.area if has_area(annotation) else None
    if _overhang(annotation) > 0:
        left, top = max(x, 0.0), max(y, 0.0)
        width, height = min(x + width, image.width) - left, min(y + height, image.height) - top
        bbox = (left, top, width, height)
        area = None if area is None else min(area, width * height)
    if min(width, height) < _MIN_SIDE:
        return None
    own = width * height if area is None else area
    return Box(annotation.id, image.id, category, bbox, own, annotation.iscrowd, annotation)


def _overhang(annotation: Annotation) -> float:
    """By how many pixels the box reaches beyond its image; 0 or less if it does not."""
    image, (x, y, width, height) = annotation.image, annotation.bbox
    return max(-x, -y, x + width - image.width, y + height - image.height)


def has_area(annotation: Annotation) -> bool:
    """Whether the file's area can be one: a positive number that the image has room for."""
    return is_number(annotation.area) and 0 < annotation.area <= annotation.image.width * annotation.image.height


def _about_names(content: dict[str, Any]) -> list[str]:
    names = Counter(category["name"] for category in content["categories"])
    shared = sorted(name for name, count in names.items() if count > 1)
    return [f"categories that share a name are told apart by their ids ({', '.join(shared)})"] if shared else []


def _about_areas(annotations: Sequence[Annotation]) -> list[str]:
    wrong = [one for one in annotations if one.area is not None and not has_area(one)]
    if not wrong:
        return []
    example = f"{wrong[0].where}: {shown(wrong[0].area)}"
    return [f"{len(wrong)} of {len(annotations)} areas cannot be any ({example}); the boxes' own are taken"]


def _about_boxes(annotations: Sequence[Annotation], clipped: Sequence[Optional[Box]]) -> list[str]:
    """Which boxes are clipped or left out, and what the numbers look like if they are none of COCO's."""
    remarks, count = [], len(annotations)
    lost = [one for one, box in zip(annotations, clipped) if box is None]
    beyond = [one for one, box in zip(annotations, clipped) if box and _overhang(one) >= _REACHES_BEYOND]
    if lost:
        remarks.append(f"{len(lost)} of {count} boxes left out, without area in their image ({_some(lost)})")
    if beyond:
        most = max(map(_overhang, beyond))
        remarks.append(
            f"{len(beyond)} of {count} boxes clipped, up to {most:.6g} pixels beyond their image ({_some(beyond)})"
        )
    if annotations and all(max(one.bbox) <= 1 for one in annotations):
        remarks.append("all numbers of boxes are at most 1, which looks like fractions of the image; expected pixels")
    elif len(beyond) > _MANY * count and sum(map(_could_be_corners, annotations)) > _MOST * count:
        remarks.append("the boxes look like corners (x0, y0, x1, y1); expected x, y, width, height")
    return remarks


def _could_be_corners(annotation: Annotation) -> bool:
    x0, y0, x1, y1 = annotation.bbox
    return 0 <= x0 < x1 <= annotation.image.width and 0 <= y0 < y1 <= annotation.image.height


def _some(annotations: Sequence[Annotation]) -> str:
    names = [one.where for one in annotations[:_NAMED_AT_MOST]]
    return ", ".join(names) + (", ..." if len(annotations) > _NAMED_AT_MOST else "")
