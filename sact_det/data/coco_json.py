"""Files in COCO format as a box detector reads them: every value that it needs is checked, or refused by name.

What it does not need (licences, ids of annotations) may be anything. Segmentations and keypoints are checked by those
who need them (coco_shapes.py).
"""

import contextlib
import json
import math
import re
import reprlib
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple, Optional, Sequence, Union

from sact_det.base.errors import InputError
from sact_det.base.text_files import parse_json, read_json, read_text
from sact_det.data.voc import is_voc_list, read_voc
from sact_det.data.yolo import is_yolo_folder, read_yolo

LISTS = ("images", "annotations", "categories")
_NOUNS = {"images": "image", "annotations": "annotation", "categories": "category"}
# The key, which no part of a string looks like, for quotes are escaped there, and lists of numbers.
_POLYGONS = re.compile(r'"segmentation"\s*:\s*\[[][0-9eE+.,\s-]*\](?=\s*[,}])')
_LARGEST = sys.float_info.max
_NOTHING = object()
_SHOWN_CHARACTERS = 60


class Image(NamedTuple):
    """An entry of `images`.

    Attributes:
        id: a whole number or a string; of one kind in a file.
        file_name: relative to the folder of images.
        height, width: in pixels, above 0.
    """

    id: Union[int, str]
    file_name: str
    height: int
    width: int


class Annotation(NamedTuple):
    """An entry of `annotations`.

    Attributes:
        where: what to call it: its id, or its place in the list.
        id: as the file has it; None if it is no number and no string.
        image: that it is in.
        category_id: one of the file's.
        bbox: x, y, width, height in pixels, finite; otherwise as the file has them.
        area: of the object in square pixels, as the file has it, of any type; None if it is missing.
        iscrowd: whether the box is around a crowd.
        segmentation, keypoints: as the file has them, of any type; None if they are missing.
    """

    where: str
    id: Union[int, float, str, None]
    image: Image
    category_id: int
    bbox: tuple[float, float, float, float]
    area: Any
    iscrowd: bool
    segmentation: Any = None
    keypoints: Any = None


class _Kind(NamedTuple):
    """What a value must be, in words, and how it is read: None says that it is not."""

    expected: str
    read: Callable[[Any], Any]


def is_number(value: Any) -> bool:
    """Whether a value of a json is a number that a float can hold; NaN and infinities are none."""
    kind = type(value)
    if kind is float or kind is int:  # asked ten times for every annotation
        return -_LARGEST <= value <= _LARGEST
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST


def shown(value: Any) -> str:
    """A value of a json for messages: short, with its type where that is what may be wrong with it."""
    if value is _NOTHING:
        return "nothing"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return f"the string {_plain(value)}"
    return reprlib.repr(value)


def _plain(identity: Union[int, float, str]) -> str:
    return json.dumps(identity[:_SHOWN_CHARACTERS]) if isinstance(identity, str) else str(identity)


def _whole(value: Any) -> Optional[int]:
    return int(value) if is_number(value) and (type(value) is int or value == math.floor(value)) else None


def _side(value: Any) -> Optional[int]:
    side = _whole(value)
    return side if side is not None and side > 0 else None


def _flag(value: Any) -> Optional[bool]:
    """Converters write 0 and 1 as numbers, truth values or text, or leave them out."""
    if value is _NOTHING or value is None:
        return False
    if isinstance(value, str):
        return {"0": False, "1": True, "false": False, "true": True}.get(value.strip().lower())
    return bool(value) if isinstance(value, (bool, int, float)) and value in (0, 1) else None


def _box(value: Any) -> Optional[tuple[float, ...]]:
    """As floats: Detectron2 resizes a box of integers in integers."""
    is_box = isinstance(value, list) and len(value) == 4 and all(map(is_number, value))
    return tuple(map(float, value)) if is_box else None


_WHOLE = _Kind("a whole number", _whole)
_SIDE = _Kind("a whole number of pixels above 0", _side)
_TEXT = _Kind("a string that is not empty", lambda value: value if isinstance(value, str) and value else None)
_IMAGE_ID = _Kind("a whole number or a string", lambda value: value if isinstance(value, str) else _whole(value))
_BOX = _Kind("four finite numbers (x, y, width, height)", _box)
_FLAG = _Kind("0 or 1", _flag)
_UNSET = _Kind("0, for only crowds are ignored", lambda value: False if _flag(value) is False else None)


class _Entry:
    """An object of one of the lists, asked for its values. Raises InputError if it is none."""

    def __init__(self, json_file: str, key: str, index: int, fields: Any):
        if not isinstance(fields, dict):
            raise InputError(f"{json_file}: {key}[{index}] must be an object; got {shown(fields)}")
        self.json_file = json_file
        self.fields = fields
        found = fields.get("id")
        self.id = found if isinstance(found, str) or is_number(found) else None
        self.where = f"{key}[{index}]" if self.id is None else f"{_NOUNS[key]} {_plain(self.id)}"

    def get(self, name: str, kind: _Kind) -> Any:
        """The value of a field. Raises InputError if it is not of this kind."""
        found = self.fields.get(name, _NOTHING)
        value = kind.read(found)
        if value is None:
            raise self.error(f"{name} must be {kind.expected}; got {shown(found)}")
        return value

    def error(self, problem: str) -> InputError:
        return InputError(f"{self.json_file}: {self.where}: {problem}")


