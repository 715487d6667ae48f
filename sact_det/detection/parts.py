"""Of which parts of Detectron2 a SACT detector may be built."""

from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY, PROPOSAL_GENERATOR_REGISTRY, ROI_HEADS_REGISTRY
from detectron2.modeling.anchor_generator import ANCHOR_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator import RPN_HEAD_REGISTRY
from detectron2.modeling.roi_heads import Res5ROIHeads, RROIHeads

from sact_det.base.errors import InputError
from sact_det.detection.backbone import build_sact_resnet_backbone
from sact_det.detection.config_kinds import check_kind, is_panoptic, is_retinanet
from sact_det.detection.pooler import check_pooler
from sact_det.detection.proposals import SACTRPN
from sact_det.detection.pyramid import (
    build_sact_resnet_fpn_backbone,
    build_sact_retinanet_resnet_fpn_backbone,
    has_pyramid,
)
from sact_det.detection.roi_heads import SACTRes5ROIHeads
from sact_det.detection.rpn_head import SACTRPNHead, deciding_blocks
from sact_det.engine.config_checks import check_no_effect, check_ranges
from sact_det.engine.config_table import DETECTION
from sact_det.engine.setup import check_registered

_READ = ("BOX_HEAD_HALTING", "RPN_POSITIONS")
_READ_BY_PARTS = {key: rule for key, rule in DETECTION.items() if key.endswith(_READ)}


def check_parts(cfg: CfgNode) -> None:
    """Raises InputError, naming the key, if a part is unknown or cannot be one of a detector of this package."""
    model = cfg.MODEL
    check_registered("MODEL.BACKBONE.NAME", model.BACKBONE.NAME, BACKBONE_REGISTRY)
    check_registered("MODEL.ANCHOR_GENERATOR.NAME", model.ANCHOR_GENERATOR.NAME, ANCHOR_GENERATOR_REGISTRY)
    _check_backbone(cfg)
    if not is_retinanet(cfg):
        check_registered("MODEL.PROPOSAL_GENERATOR.NAME", model.PROPOSAL_GENERATOR.NAME, PROPOSAL_GENERATOR_REGISTRY)
        check_registered("MODEL.RPN.HEAD_NAME", model.RPN.HEAD_NAME, RPN_HEAD_REGISTRY)
        check_registered("MODEL.ROI_HEADS.NAME", model.ROI_HEADS.NAME, ROI_HEADS_REGISTRY)
        _check_heads(cfg)
    _check_boxes(cfg)
    check_ranges(cfg, _READ_BY_PARTS)
    check_kind(cfg)
    if not is_retinanet(cfg):
        _check_proposal_mass(cfg)
        _check_rpn_positions(cfg)
        _check_rejection(cfg)
        check_pooler(cfg)


def _check_backbone(cfg: CfgNode) -> None:
    """Detectron2's own backbones keep no account of their computation; RetinaNet reads a pyramid."""
    model, pyramid = cfg.MODEL, build_sact_retinanet_resnet_fpn_backbone.__name__
    ours = {build_sact_resnet_backbone.__name__, build_sact_resnet_fpn_backbone.__name__, pyramid}
    fit = {pyramid} if is_retinanet(cfg) else ours - {pyramid}
    if is_panoptic(cfg):
        fit = {build_sact_resnet_fpn_backbone.__name__}
    name, wanted = model.BACKBONE.NAME, " or ".join(sorted(fit))
    if BACKBONE_REGISTRY.get(name).__module__.startswith("detectron2.") or name in ours - fit:
        raise InputError(
            f"MODEL.META_ARCHITECTURE {model.META_ARCHITECTURE} needs MODEL.BACKBONE.NAME {wanted}; got {name!r}"
        )


def _check_heads(cfg: CfgNode) -> None:
    """Block 4 stands in a C4 detector's box head, which keeps account of it; on a pyramid it must not."""
    model = cfg.MODEL
    name, architecture = model.ROI_HEADS.NAME, model.META_ARCHITECTURE
    if has_pyramid(cfg):
        if issubclass(ROI_HEADS_REGISTRY.get(name), (Res5ROIHeads, RROIHeads)):
            raise InputError(
                f"MODEL.BACKBONE.NAME {model.BACKBONE.NAME} needs MODEL.ROI_HEADS.NAME StandardROIHeads or "
                f"CascadeROIHeads; got {name!r}"
            )
    elif ROI_HEADS_REGISTRY.get(name).__module__.startswith("detectron2."):
        raise InputError(
            f"MODEL.META_ARCHITECTURE {architecture} needs MODEL.ROI_HEADS.NAME {SACTRes5ROIHeads.__name__}; "
            f"got {name!r}"
        )


def _check_boxes(cfg: CfgNode) -> None:
    """Upright boxes of proposals that the model makes itself, and what its heads make of them."""
    model = cfg.MODEL
    who = model.META_ARCHITECTURE if is_retinanet(cfg) else model.ROI_HEADS.NAME
    if is_retinanet(cfg):
        for key in ("MASK_ON", "KEYPOINT_ON"):
            if model[key]:
                raise InputError(f"MODEL.{key}: {who} detects boxes only")
    elif model.KEYPOINT_ON and not has_pyramid(cfg):
        raise InputError(f"MODEL.KEYPOINT_ON: {who} has no keypoint head; expected a detector on a pyramid")
    for section, name in (("PROPOSAL_GENERATOR", "RRPN"), ("ANCHOR_GENERATOR", "RotatedAnchorGenerator")):
        if name == model[section].NAME:
            raise InputError(f"MODEL.{section}.NAME {name}: {who} takes no rotated boxes")
    check_no_effect(cfg, ("MODEL.LOAD_PROPOSALS",), "a detector")


def _check_proposal_mass(cfg: CfgNode) -> None:
    """Detectron2's own proposal generators know no mass."""
    mass, name = cfg.MODEL.SACT.PROPOSAL_MASS, cfg.MODEL.PROPOSAL_GENERATOR.NAME
    if mass != 1 and PROPOSAL_GENERATOR_REGISTRY.get(name).__module__.startswith("detectron2."):
        raise InputError(
            f"MODEL.SACT.PROPOSAL_MASS {mass} needs MODEL.PROPOSAL_GENERATOR.NAME {SACTRPN.__name__}; got {name!r}"
        )


def _check_rpn_positions(cfg: CfgNode) -> None:
    """Detectron2's own heads have anchors everywhere."""
    name = cfg.MODEL.RPN.HEAD_NAME
    if deciding_blocks(cfg) and RPN_HEAD_REGISTRY.get(name).__module__.startswith("detectron2."):
        raise InputError(
            f"MODEL.SACT.RPN_POSITIONS active needs MODEL.RPN.HEAD_NAME {SACTRPNHead.__name__}; got {name!r}"
        )


def _check_rejection(cfg: CfgNode) -> None:
    """A rejected region is of the class "background", which classes that are judged one by one do not have."""
    if cfg.MODEL.SACT.REJECTION and cfg.MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE:
        raise InputError("MODEL.SACT.REJECTION needs MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE False; got True")
