"""What a classifier's config must fulfil, before any work is done."""

from typing import Sequence

from detectron2.config import CfgNode

from sact_det.base.checks import check_choice
from sact_det.base.errors import InputError
from sact_det.classification.augmentation import AUGMENTATIONS
from sact_det.data.image_sources import register_image_sources
from sact_det.engine.config_checks import check_no_effect, check_ranges
from sact_det.engine.config_table import CLASSIFICATION, UNUSED_BY_CLASSIFIERS
from sact_det.engine.setup import arguments_are_keys, check_sact
from sact_det.network.classifier import FAMILIES


def prepare(cfg: CfgNode, overrides: Sequence[str] = ()) -> None:
    """Checks the config and registers its data sets. `overrides` say nothing here. Raises InputError."""
    with arguments_are_keys("MODEL.CLASSIFIER"):
        check_choice("family", cfg.MODEL.CLASSIFIER.FAMILY, tuple(FAMILIES))
    with arguments_are_keys("INPUT.CLASSIFICATION"):
        check_choice("augmentation", cfg.INPUT.CLASSIFICATION.AUGMENTATION, AUGMENTATIONS)
    family = FAMILIES[cfg.MODEL.CLASSIFIER.FAMILY]
    check_sact(cfg, family, reference_blocks=family.max_blocks)
    if family.family == "cifar" and any(dilation != 1 for dilation in cfg.MODEL.SACT.DILATION):
        raise InputError(f"MODEL.SACT.DILATION must be 1s in the CIFAR family; got {tuple(cfg.MODEL.SACT.DILATION)}")
    if cfg.SOLVER.BACKBONE_LR_FACTOR != 1:
        raise InputError(f"SOLVER.BACKBONE_LR_FACTOR must be 1 for a classifier; got {cfg.SOLVER.BACKBONE_LR_FACTOR}")
    if cfg.INPUT.FORMAT != "RGB":
        raise InputError(f"INPUT.FORMAT must be 'RGB' for a classifier; got {cfg.INPUT.FORMAT!r}")
    check_ranges(cfg, CLASSIFICATION)
    parts, frozen = 1 + family.max_blocks, cfg.MODEL.BACKBONE.FREEZE_AT
    if frozen > parts:
        raise InputError(f"MODEL.BACKBONE.FREEZE_AT must be at most {parts}, stem and blocks; got {frozen}")
    check_no_effect(cfg, UNUSED_BY_CLASSIFIERS, "a classifier")
    register_image_sources(cfg)
