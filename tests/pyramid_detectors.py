"""Detectors of Detectron2 on a pyramid of SACT features, small enough for tests."""

from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import GeneralizedRCNN, PanopticFPN

from sact_det import add_sact_config
from sact_det.detection.meta_arch import SACTRetinaNet
from sact_det.engine.priced import Priced
from sact_det.network.branch import SpatialHalting


class SACTMaskRCNN(Priced, GeneralizedRCNN): ...


class SACTPanopticFPN(Priced, PanopticFPN): ...


DETECTORS = [SACTRetinaNet, SACTMaskRCNN, SACTPanopticFPN]


def config(detector: type, halting: str = "sact") -> CfgNode:
    """Of a detector small enough for tests."""
    cfg = get_cfg()
    add_sact_config(cfg)
    model, is_retinanet = cfg.MODEL, detector is SACTRetinaNet
    model.DEVICE = "cpu"
    model.META_ARCHITECTURE = detector.__name__
    model.BACKBONE.NAME = f"build_sact_{'retinanet_' if is_retinanet else ''}resnet_fpn_backbone"
    model.SACT.HALTING, model.SACT.TAU = halting, 0.1
    model.SACT.UNITS = model.SACT.REFERENCE_UNITS = (2, 1, 3, 2)
    model.SACT.BASE_CHANNELS = 4
    model.BACKBONE.FREEZE_AT = 0
    model.FPN.IN_FEATURES = [f"res{level}_relu" for level in ((3, 4, 5) if is_retinanet else (2, 3, 4, 5))]
    model.FPN.OUT_CHANNELS = 8
    model.ANCHOR_GENERATOR.SIZES = [[8], [16], [32], [64], [128]]
    model.RETINANET.IN_FEATURES = [f"p{level}" for level in range(3, 8)] if is_retinanet else []
    model.RETINANET.NUM_CLASSES = model.ROI_HEADS.NUM_CLASSES = 3
    model.RETINANET.NUM_CONVS = 1
    model.RETINANET.SCORE_THRESH_TEST = 0.0
    model.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    model.RPN.POST_NMS_TOPK_TRAIN = model.RPN.POST_NMS_TOPK_TEST = 20
    model.ROI_HEADS.NAME = "StandardROIHeads"
    model.ROI_HEADS.IN_FEATURES = model.SEM_SEG_HEAD.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    model.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 16
    model.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    model.ROI_BOX_HEAD.NAME, model.ROI_BOX_HEAD.NUM_FC, model.ROI_BOX_HEAD.FC_DIM = "FastRCNNConvFCHead", 1, 16
    model.ROI_MASK_HEAD.NAME, model.ROI_MASK_HEAD.NUM_CONV, model.ROI_MASK_HEAD.CONV_DIM = (
        "MaskRCNNConvUpsampleHead",
        1,
        8,
    )
    model.MASK_ON = not is_retinanet
    model.SEM_SEG_HEAD.NUM_CLASSES, model.SEM_SEG_HEAD.CONVS_DIM, model.SEM_SEG_HEAD.NORM = 4, 8, ""
    cfg.TEST.DETECTIONS_PER_IMAGE = 5
    return cfg


def build(detector: type, halting: str = "sact") -> Any:
    """A detector whose positions halt at different units."""
    torch.manual_seed(0)
    model = detector(config(detector, halting))
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, SpatialHalting):
            torch.nn.init.normal_(module.local_conv.weight, std=0.3)
            torch.nn.init.constant_(module.local_conv.bias, -1.5)
    return model