def read_coco(json_file: Union[str, Path], required: Sequence[str] = LISTS, polygons: bool = True) -> dict[str, Any]:
    """The content of an annotation file: a dict with the lists of COCO format and whatever else the file has.

    Args:
        json_file: the file; or annotations of Pascal VOC (`voc_files`) or YOLO (`yolo_files`), which are converted.
        required: which of the lists must be there; others are made empty.
        polygons: False leaves out those of a json, which are most of its text: null in their place.

    Raises:
        InputError: the file cannot be read, a list is missing, there are no images or no categories, or a category has
            no id or no name.
    """
    content = _content(json_file, polygons)
    for key in LISTS:
        if isinstance(content, dict) and key not in required:
            content.setdefault(key, [])
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise InputError(f"{json_file}: not in COCO format: no list {key!r}")
    for key in ("images", "categories"):
        if not content[key]:
            raise InputError(f"{json_file}: the list {key!r} is empty")
    read_categories(json_file, content)
    return content


def _content(path: Union[str, Path], polygons: bool) -> Any:
    if is_voc_list(path):
        return read_voc(path)
    if is_yolo_folder(path):
        return read_yolo(path)
    missing = "no such annotation file"
    if not polygons:
        with contextlib.suppress(InputError):  # it would name a place in what is left of the text
            return parse_json(_POLYGONS.sub('"segmentation":null', read_text(path, missing, "json")), path)
    return read_json(path, missing)


def read_categories(json_file: Union[str, Path], content: dict[str, Any]) -> dict[int, str]:
    """Names by id, by ascending id. Names are unique: those that the file gives to several say their id, too."""
    names = {entry.get("id", _WHOLE): entry.get("name", _TEXT) for entry in _entries(json_file, content, "categories")}
    given = Counter(names.values())
    names = {i: f"{name} (id {i})" if given[name] > 1 else name for i, name in sorted(names.items())}
    if len(set(names.values())) < len(names):
        raise InputError(f"{json_file}: two entries of 'categories' have one name, even with their ids behind it")
    return names


def read_images(json_file: Union[str, Path], content: dict[str, Any]) -> dict[Union[int, str], Image]:
    """Images by id, by ascending id. Raises InputError."""
    images: dict[Any, Image] = {}
    for entry in _entries(json_file, content, "images"):
        number, size = entry.get("id", _IMAGE_ID), (entry.get("height", _SIDE), entry.get("width", _SIDE))
        images[number] = Image(number, entry.get("file_name", _TEXT), *size)
    kinds = {type(number): shown(number) for number in images}
    if len(kinds) > 1:
        some = " and ".join(kinds.values())
        raise InputError(f"{json_file}: the ids of 'images' must be all numbers or all strings; got {some}")
    return {number: images[number] for number in sorted(images)}


def read_annotations(
    json_file: Union[str, Path],
    content: dict[str, Any],
    images: dict[Union[int, str], Image],
    categories: dict[int, str],
) -> Iterator[Annotation]:
    """The annotations in the file's order. Raises InputError for one that is wrong or refers to what is not there."""
    some_id = next(iter(images))
    for entry in _entries(json_file, content, "annotations"):
        image_id, category_id = entry.get("image_id", _IMAGE_ID), entry.get("category_id", _WHOLE)
        if type(image_id) is not type(some_id):
            raise entry.error(f"image_id is {shown(image_id)}; the ids of 'images' are like {shown(some_id)}")
        if image_id not in images:
            raise entry.error(f"image_id {image_id} is not in 'images'")
        if category_id not in categories:
            raise entry.error(f"category_id {category_id} is not in 'categories'")
        entry.get("ignore", _UNSET)
        bbox, iscrowd = entry.get("bbox", _BOX), entry.get("iscrowd", _FLAG)
        area, *shapes = (entry.fields.get(name) for name in ("area", "segmentation", "keypoints"))
        yield Annotation(entry.where, entry.id, images[image_id], category_id, bbox, area, iscrowd, *shapes)


def _entries(json_file: Union[str, Path], content: dict[str, Any], key: str) -> Iterator[_Entry]:
    """The entries of a list. Raises InputError for one that is no object and for the second one of an id.

    As in Detectron2, a file with "minival" in its name may repeat ids of annotations: two of COCO 2014 do.
    """
    seen = set()
    for index, fields in enumerate(content[key]):
        entry = _Entry(str(json_file), key, index, fields)
        if entry.id is not None and entry.id in seen and not (key == "annotations" and "minival" in str(json_file)):
            raise InputError(f"{json_file}: two entries of {key!r} have the id {_plain(entry.id)}")
        seen.add(entry.id)
        yield entry
