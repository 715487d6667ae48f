"""The loaders of detectors: Detectron2's mapper behind our training stream."""

import copy
import logging
from typing import Any, Callable, Optional, Sequence, TypeVar

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetCatalog,
    DatasetMapper,
    MetadataCatalog,
    build_detection_test_loader,
    get_detection_dataset_dicts,
)
from detectron2.data import transforms as T
from detectron2.data.common import DatasetFromList
from detectron2.data.detection_utils import annotations_to_instances, check_image_size
from torch.utils.data import DataLoader

from sact_det.base.errors import InputError, naming, one_line
from sact_det.data.coco import is_read_here
from sact_det.data.coco_file import forget
from sact_det.data.decoding import decode_rgb
from sact_det.data.image_files import naming_image, read_encoded
from sact_det.data.made_once import list_made_once
from sact_det.data.stream import build_stream_loader
from sact_det.detection.augmentation import build_augmentation
from sact_det.detection.panoptic_targets import put_panoptic_targets, put_semantic_target

logger = logging.getLogger(__name__)
R = TypeVar("R")


class CheckedMapper(DatasetMapper):
    """DatasetMapper whose images are read by the rule of every reader here (sact_det/data/decoding.py).

    Raises InputError: when it is made, where a key of INPUT cannot be used; when it is called, where an image or its
    annotations cannot, naming the file.
    """

    def __init__(self, cfg: CfgNode, is_train: bool = True):
        augmentations = build_augmentation(cfg, is_train)  # first, since it names the key that is wrong
        if not is_train:  # keypoints are flipped in training alone, by names that DATASETS.TRAIN has
            cfg = cfg.clone()
            cfg.defrost()
            cfg.MODEL.KEYPOINT_ON = False
        super().__init__(**{**DatasetMapper.from_config(cfg, is_train), "augmentations": augmentations})
        if is_train and cfg.INPUT.SCALE_JITTER:  # of objects that are cut
            self.recompute_boxes = cfg.MODEL.MASK_ON
        self.ignore_value: int = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Maps one dataset dict; see DatasetMapper."""
        item, file_name = copy.deepcopy(dataset_dict), dataset_dict["file_name"]
        with naming_image(file_name, "used"):
            pixels = decode_rgb(read_encoded(file_name))
            check_image_size(item, pixels)
            augmented = T.AugInput(pixels[..., ::-1] if self.image_format == "BGR" else pixels)
            transforms = self.augmentations(augmented)
            item["image"] = torch.from_numpy(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))
        if not self.is_train:
            item.pop("annotations", None)
        elif "pan_seg_file_name" in item:
            put_panoptic_targets(item, transforms, self.ignore_value)
        elif "annotations" in item:
            if "sem_seg_file_name" in item:
                put_semantic_target(item, transforms)
            with naming(f"{file_name}: its annotations cannot be used"):
                self._transform_annotations(item, transforms, augmented.image.shape[:2])
        return item

    def _transform_annotations(self, item: dict[str, Any], transforms: Any, image_shape: tuple[int, int]) -> None:
        if any(not one.get("iscrowd", 0) for one in item["annotations"]):
            super()._transform_annotations(item, transforms, image_shape)
        else:  # Detectron2 would look for the boxes of masks that there are none of
            del item["annotations"]
            item["instances"] = annotations_to_instances([], image_shape)


def _dataset_dicts(names: Sequence[str], filter_empty: bool, min_keypoints: int = 0) -> list[dict[str, Any]]:
    for name in names:
        if name not in DatasetCatalog:
            raise InputError(f"{name}: no such data set; DATASETS.COCO_FORMAT (VOC_FORMAT, YOLO_FORMAT) lists yours")
    together = ", ".join(names)
    try:
        return get_detection_dataset_dicts(list(names), filter_empty=filter_empty, min_keypoints=min_keypoints)
    except (InputError, OSError):
        raise
    except AssertionError as error:
        empty = "no usable images: none has a box that is no crowd" if filter_empty else "no images"
        raise InputError(f"{together}: {empty} ({one_line(error)})") from error
    except (ImportError, LookupError, TypeError, ValueError) as error:  # of what Detectron2 or others have registered
        raise InputError(f"{together}: the data set cannot be loaded: {one_line(error)}") from error


def build_train_loader(cfg: CfgNode) -> DataLoader:
    """Batches of mapped dicts for this process, endless.

    Reads DATASETS.TRAIN, DATALOADER.{ASPECT_RATIO_GROUPING, FILTER_EMPTY_ANNOTATIONS}, which masks and keypoints are
    asked for, and what `build_stream_loader` reads. Where masks are, images with an object without one are left out:
    the object would be taught as background.

    Raises:
        InputError: there is no such data set, it has nothing to train on, or a batch cannot be split evenly.
    """
    if not cfg.DATASETS.TRAIN:
        raise InputError("DATASETS.TRAIN is empty: it must name a data set")

    def read() -> tuple[list[dict[str, Any]], Optional[list[int]]]:
        min_keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0
        dicts = _dataset_dicts(cfg.DATASETS.TRAIN, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS, min_keypoints)
        dicts = _of_kind(cfg, dicts, cfg.DATASETS.TRAIN)
        for name in set(cfg.DATASETS.TRAIN).difference(cfg.DATASETS.TEST):  # nobody else asks for those
            forget(MetadataCatalog.get(name).get("json_file", ""))
        groups = [int(d["width"] > d["height"]) for d in dicts] if cfg.DATALOADER.ASPECT_RATIO_GROUPING else None
        return dicts, groups

    dicts, groups = _read_once(cfg.DATASETS.TRAIN, read)
    return build_stream_loader(cfg, dicts, CheckedMapper(cfg, is_train=True), groups)


def _read_once(names: Sequence[str], read: Callable[[], tuple[list[Any], R]]) -> tuple[Any, R]:
    """What `read` returns, its list serialized: by one process of a machine, unless somebody else loads a data set."""
    if all(name in DatasetCatalog and is_read_here(name) for name in names):
        return list_made_once(read)
    dicts, rest = read()
    return DatasetFromList(dicts, copy=False), rest


def _of_kind(cfg: CfgNode, dicts: list[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Those that can be learned from: where masks are, objects must have them."""
    if not cfg.MODEL.MASK_ON or any("pan_seg_file_name" in one for one in dicts):
        return dicts
    return _with_all_masks(dicts, ", ".join(names), cfg.INPUT.MASK_FORMAT)


