"""Faster R-CNN on a pyramid as a LazyConfig: the model of configs/COCO/sact_R_50_FPN_tau_0.005_1x.yaml.

    cfg = LazyConfig.load("sact_det/lazy/faster_rcnn_fpn.py")
    cfg.model.backbone.bottom_up.spec.depth = 101
    model = instantiate(cfg.model)

It is Detectron2's model_zoo config of Mask R-CNN without its masks, on our backbone.
"""

from detectron2 import model_zoo
from detectron2.config import LazyCall as L

from sact_det.detection.backbone import SACTBackbone
from sact_det.detection.meta_arch import SACTGeneralizedRCNN
from sact_det.detection.proposals import SACTRPN
from sact_det.engine.reference import Reference
from sact_det.network.resnet_v2 import ResNetV2Spec

model = model_zoo.get_config("common/models/mask_rcnn_fpn.py").model
for key in ("mask_in_features", "mask_pooler", "mask_head"):
    model.roi_heads.pop(key)

model._target_ = SACTGeneralizedRCNN
model.backbone.bottom_up = L(SACTBackbone)(
    spec=L(ResNetV2Spec.of_depth)(
        depth=50, halting="sact", norm="FrozenBN", halting_norm="MovingBN", norm_epsilon=1e-5
    ),
    freeze_at=2,
    out_features=["res2_relu", "res3_relu", "res4_relu", "res5_relu"],
)
model.proposal_generator._target_ = SACTRPN
model.prices = {"backbone": 0.005}  # tau
model.reference = L(Reference.of)(spec="${..backbone.bottom_up.spec}", units=[3, 4, 23, 3])
model.pixel_mean = model.pixel_std = [127.5, 127.5, 127.5]  # RGB in [-1, 1]
model.input_format = "RGB"
