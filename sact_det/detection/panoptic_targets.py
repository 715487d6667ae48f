"""What PanopticFPN learns from: instances of things, and a semantic segmentation in which all things are one class."""

from typing import Any

import cv2
import numpy as np
import torch
from detectron2.structures import BitMasks, Boxes, Instances

from sact_det.base.errors import InputError
from sact_det.data.coco_panoptic import ids_of, read_png


def put_panoptic_targets(item: dict[str, Any], transforms: Any, ignore_value: int) -> None:
    """Replaces the segments of Detectron2's standard panoptic form by "instances" and "sem_seg".

    Masks do not overlap; boxes are those of the transformed masks. Crowds of things are no instances. In "sem_seg",
    int64 [H, W], things are 0, stuff has its number, and what has no label is `ignore_value`.

    Args:
        item: of an image, with "pan_seg_file_name", "segments_info", "height" and "width".
        transforms: what was applied to the image.
        ignore_value: MODEL.SEM_SEG_HEAD.IGNORE_VALUE.

    Raises:
        InputError: the PNG cannot be used.
    """
    item.pop("annotations", None)
    pixels = read_png(item.pop("pan_seg_file_name"), (item["height"], item["width"]))
    ids = ids_of(transforms.apply_segmentation(pixels))
    semantic = torch.full(ids.shape, ignore_value, dtype=torch.int64)
    masks, classes = [], []
    for one in item.pop("segments_info"):
        mask = torch.from_numpy(ids == one["id"])
        semantic[mask] = 0 if one["isthing"] else one["category_id"]
        if one["isthing"] and not one["iscrowd"] and mask.any():
            masks.append(mask)
            classes.append(one["category_id"])
    instances = Instances(ids.shape)
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    if masks:
        instances.gt_masks = BitMasks(torch.stack(masks))
        instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
    else:
        instances.gt_boxes = Boxes(torch.zeros(0, 4))
    item["instances"], item["sem_seg"] = instances, semantic


def put_semantic_target(item: dict[str, Any], transforms: Any) -> None:
    """Adds "sem_seg" of the image that Detectron2's "separated" form names. Raises InputError if it cannot be read."""
    path = item.pop("sem_seg_file_name")
    pixels = cv2.imread(path, cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise InputError(f"{path}: no such image of a semantic segmentation, or a broken one")
    segmentation = transforms.apply_segmentation(pixels)
    item["sem_seg"] = torch.from_numpy(np.ascontiguousarray(segmentation).astype(np.int64))
