"""What the classes of a classifier are called, as its data say, its weights, or ImageNet."""

from typing import Optional

from detectron2.config import CfgNode

from sact_det.base.errors import InputError
from sact_det.classification.loader import label_offset, open_data_sets
from sact_det.data.class_titles import imagenet_titles
from sact_det.engine.checkpoint import local_weights
from sact_det.weights.weight_file import load_weights


def class_names(cfg: CfgNode) -> Optional[list[str]]:
    """What people call the model's classes, as the data set DATASETS.TEST[0] has it (sact_det/data/class_titles.py).

    If it is not at hand or does not fit, the file of MODEL.WEIGHTS knows, or 1000 classes of an ImageNet network, or
    1001, are ImageNet's; others have no names: None.

    Raises:
        InputError: a file of names is none.
    """
    return names_of_data(cfg) or _names_of_weights(cfg) or _names_of_imagenet(cfg)


def names_of_data(cfg: CfgNode) -> Optional[list[str]]:
    """The names that DATASETS.TEST[0] has; None: it is not at hand, or does not fit. Raises InputError as above."""
    name = next(iter(cfg.DATASETS.TEST), "")
    try:
        (images,) = open_data_sets([name])
        offset = label_offset(images.classes, cfg.MODEL.CLASSIFIER.NUM_CLASSES, name)
    except InputError:
        return None
    return ["background"] * offset + images.titles


def _names_of_weights(cfg: CfgNode) -> Optional[list[str]]:
    try:
        names = load_weights(local_weights(cfg.MODEL.WEIGHTS)).metadata.get("classes", ())
    except InputError:  # whoever needs the weights themselves says what is wrong with them
        return None
    return list(names) if len(names) == cfg.MODEL.CLASSIFIER.NUM_CLASSES else None


def _names_of_imagenet(cfg: CfgNode) -> Optional[list[str]]:
    titles = imagenet_titles()
    more = cfg.MODEL.CLASSIFIER.NUM_CLASSES - len(titles)
    return ["background"] * more + titles if cfg.MODEL.CLASSIFIER.FAMILY == "imagenet" and more in (0, 1) else None
