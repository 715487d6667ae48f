"""Data sets in COCO format named in the config: registration, and Detectron2's view of them."""

import logging
import os
from functools import partial
from typing import Any, Callable, Optional, Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin import _PREDEFINED_SPLITS_COCO
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import log_first_n

from sact_det.base.errors import InputError
from sact_det.base.garbage_collection import uncollected
from sact_det.data.coco_file import coco_file
from sact_det.data.coco_json import LISTS
from sact_det.data.coco_shapes import Skeleton, read_keypoints, read_segmentation
from sact_det.data.made_once import made_once
from sact_det.data.voc import voc_files
from sact_det.data.yolo import yolo_files

# DATASETS key -> what its entries are, and how annotations and image folder follow from what is behind the name.
FORMATS: dict[str, tuple[str, Callable[[str, str], tuple[str, str]]]] = {
    "COCO_FORMAT": ("(name, annotation json, image folder)", lambda json_file, images: (json_file, images)),
    "VOC_FORMAT": ("(name, folder, split)", voc_files),
    "YOLO_FORMAT": ("(name, folder, split)", yolo_files),
}
_DETECTRON2S = {name for names in _PREDEFINED_SPLITS_COCO.values() for name in names}  # "coco_2017_train", ...
_BONE_COLOR = (102, 204, 255)
_MIDDLE = 0.5  # of a pixel


def register_coco_datasets(cfg: CfgNode) -> None:
    """Registers every entry of DATASETS.COCO_FORMAT, VOC_FORMAT and YOLO_FORMAT.

    MODEL.ROI_HEADS.NUM_CLASSES becomes that of the data in use.

    Registering a name again replaces it. Images are read later; annotations are checked when the data set is loaded.

    Raises:
        InputError: an entry is not one of three strings, two of them have one name, a file cannot be read, or the data
            sets in use have different categories.
    """
    files: dict[str, Any] = {}
    for key, (expected, find) in FORMATS.items():
        for entry in cfg.DATASETS[key]:
            if not (isinstance(entry, (list, tuple)) and len(entry) == 3 and all(isinstance(p, str) for p in entry)):
                raise InputError(f"DATASETS.{key}: each entry must be {expected}; got {entry!r}")
            name, *paths = entry
            json_file, image_root = find(*paths)
            if files.setdefault(name, (json_file, image_root)) != (json_file, image_root):
                raise InputError(f"DATASETS.{key}: two entries have the name {name!r}")
            register_coco_file(name, json_file, image_root, masks=cfg.MODEL.MASK_ON, keypoints=cfg.MODEL.KEYPOINT_ON)

    used = [name for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) if name in files]
    for name in used:
        classes, expected = (MetadataCatalog.get(n).thing_classes for n in (name, used[0]))
        if classes != expected:
            raise InputError(
                f"data set {name!r}: its categories ({', '.join(classes)}) differ from those of {used[0]!r} "
                f"({', '.join(expected)})"
            )
    if used:
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(MetadataCatalog.get(used[0]).thing_classes)
    for name in {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST} & _DETECTRON2S - files.keys():
        _load_by_us(name, masks=cfg.MODEL.MASK_ON, keypoints=cfg.MODEL.KEYPOINT_ON)


def _load_by_us(name: str, masks: bool, keypoints: bool) -> None:
    """Detectron2 would parse a data set of its own list again and again, whole, and the evaluation once more."""
    metadata = MetadataCatalog.get(name)
    json_file, image_root = metadata.json_file, metadata.image_root
    DatasetCatalog.remove(name)
    DatasetCatalog.register(name, partial(_load_listed, name, json_file, image_root, masks, keypoints))


def _load_listed(name: str, json_file: str, image_root: str, masks: bool, keypoints: bool) -> list[dict[str, Any]]:
    local = PathManager.get_local_path(json_file)
    return load_checked(name, local, image_root, masks, keypoints, required=("images", "categories"))


