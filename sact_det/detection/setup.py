"""What a detector's config must fulfil, before any work is done."""

from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY, PROPOSAL_GENERATOR_REGISTRY, ROI_HEADS_REGISTRY
from detectron2.modeling.anchor_generator import ANCHOR_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator import RPN_HEAD_REGISTRY

from sact_det.data.coco import register_coco_datasets
from sact_det.detection.backbone import EXTRACTOR_BLOCKS
from sact_det.engine.setup import check_registered, check_sact
from sact_det.resnet_v2 import ResNetV2Spec


def prepare(cfg: CfgNode) -> None:
    """Checks the config and registers its data sets. Raises InputError."""
    check_sact(cfg, ResNetV2Spec, len(EXTRACTOR_BLOCKS))
    model = cfg.MODEL
    check_registered("MODEL.BACKBONE.NAME", model.BACKBONE.NAME, BACKBONE_REGISTRY)
    check_registered("MODEL.PROPOSAL_GENERATOR.NAME", model.PROPOSAL_GENERATOR.NAME, PROPOSAL_GENERATOR_REGISTRY)
    check_registered("MODEL.RPN.HEAD_NAME", model.RPN.HEAD_NAME, RPN_HEAD_REGISTRY)
    check_registered("MODEL.ANCHOR_GENERATOR.NAME", model.ANCHOR_GENERATOR.NAME, ANCHOR_GENERATOR_REGISTRY)
    check_registered("MODEL.ROI_HEADS.NAME", model.ROI_HEADS.NAME, ROI_HEADS_REGISTRY)
    register_coco_datasets(cfg)
