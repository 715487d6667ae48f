"""A trained detector where its data sets are not: its weights know how many classes there are, and their names."""

import logging
from pathlib import Path
from typing import Sequence

from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog

from sact_det.data.coco import FORMATS
from sact_det.detection.config_kinds import classes_key, is_retinanet
from sact_det.engine.checkpoint import local_weights, telling_how_to_convert
from sact_det.engine.config_checks import value_of
from sact_det.weights.weight_file import load_weights

logger = logging.getLogger(__name__)


def do_without_absent_data(cfg: CfgNode, overrides: Sequence[str] = ()) -> None:
    """Takes data sets whose files are not there out of the config, if the number of classes is known without them.

    An override knows it, or the weights, or the config file. What a class is called the weights say, too, if they know.
    Where nothing is known the data sets stay, and whatever registers them says what is missing.

    Args:
        cfg: changed in place: DATASETS without the entries; NUM_CLASSES where DATASETS.TRAIN and TEST have no data set
            left. MODEL.WEIGHTS names the weights of a detector.
        overrides: KEY VALUE pairs that `cfg` has from a command line.

    Raises:
        InputError: the weights cannot be read.
    """
    absent = {entry[0] for key in FORMATS for entry in cfg.DATASETS[key] if not _is_there(entry)}
    if not absent or not cfg.MODEL.WEIGHTS:
        return
    with telling_how_to_convert(cfg.MODEL.WEIGHTS):
        metadata = load_weights(local_weights(cfg.MODEL.WEIGHTS)).metadata
    key = classes_key(cfg)
    stated = value_of(cfg, key) if key in overrides[::2] or value_of(cfg, key) != value_of(get_cfg(), key) else None
    count = stated if key in overrides[::2] else metadata.get("num_classes") or stated
    if count is None:
        return
    logger.info("%s: not there; the classes are those of the weights", ", ".join(sorted(absent)))
    for key in FORMATS:
        cfg.DATASETS[key] = [entry for entry in cfg.DATASETS[key] if entry[0] not in absent]
    for name in absent:
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)
        if "classes" in metadata:
            MetadataCatalog.get(name).set(thing_classes=list(metadata["classes"]))
    if {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST} <= absent:
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = count
        if is_retinanet(cfg):
            cfg.MODEL.RETINANET.NUM_CLASSES = count


def _is_there(entry: object) -> bool:
    """Whether an entry's first path is; of one that is no entry at all, another says what is wrong with it."""
    if not (isinstance(entry, (list, tuple)) and len(entry) == 3 and all(isinstance(part, str) for part in entry)):
        return True
    return Path(entry[1]).exists()