def _with_all_masks(dicts: list[dict[str, Any]], names: str, mask_format: str) -> list[dict[str, Any]]:
    """The images all of whose objects have a mask. Raises InputError if there are none, or of another kind of masks."""
    kept = []
    for one in dicts:
        masks = [a.get("segmentation") for a in one.get("annotations", ()) if not a.get("iscrowd", 0)]
        if mask_format == "polygon" and any(isinstance(mask, dict) for mask in masks):
            raise InputError(
                f"INPUT.MASK_FORMAT must be 'bitmask' for {names}: masks of {one['file_name']} are run-length encoded, "
                f"not polygons; got {mask_format!r}"
            )
        if all(masks):
            kept.append(one)
    if not kept:
        raise InputError(f"{names}: no usable images: each has an object without a mask, which MODEL.MASK_ON needs")
    if len(kept) < len(dicts):
        left_out = len(dicts) - len(kept)
        logger.warning("%s: %d of %d images left out, with an object without a mask", names, left_out, len(dicts))
    return kept


def build_test_loader(cfg: CfgNode, name: str) -> DataLoader:
    """Detectron2's test loader over all images of `name`, one image at a time. Raises InputError for a bad data set."""
    dicts, _ = _read_once([name], lambda: (_dataset_dicts([name], filter_empty=False), None))
    mapper = CheckedMapper(cfg, is_train=False)
    return build_detection_test_loader(dicts, mapper=mapper, num_workers=cfg.DATALOADER.NUM_WORKERS)


def build_validation_loader(cfg: CfgNode, name: str) -> DataLoader:
    """This process's share of the images of `name`, as `build_test_loader` has them, with their objects for losses.

    Where masks are learned, images with an object without one are left out, as in training.

    Raises:
        InputError: the data set cannot be used.
    """
    dicts, _ = _read_once([name], lambda: (_of_kind(cfg, _dataset_dicts([name], filter_empty=False), [name]), None))
    mapper = CheckedMapper(cfg, is_train=True)
    mapper.augmentations = T.AugmentationList(build_augmentation(cfg, is_train=False))
    return build_detection_test_loader(dicts, mapper=mapper, num_workers=cfg.DATALOADER.NUM_WORKERS)
