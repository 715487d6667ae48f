"""SACT Faster R-CNN on Detectron2. Importing this package registers its backbone, RoI heads and meta-architecture."""

from sact_det.detection._detectron2 import import_detectron2

import_detectron2()

from sact_det.detection.backbone import SACTBackbone, build_sact_resnet_backbone  # noqa: E402
from sact_det.detection.meta_arch import SACTGeneralizedRCNN  # noqa: E402
from sact_det.detection.roi_heads import SACTRes5ROIHeads  # noqa: E402

__all__ = ["SACTBackbone", "SACTGeneralizedRCNN", "SACTRes5ROIHeads", "build_sact_resnet_backbone"]
