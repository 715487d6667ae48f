"""What a classifier's config must fulfil, before any work is done."""

from detectron2.config import CfgNode

from sact_det.block import check_choice
from sact_det.classification.augmentation import AUGMENTATIONS
from sact_det.classification.model import FAMILIES
from sact_det.data.image_sources import register_image_sources
from sact_det.engine.setup import arguments_are_keys, check_sact
from sact_det.errors import InputError


def prepare(cfg: CfgNode) -> None:
    """Checks the config and registers its data sets. Raises InputError."""
    classifier, images = cfg.MODEL.CLASSIFIER, cfg.INPUT.CLASSIFICATION
    with arguments_are_keys("MODEL.CLASSIFIER"):
        check_choice("family", classifier.FAMILY, tuple(FAMILIES))
        if classifier.NUM_CLASSES < 1:
            raise ValueError(f"`num_classes` must be positive; got {classifier.NUM_CLASSES}")
        if not 0 <= classifier.LABEL_SMOOTHING < 1:
            raise ValueError(f"`label_smoothing` must lie in [0, 1); got {classifier.LABEL_SMOOTHING}")
    with arguments_are_keys("INPUT.CLASSIFICATION"):
        check_choice("augmentation", images.AUGMENTATION, AUGMENTATIONS)
        for name in ("size_train", "size_test", "batch_size_test"):
            if images[name.upper()] < 1:
                raise ValueError(f"`{name}` must be positive; got {images[name.upper()]}")
        if not 0 < images.CROP_FRACTION <= 1:
            raise ValueError(f"`crop_fraction` must lie in (0, 1]; got {images.CROP_FRACTION}")
    family = FAMILIES[classifier.FAMILY]
    check_sact(cfg, family, reference_blocks=family.max_blocks)
    if classifier.FAMILY == "cifar" and any(dilation != 1 for dilation in cfg.MODEL.SACT.DILATION):
        raise InputError(f"MODEL.SACT.DILATION must be 1s in the CIFAR family; got {tuple(cfg.MODEL.SACT.DILATION)}")
    if cfg.SOLVER.BACKBONE_LR_FACTOR != 1:
        raise InputError(f"SOLVER.BACKBONE_LR_FACTOR must be 1 for a classifier; got {cfg.SOLVER.BACKBONE_LR_FACTOR}")
    if cfg.INPUT.FORMAT != "RGB":
        raise InputError(f"INPUT.FORMAT must be 'RGB' for a classifier; got {cfg.INPUT.FORMAT!r}")
    register_image_sources(cfg)
