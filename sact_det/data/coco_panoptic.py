"""Files in COCO's panoptic format, a json of segments and a folder of PNGs that show them, as data sets."""

import os
from pathlib import Path
from typing import Any, NamedTuple, Union

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from pycocotools import mask as rle

from sact_det.base.errors import InputError
from sact_det.data.coco_json import Image, is_number, read_categories, read_coco, read_images, shown

THINGS = "things"  # what the semantic segmentation calls all of them, its class 0


class Segment(NamedTuple):
    """An entry of `segments_info`.

    Attributes:
        id: the number that its pixels have in the PNG, above 0.
        category_id: of the file.
        bbox: x, y, width, height in pixels.
        iscrowd: whether it is a crowd.
    """

    id: int
    category_id: int
    bbox: tuple[float, ...]
    iscrowd: bool


class SegmentedImage(NamedTuple):
    """An entry of `annotations`: an image, the name of its PNG in the folder of PNGs, and its segments."""

    image: Image
    png: str
    segments: list[Segment]


class Panoptic(NamedTuple):
    """The content of a panoptic json: names of things and of stuff by id, by ascending id; images by ascending id."""

    things: dict[int, str]
    stuff: dict[int, str]
    images: list[SegmentedImage]


def read_panoptic(json_file: Union[str, Path]) -> Panoptic:
    """Reads a json of COCO's panoptic format.

    Raises:
        InputError: it is none, or an entry lacks what is needed or refers to what is not there.
    """
    content = read_coco(json_file)
    names, images = read_categories(json_file, content), read_images(json_file, content)
    things = {}
    for category in content["categories"]:
        if category.get("isthing") not in (0, 1):
            raise InputError(
                f"{json_file}: category {category['id']}: isthing must be 0 or 1; got {shown(category.get('isthing'))}"
            )
        things[int(category["id"])] = bool(category["isthing"])
    found: dict[Any, SegmentedImage] = {}
    for index, entry in enumerate(content["annotations"]):
        where = f"{json_file}: annotations[{index}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("segments_info"), list):
            raise InputError(f"{where}: no list 'segments_info'; expected a file in COCO's panoptic format")
        if entry.get("image_id") not in images or entry["image_id"] in found:
            raise InputError(f"{where}: image_id {shown(entry.get('image_id'))} is not in 'images', or has come before")
        if not isinstance(entry.get("file_name"), str) or not entry["file_name"]:
            raise InputError(f"{where}: file_name must be the name of a PNG; got {shown(entry.get('file_name'))}")
        segments = [
            _segment(f"{where}: segments_info[{i}]", one, names) for i, one in enumerate(entry["segments_info"])
        ]
        found[entry["image_id"]] = SegmentedImage(images[entry["image_id"]], entry["file_name"], segments)
    if not any(one.segments for one in found.values()):
        raise InputError(f"{json_file}: no image has segments")
    return Panoptic(
        {i: name for i, name in names.items() if things[i]},
        {i: name for i, name in names.items() if not things[i]},
        [found[number] for number in images if number in found],
    )


def _segment(where: str, fields: Any, names: dict[int, str]) -> Segment:
    if not isinstance(fields, dict) or not isinstance(fields.get("id"), int) or not 0 < fields["id"] < 256**3:
        raise InputError(f"{where}: id must be a whole number from 1 to {256**3 - 1}; got {shown(fields)}")
    if fields.get("category_id") not in names:
        raise InputError(f"{where}: category_id {shown(fields.get('category_id'))} is not in 'categories'")
    bbox = fields.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(is_number, bbox)):
        raise InputError(f"{where}: bbox must be four finite numbers (x, y, width, height); got {shown(bbox)}")
    return Segment(fields["id"], fields["category_id"], tuple(map(float, bbox)), fields.get("iscrowd", 0) == 1)


def read_png(path: Union[str, Path], size: tuple[int, int]) -> np.ndarray:
    """A PNG of segments as it is: uint8 [H, W, 3], RGB. Raises InputError if it is no image of this size."""
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such PNG of panoptic segments")
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None or pixels.shape[:2] != tuple(size):
        got = "no image" if pixels is None else f"{list(pixels.shape[:2])}"
        raise InputError(f"{path}: must be an image of {list(size)} (height, width) as its photograph; got {got}")
    return np.ascontiguousarray(pixels[:, :, ::-1])


