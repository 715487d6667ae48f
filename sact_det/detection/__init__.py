"""SACT detectors on Detectron2. Importing this package registers its parts in Detectron2's registries."""

import sact_det.engine  # noqa: F401  (first, because it imports Detectron2 quietly)

# isort: split
from sact_det.detection.backbone import SACTBackbone, build_sact_resnet_backbone
from sact_det.detection.meta_arch import SACTGeneralizedRCNN, SACTPanopticFPN, SACTRetinaNet
from sact_det.detection.proposals import SACTRPN
from sact_det.detection.pyramid import build_sact_resnet_fpn_backbone, build_sact_retinanet_resnet_fpn_backbone
from sact_det.detection.roi_heads import SACTRes5ROIHeads
from sact_det.detection.rpn_head import SACTRPNHead

__all__ = [
    "SACTRPN",
    "SACTBackbone",
    "SACTGeneralizedRCNN",
    "SACTPanopticFPN",
    "SACTRPNHead",
    "SACTRes5ROIHeads",
    "SACTRetinaNet",
    "build_sact_resnet_backbone",
    "build_sact_resnet_fpn_backbone",
    "build_sact_retinanet_resnet_fpn_backbone",
]
