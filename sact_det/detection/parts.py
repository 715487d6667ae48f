"""Of which parts of Detectron2 a SACT detector may be built."""

from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY, PROPOSAL_GENERATOR_REGISTRY, ROI_HEADS_REGISTRY
from detectron2.modeling.anchor_generator import ANCHOR_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator import RPN_HEAD_REGISTRY

from sact_det.base.errors import InputError
from sact_det.detection.backbone import build_sact_resnet_backbone
from sact_det.detection.pooler import check_pooler
from sact_det.detection.proposals import SACTRPN
from sact_det.detection.roi_heads import SACTRes5ROIHeads
from sact_det.detection.rpn_head import SACTRPNHead, deciding_blocks
from sact_det.engine.config_checks import check_no_effect, check_ranges
from sact_det.engine.config_table import DETECTION
from sact_det.engine.setup import check_registered

_READ = ("IN_FEATURES", "BOX_HEAD_HALTING", "RPN_POSITIONS")
_READ_BY_PARTS = {key: rule for key, rule in DETECTION.items() if key.endswith(_READ)}


def check_parts(cfg: CfgNode) -> None:
    """Raises InputError, naming the key, if a part is unknown or cannot be one of a SACTGeneralizedRCNN."""
    model = cfg.MODEL
    check_registered("MODEL.BACKBONE.NAME", model.BACKBONE.NAME, BACKBONE_REGISTRY)
    check_registered("MODEL.PROPOSAL_GENERATOR.NAME", model.PROPOSAL_GENERATOR.NAME, PROPOSAL_GENERATOR_REGISTRY)
    check_registered("MODEL.RPN.HEAD_NAME", model.RPN.HEAD_NAME, RPN_HEAD_REGISTRY)
    check_registered("MODEL.ANCHOR_GENERATOR.NAME", model.ANCHOR_GENERATOR.NAME, ANCHOR_GENERATOR_REGISTRY)
    check_registered("MODEL.ROI_HEADS.NAME", model.ROI_HEADS.NAME, ROI_HEADS_REGISTRY)
    _check_accounts(cfg)
    _check_boxes(cfg)
    check_ranges(cfg, _READ_BY_PARTS)
    _check_proposal_mass(cfg)
    _check_rpn_positions(cfg)
    _check_rejection(cfg)
    check_pooler(cfg)


def _check_accounts(cfg: CfgNode) -> None:
    """Detectron2's own backbones and box heads keep no account of their computation."""
    model = cfg.MODEL
    for section, registry, ours in (
        ("BACKBONE", BACKBONE_REGISTRY, build_sact_resnet_backbone.__name__),
        ("ROI_HEADS", ROI_HEADS_REGISTRY, SACTRes5ROIHeads.__name__),
    ):
        name = model[section].NAME
        if registry.get(name).__module__.startswith("detectron2."):
            raise InputError(
                f"MODEL.META_ARCHITECTURE {model.META_ARCHITECTURE} needs MODEL.{section}.NAME {ours}; got {name!r}"
            )


def _check_boxes(cfg: CfgNode) -> None:
    """Upright boxes alone, of proposals that the model makes itself."""
    model = cfg.MODEL
    for key in ("MASK_ON", "KEYPOINT_ON"):
        if model[key]:
            raise InputError(f"MODEL.{key}: {model.ROI_HEADS.NAME} detects boxes only")
    for section, name in (("PROPOSAL_GENERATOR", "RRPN"), ("ANCHOR_GENERATOR", "RotatedAnchorGenerator")):
        if name == model[section].NAME:
            raise InputError(f"MODEL.{section}.NAME {name}: {model.ROI_HEADS.NAME} takes no rotated boxes")
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