def ids_of(pixels: np.ndarray) -> np.ndarray:
    """uint8 RGB [H, W, 3] -> int32 [H, W], the segments' ids; 0: unlabelled."""
    red, green, blue = (pixels[:, :, channel].astype(np.int32) for channel in range(3))
    return red + 256 * green + 256**2 * blue


def pixels_of(ids: np.ndarray) -> np.ndarray:
    """The other way round."""
    return np.stack([ids % 256, ids // 256 % 256, ids // 256**2 % 256], 2).astype(np.uint8)


def register_panoptic_datasets(cfg: CfgNode) -> None:
    """Registers every entry of DATASETS.PANOPTIC_FORMAT. Registering a name again replaces it.

    Raises:
        InputError: an entry is not (name, panoptic json, folder of PNGs, image folder), or a json cannot be used.
    """
    for entry in cfg.DATASETS.PANOPTIC_FORMAT:
        if not (isinstance(entry, (list, tuple)) and len(entry) == 4 and all(isinstance(part, str) for part in entry)):
            raise InputError(
                "DATASETS.PANOPTIC_FORMAT: each entry must be (name, panoptic json, folder of PNGs, image folder); got "
                f"{entry!r}"
            )
        _register(*entry)


def _register(name: str, json_file: str, png_root: str, image_root: str) -> None:
    panoptic = read_panoptic(json_file)
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)
    DatasetCatalog.register(name, lambda: _dataset_dicts(json_file, png_root, image_root))
    MetadataCatalog.get(name).set(
        panoptic_json=json_file,
        panoptic_root=png_root,
        image_root=image_root,
        evaluator_type="coco_panoptic_seg",
        thing_classes=list(panoptic.things.values()),
        stuff_classes=[THINGS, *panoptic.stuff.values()],
        thing_dataset_id_to_contiguous_id={category: i for i, category in enumerate(panoptic.things)},
        stuff_dataset_id_to_contiguous_id={category: i for i, category in enumerate(panoptic.stuff, start=1)},
    )


def _dataset_dicts(json_file: str, png_root: str, image_root: str) -> list[dict[str, Any]]:
    """Detectron2's dicts: its standard panoptic form, and the boxes of things as annotations. Raises InputError."""
    panoptic = read_panoptic(json_file)
    things = {category: i for i, category in enumerate(panoptic.things)}
    stuff = {category: i for i, category in enumerate(panoptic.stuff, start=1)}
    dicts = []
    for image, png, segments in panoptic.images:
        paths = os.path.join(image_root, image.file_name), os.path.join(png_root, png)
        for path in paths:
            if not os.path.isfile(path):
                raise InputError(f"{path}: no such image ({json_file})")
        infos, boxes = [], []
        for one in segments:
            isthing = one.category_id in things
            category = things[one.category_id] if isthing else stuff[one.category_id]
            crowd = int(one.iscrowd)
            infos.append({"id": one.id, "category_id": category, "isthing": isthing, "iscrowd": crowd})
            if isthing:
                box = {"bbox": list(one.bbox), "bbox_mode": BoxMode.XYWH_ABS}
                boxes.append({**box, "id": one.id, "category_id": category, "iscrowd": crowd})
        dicts.append(
            {
                **{"file_name": paths[0], "height": image.height, "width": image.width, "image_id": image.id},
                **{"pan_seg_file_name": paths[1], "segments_info": infos, "annotations": boxes},
            }
        )
    return dicts


def instances_of(json_file: Union[str, Path], png_root: Union[str, Path]) -> dict[str, Any]:
    """The things of a panoptic json in COCO's format of instances, with their masks. Raises InputError."""
    panoptic, annotations = read_panoptic(json_file), []
    for image, png, segments in panoptic.images:
        ids = ids_of(read_png(Path(png_root) / png, (image.height, image.width)))
        for one in (segment for segment in segments if segment.category_id in panoptic.things):
            mask = rle.encode(np.asfortranarray(ids == one.id, dtype=np.uint8))
            mask["counts"] = mask["counts"].decode("ascii")
            known = {"image_id": image.id, "category_id": one.category_id, "iscrowd": int(one.iscrowd)}
            annotations.append({**known, "bbox": list(one.bbox), "area": int(rle.area(mask)), "segmentation": mask})
    images = [{**one.image._asdict()} for one in panoptic.images]
    categories = [{"id": i, "name": name} for i, name in panoptic.things.items()]
    return {"images": images, "annotations": annotations, "categories": categories}
