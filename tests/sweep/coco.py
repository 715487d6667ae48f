"""Files in COCO format that cannot be used: as text, as lists, and value by value."""

import json
import re
from typing import Any, Callable

from sweep.harness import COCO_IMAGES, DETECTOR, EVALUATE_DETECTOR, Case, Place, Word, coco_data, file, output

_ENTRIES = {"images": ("image", 1, 0), "categories": ("category", 4, 1), "annotations": ("annotation", 3, 2)}
_NUMBER, _IMAGE_ID = "must be a whole number", "must be a whole number or a string"
_SIDE, _NAME = "must be a whole number of pixels above 0", "must be a string that is not empty"
_BOX, _FLAG, _UNSET = "must be four finite numbers", "must be 0 or 1", "must be 0, for only crowds are ignored"
_HUGE = 10**400

# What a key must be, and values that are not.
_WRONG: dict[tuple[str, str], tuple[str, tuple[Any, ...]]] = {
    ("images", "height"): (_SIDE, (None, "96", 0, -1, 1.5, True, [96], float("nan"), float("inf"), _HUGE)),
    ("images", "width"): (_SIDE, ("", -1, 0.1, {}, False)),
    ("images", "file_name"): (_NAME, (None, 1, "", ["1.png"], {"path": "1.png"}, True)),
    ("categories", "name"): (_NAME, (None, 4, "", ["cell"], True)),
    ("annotations", "image_id"): (_IMAGE_ID, (None, [1], {}, 1.5, True, float("nan"), _HUGE)),
    ("annotations", "category_id"): (_NUMBER, (None, "4", [4], 4.5, True, float("inf"), "class 4")),
    ("annotations", "iscrowd"): (_FLAG, ("", "yes", "crowd", 2, -1, 0.5, [0], {}, float("nan"), _HUGE)),
    ("annotations", "ignore"): (_UNSET, (1, True, "1", "no", [1])),
    ("annotations", "bbox"): (
        _BOX,
        (None, 7, "1 2 3 4", [], [1, 2, 3], [1, 2, 3, 4, 5], {"x": 1}, [[1, 2, 3, 4]], ["1", "2", "3", "4"]),
    ),
}
_BAD_SIDES = (None, "4", True, float("nan"), float("inf"), float("-inf"), 1e999, _HUGE, [4], {})
_REQUIRED = {
    "images": ("file_name", "height", "width"),
    "categories": ("name",),
    "annotations": ("image_id", "category_id", "bbox"),
}


def spoilt(edit: Callable[[dict[str, Any]], Any]) -> Word:
    """The word for a copy of good annotations that `edit` has changed in place."""

    def write(place: Place) -> str:
        content = place.good.coco_content()
        edit(content)
        return file("a.json", content)(place)

    return write


def case(says: str, json_file: Word, images: Word = COCO_IMAGES) -> Case:
    return Case("train_net", says, *DETECTOR, *coco_data(json_file, images))


def put(key: str, **values: Any) -> Word:
    """One entry of a list with these values."""
    return spoilt(lambda content: content[key][_ENTRIES[key][2]].update(values))


def drop(key: str, name: str) -> Word:
    return spoilt(lambda content: content[key][_ENTRIES[key][2]].pop(name))


def named(key: str, problem: str) -> str:
    noun, number, _ = _ENTRIES[key]
    return rf"a\.json: {noun} {number}: {re.escape(problem)}"