def is_read_here(name: str) -> bool:
    """Whether a registered data set is loaded by this module, which does nothing else then."""
    return isinstance(DatasetCatalog[name], partial) and DatasetCatalog[name].func in (load_checked, _load_listed)


def register_coco_file(
    name: str, json_file: str, image_root: str, masks: bool = False, keypoints: bool = False
) -> None:
    """Registers one file, with the masks or keypoints of its objects if they are asked for.

    Raises:
        InputError: it cannot be read.
    """
    categories, skeleton = made_once(partial(_named, json_file, masks, keypoints))
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)  # labelled images have none
    DatasetCatalog.register(name, partial(load_checked, name, json_file, image_root, masks, keypoints))
    metadata = MetadataCatalog.get(name).set(
        json_file=json_file,
        image_root=image_root,
        evaluator_type="coco",
        thing_classes=list(categories.values()),
        thing_dataset_id_to_contiguous_id={category_id: i for i, category_id in enumerate(categories)},
        masks=masks,
        keypoints=keypoints,
    )
    if skeleton is not None:
        metadata.set(
            keypoint_names=skeleton.names,
            keypoint_flip_map=skeleton.flips,
            keypoint_connection_rules=[(*bone, _BONE_COLOR) for bone in skeleton.bones],
        )


def _named(json_file: str, masks: bool, keypoints: bool) -> tuple[dict[int, str], Optional[Skeleton]]:
    file = coco_file(json_file, masks)
    return file.categories, file.skeleton if keypoints else None


@uncollected()
def load_checked(
    name: str,
    json_file: str,
    image_root: str,
    masks: bool = False,
    keypoints: bool = False,
    required: Sequence[str] = LISTS,
) -> list[dict[str, Any]]:
    """Detectron2's dataset dicts of the boxes that `coco_boxes` finds; its remarks become one warning, said once.

    Annotations keep their id (None if they have none). They have a "segmentation" and "keypoints" if these are asked
    for; where the file has no mask of an object (of a crowd, mostly) there is no "segmentation".

    Raises:
        InputError: the file or one of its entries cannot be used, it has no masks or keypoints at all where they are
            asked for, or an image file is missing.
    """
    file = coco_file(json_file, masks, required)
    coco, skeleton = file.boxes, file.skeleton if keypoints else None
    if masks and not file.segmented:
        raise InputError(f"{json_file}: has boxes only, no segmentation of any object; MODEL.MASK_ON needs them")
    if keypoints and skeleton is None:
        raise InputError(f"{json_file}: no category names keypoints; MODEL.KEYPOINT_ON needs them")
    if coco.remarks:
        log_first_n(logging.WARNING, f"{json_file}: {'; '.join(coco.remarks)}", key="message")
    dicts: dict[Any, dict[str, Any]] = {}
    for image in coco.images:
        path = os.path.join(image_root, image.file_name)
        if not os.path.isfile(path):
            raise InputError(f"{path}: no such image (data set {name!r}, {json_file})")
        size = {"height": image.height, "width": image.width}
        dicts[image.id] = {"file_name": path, **size, "image_id": image.id, "annotations": []}
    for box in coco.boxes:
        entry: dict[str, Any] = {
            "id": box.id,
            "bbox": list(box.bbox),
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": box.category,
            "iscrowd": int(box.iscrowd),
        }
        segmentation = read_segmentation(json_file, box.annotation) if masks else None
        if segmentation is not None:
            entry["segmentation"] = segmentation
        if skeleton is not None:
            points = read_keypoints(json_file, box.annotation, len(skeleton.names))
            # As Detectron2 has them: the file's numbers are those of pixels, whose middles these are.
            entry["keypoints"] = [value if i % 3 == 2 else value + _MIDDLE for i, value in enumerate(points)]
        dicts[box.image_id]["annotations"].append(entry)
    return list(dicts.values())
