"""Folders of Pascal VOC as COCO's format has it: JPEGImages/, Annotations/*.xml, ImageSets/Main/SPLIT.txt.

http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html
"""

import math
from pathlib import Path
from typing import Any, Mapping, Optional, Union

from sact_det.base.errors import InputError
from sact_det.base.text_files import read_text
from sact_det.data.image_files import IMAGE_SUFFIXES, is_visible
from sact_det.data.xml_file import Element, read_xml

LABELS = "labels.txt"


def voc_files(folder: str, split: str) -> tuple[str, str]:
    """The list of a split's images, and the folder with them. Raises InputError if the folder has no such split."""
    path = Path(folder) / "ImageSets/Main" / f"{split}.txt"
    if not path.is_file():
        raise InputError(f"{path}: no such list of images; expected a folder of Pascal VOC with this split")
    return str(path), str(Path(folder) / "JPEGImages")


def is_voc_list(path: Union[str, Path]) -> bool:
    """Whether a path is a list of images as `voc_files` gives it."""
    return Path(path).suffix == ".txt" and Path(path).parent.parent.name == "ImageSets"


def read_voc(list_file: Union[str, Path]) -> dict[str, Any]:
    """A split's annotations in COCO's format, with numbers for ids.

    Corners count pixels from 1, both included: a box from x to X becomes one of X - x + 1 pixels at x - 1. What is
    "difficult" becomes a crowd: training passes over it, and evaluation ignores it. Categories are those of
    `labels.txt` in the folder, line by line, or, without one, all that its annotations name, in alphabetical order.

    Args:
        list_file: a name of an image, without suffix, in every line; what stands behind it is passed over.

    Raises:
        InputError: a file is missing or broken; it is named, with the line.
    """
    root = Path(list_file).parents[2]
    names = [line.split()[0] for line in read_text(list_file).splitlines() if line.strip()]
    if not names:
        raise InputError(f"{list_file}: lists no images")
    read = {
        name: read_xml(root / "Annotations" / f"{name}.xml", "no such annotations") for name in dict.fromkeys(names)
    }
    categories = _categories(root, read)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (name, xml) in enumerate(read.items(), 1):
        size = xml.require("size")
        height, width = (_side(size.require(side)) for side in ("height", "width"))
        file_name = _image_name(root / "JPEGImages", name, xml)
        images.append({"id": number, "file_name": file_name, "height": height, "width": width})
        for element in xml.all("object"):
            annotation = _annotation(element, categories)
            annotations.append({"id": len(annotations) + 1, "image_id": number, **annotation})
    named = [{"id": index, "name": category} for category, index in categories.items()]
    return {"images": images, "annotations": annotations, "categories": named}


def _categories(root: Path, read: Mapping[str, Element]) -> dict[str, int]:
    if (root / LABELS).exists():
        names = [line.strip() for line in read_text(root / LABELS).splitlines() if line.strip()]
    else:
        others = (
            path for path in (root / "Annotations").glob("*.xml") if is_visible(path.name) and path.stem not in read
        )
        files = [*read.values(), *map(read_xml, others)]
        names = sorted({element.require("name").text for file in files for element in file.all("object")})
    return {name: index for index, name in enumerate(dict.fromkeys(names), 1)}


def _image_name(folder: Path, name: str, xml: Element) -> str:
    """The image that the xml names, if it is there; else one that is called as the xml is."""
    stated = xml.find("filename")
    candidates = [f"{name}{suffix}" for suffix in (".jpg", *IMAGE_SUFFIXES)]
    if stated is not None and stated.text and Path(stated.text).name == stated.text:
        candidates.insert(0, stated.text)
    for candidate in candidates:
        if (folder / candidate).is_file():
            return candidate
    raise InputError(f"{folder / candidates[0]}: no such image ({xml.file})")


def _annotation(element: Element, categories: Mapping[str, int]) -> dict[str, Any]:
    name, box = element.require("name"), element.require("bndbox")
    if name.text not in categories:
        raise name.error(f"the class {name.text!r} is not in {LABELS}")
    left, top, right, bottom = (_number(box.require(corner)) for corner in ("xmin", "ymin", "xmax", "ymax"))
    if right < left or bottom < top:
        raise box.error(f"<bndbox> ends before it begins: ({left:g}, {top:g}) to ({right:g}, {bottom:g})")
    difficult: Optional[Element] = element.find("difficult")
    if difficult is not None and difficult.text not in ("0", "1"):
        raise difficult.error(f"<difficult> must be 0 or 1; got {difficult.text!r}")
    bbox = [left - 1, top - 1, right - left + 1, bottom - top + 1]
    crowd = int(difficult is not None and difficult.text == "1")
    return {"category_id": categories[name.text], "bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": crowd}


def _side(element: Element) -> int:
    value = _number(element)
    if value < 1 or value != math.floor(value):
        raise element.error(f"<{element.tag}> must be a whole number of pixels above 0; got {element.text!r}")
    return int(value)


def _number(element: Element) -> float:
    try:
        value = float(element.text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise element.error(f"<{element.tag}> must be a number; got {element.text!r}")
    return value
