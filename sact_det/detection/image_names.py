"""What images without annotations, and classes in them, are called: by the data sets of the config, where they can."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from sact_det.data.coco_json import read_coco, read_images
from sact_det.detection.config_kinds import classes_key
from sact_det.engine.checkpoint import local_weights
from sact_det.engine.config_checks import value_of
from sact_det.weights.weight_file import load_weights

_FORMATS = ("COCO_FORMAT", "VOC_FORMAT", "YOLO_FORMAT")


@dataclass(frozen=True)
class Categories:
    """The ids that stand for a detector's classes.

    Attributes:
        ids: one for each class.
        source: the data set whose ids they are; None: they count from 0.
        names: of the classes, where a data set says them.
    """

    ids: tuple[int, ...]
    source: Optional[str] = None
    names: Optional[tuple[str, ...]] = None

    @classmethod
    def of(cls, cfg: CfgNode) -> "Categories":
        """Those of the first data set of DATASETS.TEST or TRAIN that says them and has as many classes."""
        count = value_of(cfg, classes_key(cfg))
        for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
            if name not in DatasetCatalog:
                continue
            metadata = MetadataCatalog.get(name)
            numbers = metadata.get("thing_dataset_id_to_contiguous_id")
            if numbers is not None and len(numbers) == count:
                names = metadata.get("thing_classes")
                return cls(tuple(sorted(numbers, key=numbers.get)), name, tuple(names) if names else None)
        return cls(tuple(range(count)))

    def said(self) -> dict[str, Any]:
        """In words, and as id -> name where names are known."""
        source = "contiguous, from 0" if self.source is None else f"of {self.source}"
        return {"category_ids": source, **({"categories": dict(zip(self.ids, self.names))} if self.names else {})}


def image_ids(cfg: CfgNode, paths: Sequence[Path]) -> tuple[list[Any], str]:
    """The ids of images, and whose they are, in words.

    Where all of them are files of DATASETS.TEST's first data set, ids are that one's; else they count from 1.

    Raises:
        InputError: the data set's file cannot be used.
    """
    for name in cfg.DATASETS.TEST[:1]:
        metadata = MetadataCatalog.get(name) if name in DatasetCatalog else None
        json_file, root = (metadata and metadata.get(key) for key in ("json_file", "image_root"))
        if json_file and root and os.path.exists(json_file):
            images = read_images(json_file, read_coco(json_file, required=("images",))).values()
            known = {os.path.realpath(os.path.join(root, image.file_name)): image.id for image in images}
            found = [known.get(os.path.realpath(path)) for path in paths]
            if None not in found:
                return found, f"of {name}"
    return list(range(1, len(paths) + 1)), "places in the input, from 1"


def without_absent_data(cfg: CfgNode, overrides: Sequence[str] = ()) -> list[str]:
    """Further overrides by which a config does without the data sets that are not at hand; [] if all are.

    Where none of DATASETS.TRAIN and TEST is left, the number of classes is the weights', unless it is overridden.

    Args:
        cfg: merged, its data sets not registered.
        overrides: KEY VALUE pairs that `cfg` has from a command line.
    """
    absent, further = set(), []
    for key in _FORMATS:
        entries = list(cfg.DATASETS[key])
        kept = [entry for entry in entries if len(entry) < 2 or os.path.exists(str(entry[1]))]
        if len(kept) < len(entries):
            absent |= {entry[0] for entry in entries if entry not in kept}
            further += [f"DATASETS.{key}", repr(kept)]
    if not absent:
        return []
    left = {key: tuple(name for name in cfg.DATASETS[key] if name not in absent) for key in ("TRAIN", "TEST")}
    for key, names in left.items():
        further += [f"DATASETS.{key}", repr(names)]
    key = classes_key(cfg)
    if cfg.MODEL.WEIGHTS and not any(left.values()) and key not in overrides[::2]:
        count = load_weights(local_weights(cfg.MODEL.WEIGHTS)).metadata.get("num_classes")
        further += [] if count is None else [key, str(count)]
    return further
