"""Detectron2's feature pyramids on the SACT extractor, and what a config's backbone gives to its readers."""

from typing import Any, Optional, Sequence

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7

from sact_det.base.errors import InputError
from sact_det.detection.backbone import FEATURES, RECTIFIED, SACTBackbone, build_sact_resnet_backbone
from sact_det.detection.layers import plan_layers
from sact_det.engine.spec import spec_from_config

_LEVELS = ("res2", "res3", "res4", "res5")


def build_extractor(cfg: CfgNode) -> SACTBackbone:
    """The extractor below a pyramid: as many blocks as MODEL.FPN.IN_FEATURES reads."""
    return SACTBackbone(
        spec=spec_from_config(cfg),
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        execution=cfg.MODEL.SACT.EXECUTION,
        out_features=cfg.MODEL.FPN.IN_FEATURES,
    )


@BACKBONE_REGISTRY.register()
def build_sact_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """MODEL.BACKBONE.NAME "build_sact_resnet_fpn_backbone": Detectron2's FPN on MODEL.FPN.IN_FEATURES of the extractor.

    Its features are p2 to p5, as far as the extractor's are read, and one more behind max pooling of stride 2.
    """
    return _pyramid(cfg, build_extractor(cfg), LastLevelMaxPool())


@BACKBONE_REGISTRY.register()
def build_sact_retinanet_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """MODEL.BACKBONE.NAME "build_sact_retinanet_resnet_fpn_backbone": the FPN whose p6 and p7 are made of res5."""
    bottom_up, top = build_extractor(cfg), cfg.MODEL.FPN.IN_FEATURES[-1]
    channels = bottom_up.output_shape()[top].channels
    return _pyramid(cfg, bottom_up, LastLevelP6P7(channels, cfg.MODEL.FPN.OUT_CHANNELS, top))


def _pyramid(cfg: CfgNode, bottom_up: SACTBackbone, top_block: Any) -> FPN:
    fpn = cfg.MODEL.FPN
    pyramid = FPN(bottom_up, fpn.IN_FEATURES, fpn.OUT_CHANNELS, fpn.NORM, top_block, fpn.FUSE_TYPE)
    plan_layers(pyramid, cfg.MODEL.SACT.EXECUTION)
    return pyramid


# Name of the backbone -> levels above the extractor's last.
PYRAMIDS = {
    build_sact_resnet_fpn_backbone.__name__: 1,
    build_sact_retinanet_resnet_fpn_backbone.__name__: 2,
}


def has_pyramid(cfg: CfgNode) -> bool:
    """Whether a config's backbone is one of this module's."""
    return cfg.MODEL.BACKBONE.NAME in PYRAMIDS


def extractor_blocks(cfg: CfgNode) -> int:
    """How many blocks a config's extractor has: 3 of a C4 detector, whose block 4 is in its box head."""
    return _index(cfg.MODEL.FPN.IN_FEATURES[-1]) - 1 if has_pyramid(cfg) else _index(FEATURES[-1]) - 1


def extractor_of(backbone: Any) -> SACTBackbone:
    """The SACTBackbone that a detector's backbone is, or that its pyramid stands on."""
    return next(part for part in backbone.modules() if isinstance(part, SACTBackbone))


def features_of(cfg: CfgNode) -> Optional[Sequence[str]]:
    """The features that a config's backbone can give; None: it is none of this package's.

    Raises:
        InputError: MODEL.FPN.IN_FEATURES are no features of the extractor, each of twice the stride of the one before.
    """
    name = cfg.MODEL.BACKBONE.NAME
    if name == build_sact_resnet_backbone.__name__:
        return FEATURES
    if name not in PYRAMIDS:
        return None
    read = cfg.MODEL.FPN.IN_FEATURES
    levels = [str(feature).removesuffix(RECTIFIED) for feature in read]
    first = _LEVELS.index(levels[0]) if levels and levels[0] in _LEVELS else len(_LEVELS)
    if not levels or tuple(levels) != _LEVELS[first : first + len(levels)]:
        raise InputError(
            "MODEL.FPN.IN_FEATURES must list features of the extractor, res2_relu to res5_relu (or res2 to res5, not "
            f"rectified), each of twice the stride of the one before; got {read!r}"
        )
    return [f"p{level}" for level in range(_index(levels[0]), _index(levels[-1]) + 1 + PYRAMIDS[name])]


def _index(feature: str) -> int:
    """The K of a feature "resK" or "resK_relu"."""
    return int(feature.removesuffix(RECTIFIED)[len("res") :])
