"""What a data set calls the classes of a detector."""

from typing import NamedTuple, Optional

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog


class SegmentNames(NamedTuple):
    """Names of the classes of things and of stuff, those of stuff as PanopticFPN numbers them: all things are 0."""

    things: list[str]
    stuff: list[str]


def class_names(cfg: CfgNode) -> Optional[list[str]]:
    """Names of the classes of DATASETS.TEST[0], or None if they are unknown or not as many as the model's classes."""
    if not cfg.DATASETS.TEST:
        return None
    names = MetadataCatalog.get(cfg.DATASETS.TEST[0]).get("thing_classes")
    return list(names) if names is not None and len(names) == cfg.MODEL.ROI_HEADS.NUM_CLASSES else None


def segment_names(cfg: CfgNode) -> Optional[SegmentNames]:
    """Those of DATASETS.TEST[0], or None if they are unknown or not as many as the model's classes."""
    things = class_names(cfg)
    stuff = MetadataCatalog.get(cfg.DATASETS.TEST[0]).get("stuff_classes") if cfg.DATASETS.TEST else None
    if things is None or stuff is None or len(stuff) != cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES:
        return None
    return SegmentNames(things, list(stuff))