VALUES = [
    case(named(key, f"{name} {expected}"), put(key, **{name: value}))
    for (key, name), (expected, values) in _WRONG.items()
    for value in values
]
SIDES = [
    case(named("annotations", f"bbox {_BOX}"), put("annotations", bbox=[9] * (i % 4) + [side] + [9] * (3 - i % 4)))
    for i, side in enumerate(_BAD_SIDES)
]
MISSING = [
    case(rf"a\.json: \w+ \d: {name} must be .*; got nothing", drop(key, name))
    for key, names in _REQUIRED.items()
    for name in names
]
IDS = [
    case(r"images\[0\]: id must be a whole number or a string", put("images", id=value))
    for value in (None, [1], {}, True, float("nan"))
]
IDS += [
    case(r"(categories\[1\]|category .*): id must be a whole number", put("categories", id=value))
    for value in (None, "4", [4], 4.5, True, float("inf"))
]
IDS += [
    case(rf"two entries of '{key}' have the id 1", spoilt(lambda content, key=key: content[key][1].update(id=1)))
    for key in _ENTRIES
]
IDS += [
    case(
        r'a\.json: annotation 1: image_id is the string "1"; the ids of \'images\' are like 1',
        spoilt(lambda content: [a.update(image_id=str(a["image_id"])) for a in content["annotations"]]),
    ),
    case(
        r'annotation 1: image_id is 1; the ids of \'images\' are like the string "1"',
        spoilt(lambda content: [image.update(id=str(image["id"])) for image in content["images"]]),
    ),
    case(r"the ids of 'images' must be all numbers or all strings", put("images", id="a")),
    case(r"annotation 3: image_id 77 is not in 'images'", put("annotations", image_id=77)),
    case(r"annotation 3: image_id -1 is not in 'images'", put("annotations", image_id=-1)),
    case(r"annotation 3: category_id 0 is not in 'categories'", put("annotations", category_id=0)),
    case(r"annotation \"x\": bbox must be", put("annotations", id="x", bbox=0)),
    case(r"annotations\[2\]: bbox must be", put("annotations", id=None, bbox=0)),
]
LISTS = [
    case(
        rf"a\.json: not in COCO format: no list '{key}'", spoilt(lambda content, key=key, v=v: content.update({key: v}))
    )
    for key in _ENTRIES
    for v in (None, {}, "x", 3)
]
LISTS += [
    case(rf"not in COCO format: no list '{key}'", spoilt(lambda content, key=key: content.pop(key))) for key in _ENTRIES
]
LISTS += [
    case(rf"a\.json: the list '{key}' is empty", spoilt(lambda content, key=key: content[key].clear()))
    for key in ("images", "categories")
]
LISTS += [
    case(
        rf"a\.json: {key}\[0\] must be an object; got", spoilt(lambda content, key=key, v=v: content[key].insert(0, v))
    )
    for key in _ENTRIES
    for v in (None, 3, "x", [1])
]
NOTHING_TO_TRAIN_ON = [
    case(r"toy: no usable images: none has a box that is no crowd", spoilt(edit))
    for edit in (
        lambda content: content["annotations"].clear(),
        lambda content: [a.update(iscrowd="1") for a in content["annotations"]],
        lambda content: [a.update(bbox=[500, 500, 9, 9]) for a in content["annotations"]],
        lambda content: [a.update(bbox=[5, 5, 0, 9]) for a in content["annotations"]],
        lambda content: [a.update(bbox=[5, 5, -9, -9]) for a in content["annotations"]],
    )
]
_NOT_JSON = "a.json: not a readable json file: "
_TEXTS = {
    "it is empty": ("", " \n", b"\xef\xbb\xbf"),
    "line 1, column": ("{", "{'images': []}", '{"images": [],}', "images: []", "<annotation/>", "[1, 2", "NULL"),
    "line 2, column 3: ": ('{"images":\n [}',),
    "it is nested too deeply": ("[" * 100_000, '{"a":' * 100_000),
    "it is in UTF-16 or UTF-32; save it as UTF-8": (json.dumps({}).encode("utf-16"), json.dumps({}).encode("utf-32")),
    "it is binary": (b"\0" * 9, json.dumps({}).encode("utf-16-le")),
    "byte 0xfc in line 1 is not UTF-8": ('{"name": "Zürich"}'.encode("latin-1"),),
    "byte 0x89 in line 1 is not UTF-8": (b"\x89PNG\r\n\x1a\n",),
    "half of a surrogate pair": ('{"images": ["\\ud83d"]}',),
    "Exceeds the limit": ("9" * 5000,),
}
TEXTS = [case(re.escape(_NOT_JSON + says), file("a.json", text)) for says, texts in _TEXTS.items() for text in texts]
TEXTS += [
    case(r"a\.json: not in COCO format: no list 'images'", file("a.json", text)) for text in ("[]", "3", '"x"', "null")
]
FILES = [
    case(r"none\.json: no such annotation file", lambda place: str(place.folder / "none.json")),
    case(r"cannot be read \(it is a folder\); expected a regular json file", COCO_IMAGES),
    case(r"no such annotation file", lambda place: str(place.folder / "none" / "a.json")),
    case(r"(no such annotation file|cannot be read)", "x" * 300),
    case(
        r"/1\.png: no such image \(data set 'toy', .*a\.json\)", spoilt(lambda content: None), lambda place: "nowhere"
    ),
    case(r"/nowhere\.png: no such image", put("images", file_name="nowhere.png")),
    case(r": no such image", put("images", file_name=".")),
    case(r": no such image", put("images", file_name="x" * 5000)),
    case(r": no such image", put("images", file_name="a\0b")),
]
ENTRIES = [
    Case("train_net", r"DATASETS\.COCO_FORMAT", *DETECTOR, "DATASETS.COCO_FORMAT", text)
    for text in (
        "['toy']",
        "[('toy', 'a.json')]",
        "[('toy', 3, '.')]",
        "[3]",
        "[('toy', 'a.json', '.', 'x')]",
        "[None]",
    )
]
ENTRIES += [
    Case("train_net", says, *DETECTOR, f"DATASETS.{key}", text)
    for key, says, text in (
        ("VOC_FORMAT", r"nowhere/ImageSets/Main/train\.txt: no such list of images", "[('a', 'nowhere', 'train')]"),
        (
            "YOLO_FORMAT",
            r"nowhere: no such split of a YOLO folder; expected images/train",
            "[('a', 'nowhere', 'train')]",
        ),
        ("VOC_FORMAT", r"DATASETS\.VOC_FORMAT: each entry must be \(name, folder, split\)", "[('a', 'nowhere')]"),
        ("YOLO_FORMAT", r"DATASETS\.YOLO_FORMAT: each entry must be \(name, folder, split\)", "[3]"),
    )
]
EVALUATION = [
    Case("train_net", named("annotations", f"bbox {_BOX}"), *EVALUATE_DETECTOR, *coco_data(put("annotations", bbox=3))),
    Case("train_net", named("images", f"width {_SIDE}"), *EVALUATE_DETECTOR, *coco_data(put("images", width=-1))),
]
MERGED = [
    Case("coco_supercategories", says, word, output)
    for says, word in (
        (r"a\.json: category 'class 1' has no 'supercategory'", spoilt(lambda content: None)),
        (r"a\.json: not a readable json file: it is nested too deeply", file("a.json", "[" * 100_000)),
        (r"a\.json: not in COCO format: no list 'categories'", spoilt(lambda content: content.pop("categories"))),
        (r"none\.json: no such annotation file", "none.json"),
    )
]


def _merged(edit: Callable[[dict[str, Any]], Any]) -> Word:
    def grouped(content: dict[str, Any]) -> None:
        for category in content["categories"]:
            category["supercategory"] = "thing"
        edit(content)

    return spoilt(grouped)


MERGED += [
    Case("coco_supercategories", r"category 'class 4' has no 'supercategory'", _merged(edit), output)
    for edit in (
        lambda content: content["categories"][1].update(supercategory=3),
        lambda content: content["categories"][1].pop("supercategory"),
    )
]
MERGED += [
    Case("coco_supercategories", r"an annotation has no valid 'category_id'", _merged(edit), output)
    for edit in (
        lambda content: content["annotations"].append(3),
        lambda content: content["annotations"][0].pop("category_id"),
        lambda content: content["annotations"][0].update(category_id=[1]),
        lambda content: content["annotations"][0].update(category_id="1"),
        lambda content: content["annotations"][0].update(category_id=77),
    )
]

CASES = [
    *VALUES,
    *SIDES,
    *MISSING,
    *IDS,
    *LISTS,
    *NOTHING_TO_TRAIN_ON,
    *TEXTS,
    *FILES,
    *ENTRIES,
    *EVALUATION,
    *MERGED,
]
