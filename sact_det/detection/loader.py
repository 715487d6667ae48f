"""The loaders of detectors: Detectron2's mapper behind our training stream."""

import copy
from typing import Any, Sequence

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetMapper, build_detection_test_loader, get_detection_dataset_dicts
from detectron2.data import transforms as T
from detectron2.data.common import DatasetFromList
from detectron2.data.detection_utils import check_image_size
from torch.utils.data import DataLoader

from sact_det.base.errors import InputError, naming, one_line
from sact_det.data.decoding import decode_rgb
from sact_det.data.image_files import naming_image, read_encoded
from sact_det.data.stream import build_stream_loader
from sact_det.detection.augmentation import build_augmentation


class CheckedMapper(DatasetMapper):
    """DatasetMapper for boxes, whose images are read by the rule of every reader here (sact_det/data/decoding.py).

    Raises InputError: when it is made, where a key of INPUT cannot be used; when it is called, where an image or its
    annotations cannot, naming the file.
    """

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """The arguments of __init__."""
        augmentations = build_augmentation(cfg, is_train)  # first, since it names the key that is wrong
        return {**super().from_config(cfg, is_train), "augmentations": augmentations}

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
        elif "annotations" in item:
            with naming(f"{file_name}: its annotations cannot be used"):
                self._transform_annotations(item, transforms, augmented.image.shape[:2])
        return item


def _dataset_dicts(names: Sequence[str], filter_empty: bool) -> list[dict[str, Any]]:
    for name in names:
        if name not in DatasetCatalog:
            raise InputError(f"{name}: no such data set; DATASETS.COCO_FORMAT lists yours")
    together = ", ".join(names)
    try:
        return get_detection_dataset_dicts(list(names), filter_empty=filter_empty)
    except (InputError, OSError):
        raise
    except AssertionError as error:
        empty = "no usable images: none has a box that is no crowd" if filter_empty else "no images"
        raise InputError(f"{together}: {empty} ({one_line(error)})") from error
    except (ImportError, LookupError, TypeError, ValueError) as error:  # of what Detectron2 or others have registered
        raise InputError(f"{together}: the data set cannot be loaded: {one_line(error)}") from error


def build_train_loader(cfg: CfgNode) -> DataLoader:
    """Batches of mapped dicts for this process, endless.

    Reads DATASETS.TRAIN, DATALOADER.{ASPECT_RATIO_GROUPING, FILTER_EMPTY_ANNOTATIONS} and what `build_stream_loader`
    reads.

    Raises:
        InputError: there is no such data set, it has nothing to train on, or a batch cannot be split evenly.
    """
    if not cfg.DATASETS.TRAIN:
        raise InputError("DATASETS.TRAIN is empty: it must name a data set")
    dicts = _dataset_dicts(cfg.DATASETS.TRAIN, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)
    groups = [int(d["width"] > d["height"]) for d in dicts] if cfg.DATALOADER.ASPECT_RATIO_GROUPING else None
    mapper = CheckedMapper(cfg, is_train=True)
    return build_stream_loader(cfg, DatasetFromList(dicts, copy=False), mapper, groups)


def build_test_loader(cfg: CfgNode, name: str) -> DataLoader:
    """Detectron2's test loader over all images of `name`, one image at a time. Raises InputError for a bad data set."""
    dicts = _dataset_dicts([name], filter_empty=False)
    mapper = CheckedMapper(cfg, is_train=False)
    return build_detection_test_loader(dicts, mapper=mapper, num_workers=cfg.DATALOADER.NUM_WORKERS)
