"""What images without annotations, and classes in them, are called: by the data sets of the config, where they can."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from sact_det.data.coco_json import read_coco, read_images
from sact_det.detection.class_names import class_names
from sact_det.detection.config_kinds import classes_key
from sact_det.engine.config_checks import value_of


@dataclass(frozen=True)
class Categories:
    """The ids that stand for a detector's classes.

    Attributes:
        ids: one for each class.
        source: the data set whose ids they are; None: they count from 0.
        names: of the classes, where a data set or the weights say them.
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
        names = class_names(cfg)
        return cls(tuple(range(count)), names=None if names is None else tuple(names))

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
