"""Data sets in COCO format named in the config: registration, and a check that they can be used."""

import logging
import math
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json

from sact_det.errors import InputError, one_line
from sact_det.text_files import read_json

logger = logging.getLogger(__name__)

_NAMED_AT_MOST = 3
_ID = (int, str)  # of images; categories and annotations have numbers


def register_coco_datasets(cfg: CfgNode) -> None:
    """Registers every entry of DATASETS.COCO_FORMAT and sets MODEL.ROI_HEADS.NUM_CLASSES from the data in use.

    Registering a name again replaces it. Images are read later; annotations are checked when the data set is loaded.

    Raises:
        InputError: an entry is not (name, json, folder), a json cannot be read, or the data sets in use have different
            categories.
    """
    for entry in cfg.DATASETS.COCO_FORMAT:
        if not (isinstance(entry, (list, tuple)) and len(entry) == 3 and all(isinstance(part, str) for part in entry)):
            raise InputError(
                f"DATASETS.COCO_FORMAT: each entry must be (name, annotation json, image folder); got {entry!r}"
            )
        _register(*entry)

    ours = {entry[0] for entry in cfg.DATASETS.COCO_FORMAT}
    used = [name for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) if name in ours]
    for name in used:
        classes, expected = (MetadataCatalog.get(n).thing_classes for n in (name, used[0]))
        if classes != expected:
            raise InputError(
                f"data set {name!r}: its categories ({', '.join(classes)}) differ from those of {used[0]!r} "
                f"({', '.join(expected)})"
            )
    if used:
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(MetadataCatalog.get(used[0]).thing_classes)


def _register(name: str, json_file: str, image_root: str) -> None:
    categories = sorted(read_coco(json_file)["categories"], key=lambda category: category["id"])
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)  # labelled images have none
    DatasetCatalog.register(name, lambda: load_checked(name, json_file, image_root))
    MetadataCatalog.get(name).set(
        json_file=json_file,
        image_root=image_root,
        evaluator_type="coco",
        thing_classes=[category["name"] for category in categories],
        thing_dataset_id_to_contiguous_id={category["id"]: i for i, category in enumerate(categories)},
    )


def read_coco(json_file: str) -> dict[str, Any]:
    """The annotation file, with the keys of COCO format. Raises InputError."""
    content = read_json(json_file, missing="no such annotation file")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise InputError(f"{json_file}: not in COCO format: no list {key!r}")
    for key in ("images", "categories"):
        if not content[key]:
            raise InputError(f"{json_file}: the list {key!r} is empty")
    _by_id(json_file, content, "categories", name=str)
    return content


def load_checked(name: str, json_file: str, image_root: str) -> list[dict[str, Any]]:
    """Detectron2's dataset dicts, after a check of what the json says.

    Category ids may have gaps. Boxes without area or wholly outside their image are left out and counted in one
    warning; boxes that stick out are clipped later, with the image's transforms.

    Raises:
        InputError: an entry lacks what it needs or shares its id; an annotation refers to no image or category or has
            no valid bbox; an image file is missing.
    """
    content = read_coco(json_file)
    images = _by_id(json_file, content, "images", file_name=str, height=int, width=int)
    category_ids = {category["id"] for category in content["categories"]}
    for image in images.values():
        path = Path(image_root) / image["file_name"]
        if not path.is_file():
            raise InputError(f"{path}: no such image (data set {name!r}, {json_file})")
    useless = set()
    for annotation in _by_id(json_file, content, "annotations", image_id=_ID, category_id=int, bbox=list).values():
        where = f"{json_file}: annotation {annotation['id']}"
        if annotation["image_id"] not in images:
            raise InputError(f"{where}: image_id {annotation['image_id']} is not in 'images'")
        if annotation["category_id"] not in category_ids:
            raise InputError(f"{where}: category_id {annotation['category_id']} is not in 'categories'")
        if not _is_box(annotation["bbox"]):
            raise InputError(
                f"{where}: bbox must be four finite numbers (x, y, width, height); got {annotation['bbox']!r}"
            )
        if not _covers(annotation["bbox"], images[annotation["image_id"]]):
            useless.add(annotation["id"])
    if useless:
        some = ", ".join(map(str, sorted(useless)[:_NAMED_AT_MOST]))
        logger.warning(
            "%s: left out of training: %d of %d boxes, without area or outside their image (annotations %s%s)",
            json_file,
            len(useless),
            len(content["annotations"]),
            some,
            ", ..." if len(useless) > _NAMED_AT_MOST else "",
        )
    try:
        dicts = load_coco_json(json_file, image_root, name, extra_annotation_keys=["id"])
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{json_file}: {one_line(error)}") from error
    for record in dicts:
        record["annotations"] = [a for a in record["annotations"] if a["id"] not in useless]
    return dicts


def _by_id(json_file: str, content: dict[str, Any], key: str, **types: Any) -> dict[Any, dict[str, Any]]:
    """The entries of a list by their id, each with values of these types. Raises InputError."""
    types["id"] = _ID if key == "images" else int
    entries: dict[Any, dict[str, Any]] = {}
    for entry in content[key]:
        for name, kind in types.items():
            if not isinstance(entry, dict) or not isinstance(entry.get(name), kind):
                raise InputError(f"{json_file}: an entry of {key!r} has no valid {name!r}: {str(entry)[:80]}")
        if entry["id"] in entries:
            raise InputError(f"{json_file}: two entries of {key!r} have the id {entry['id']}")
        entries[entry["id"]] = entry
    return entries


def _is_box(bbox: list[Any]) -> bool:
    return len(bbox) == 4 and all(isinstance(side, (int, float)) and math.isfinite(side) for side in bbox)


def _covers(bbox: list[float], image: dict[str, Any]) -> bool:
    """Whether the box has area inside the image."""
    x, y, width, height = bbox
    return (
        min(x + width, image["width"]) > max(x, 0)
        and min(y + height, image["height"]) > max(y, 0)
        and width > 0
        and height > 0
    )
