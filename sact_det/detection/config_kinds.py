"""What a detector's config may say beyond config_table.py, which depends on its kind: C4, a pyramid's, RetinaNet.

A C4 detector has block 4 in its box head; one on a pyramid (FPN) has Detectron2's box heads; RetinaNet has none. The
first two may have a mask head, those on a pyramid a keypoint head.
"""

from typing import Mapping, Sequence

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from detectron2.modeling.roi_heads import ROI_BOX_HEAD_REGISTRY, ROI_KEYPOINT_HEAD_REGISTRY, ROI_MASK_HEAD_REGISTRY

from sact_det.base.errors import InputError
from sact_det.base.value_rules import (
    NOT_NEGATIVE,
    POSITIVE,
    Rule,
    listing,
    one_of,
    whole,
    within,
)
from sact_det.detection.pyramid import extractor_blocks, features_of, has_pyramid
from sact_det.engine.config_checks import check_no_effect, check_ranges
from sact_det.engine.config_table import MOST_CHANNELS, MOST_CLASSES, UNUSED_BY_DETECTORS
from sact_det.engine.setup import check_registered

RETINANET, PANOPTIC = "SACTRetinaNet", "SACTPanopticFPN"

_SHARE = within(0, 1)
_CHANNELS = whole(1, MOST_CHANNELS)
_MOST_LAYERS = 64
_NORM = one_of("", "BN", "SyncBN", "FrozenBN", "GN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N", "LN")

_PYRAMID: Mapping[str, Rule] = {
    "MODEL.FPN.OUT_CHANNELS": _CHANNELS,
    "MODEL.FPN.NORM": _NORM,
    "MODEL.FPN.FUSE_TYPE": one_of("sum", "avg"),
}
_BOX_HEAD: Mapping[str, Rule] = {
    "MODEL.ROI_BOX_HEAD.NUM_FC": whole(0, _MOST_LAYERS),
    "MODEL.ROI_BOX_HEAD.FC_DIM": _CHANNELS,
    "MODEL.ROI_BOX_HEAD.NUM_CONV": whole(0, _MOST_LAYERS),
    "MODEL.ROI_BOX_HEAD.CONV_DIM": _CHANNELS,
    "MODEL.ROI_BOX_HEAD.NORM": _NORM,
}
_CASCADE: Mapping[str, Rule] = {
    "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": listing(within(0, 1, "(]"), "thresholds in (0, 1]", least=1),
    "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS": listing(
        listing(POSITIVE, "", 4), "lists of 4 finite positive numbers", least=1
    ),
}
_POOLER: Mapping[str, Rule] = {
    "POOLER_RESOLUTION": whole(1, 256),
    "POOLER_SAMPLING_RATIO": whole(0, 64),
    "POOLER_TYPE": one_of("ROIAlignV2", "ROIAlign", "ROIPool"),
}
_MASK_HEAD: Mapping[str, Rule] = {
    "MODEL.ROI_MASK_HEAD.NUM_CONV": whole(0, _MOST_LAYERS),
    "MODEL.ROI_MASK_HEAD.CONV_DIM": _CHANNELS,
    "MODEL.ROI_MASK_HEAD.NORM": _NORM,
    "INPUT.MASK_FORMAT": one_of("polygon", "bitmask"),
}
_KEYPOINT_HEAD: Mapping[str, Rule] = {
    "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": listing(_CHANNELS, f"widths, each from 1 to {MOST_CHANNELS}"),
    "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS": whole(1, MOST_CHANNELS),
    "MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE": whole(0),
    "MODEL.ROI_KEYPOINT_HEAD.LOSS_WEIGHT": NOT_NEGATIVE,
    "TEST.KEYPOINT_OKS_SIGMAS": listing(POSITIVE, "finite positive numbers, one for each keypoint"),
}
_PANOPTIC: Mapping[str, Rule] = {
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": whole(0),
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": whole(2, MOST_CLASSES),
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": _CHANNELS,
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": one_of(4, 8, 16, 32),
    "MODEL.SEM_SEG_HEAD.NORM": _NORM,
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": NOT_NEGATIVE,
    "MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH": _SHARE,
    "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT": whole(0),
    "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH": _SHARE,
}
_RETINANET: Mapping[str, Rule] = {
    "MODEL.RETINANET.NUM_CLASSES": whole(1),
    "MODEL.RETINANET.NUM_CONVS": whole(1, _MOST_LAYERS),
    "MODEL.RETINANET.IOU_THRESHOLDS": listing(within(0, 1, "(]"), "thresholds in (0, 1]", least=1),
    "MODEL.RETINANET.IOU_LABELS": listing(one_of(-1, 0, 1), "labels, each -1, 0 or 1"),
    "MODEL.RETINANET.PRIOR_PROB": within(0, 1, "()"),
    "MODEL.RETINANET.SCORE_THRESH_TEST": _SHARE,
    "MODEL.RETINANET.TOPK_CANDIDATES_TEST": whole(1),
    "MODEL.RETINANET.NMS_THRESH_TEST": _SHARE,
    "MODEL.RETINANET.BBOX_REG_WEIGHTS": listing(POSITIVE, "finite positive numbers", 4),
    "MODEL.RETINANET.FOCAL_LOSS_GAMMA": NOT_NEGATIVE,
    "MODEL.RETINANET.FOCAL_LOSS_ALPHA": Rule(lambda alpha: alpha <= 1, "be at most 1, or negative for no weights"),
    "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA": NOT_NEGATIVE,
    "MODEL.RETINANET.BBOX_REG_LOSS_TYPE": one_of("smooth_l1", "giou", "diou", "ciou"),
    "MODEL.RETINANET.NORM": _NORM,
}

_OF_BLOCK_4 = tuple(
    f"MODEL.SACT.{key}"
    for key in (
        "BOX_HEAD_HALTING",
        "BOX_HEAD_HALTING_NORM",
        "BOX_HEAD_MAP_PRODUCTS",
        "BOX_HEAD_MAX_POOL",
        "BOX_HEAD_NORM",
        "REJECTION",
        "TAU_BOX_HEAD",
    )
)
_OF_PROPOSALS = (
    "MODEL.SACT.PROPOSAL_MASS",
    "MODEL.SACT.RPN_POSITIONS",
    "MODEL.PROPOSAL_GENERATOR",
    "MODEL.RPN",
    "MODEL.ROI_BOX_HEAD",
    # NUM_CLASSES is always that of the data.
    *(f"MODEL.ROI_HEADS.{key}" for key in get_cfg().MODEL.ROI_HEADS if key != "NUM_CLASSES"),
)


def is_retinanet(cfg: CfgNode) -> bool:
    """Whether a detector has no proposals."""
    return cfg.MODEL.META_ARCHITECTURE == RETINANET


def is_panoptic(cfg: CfgNode) -> bool:
    """Whether a detector segments stuff, too."""
    return cfg.MODEL.META_ARCHITECTURE == PANOPTIC


def has_block_4_in_its_box_head(cfg: CfgNode) -> bool:
    """Whether it is a C4 detector, or one of parts that this package does not know."""
    return not has_pyramid(cfg) and not is_retinanet(cfg)


def classes_key(cfg: CfgNode) -> str:
    """The key that says how many classes a detector finds."""
    return "MODEL.RETINANET.NUM_CLASSES" if is_retinanet(cfg) else "MODEL.ROI_HEADS.NUM_CLASSES"


def unused_keys(cfg: CfgNode) -> Sequence[str]:
    """The keys, or sections of them, that have no effect on a detector of this kind."""
    read, unread = set(), []
    if cfg.MODEL.MASK_ON:
        read |= {"MODEL.ROI_MASK_HEAD", "INPUT.MASK_FORMAT"}
    if cfg.MODEL.KEYPOINT_ON:
        read |= {"MODEL.ROI_KEYPOINT_HEAD", "TEST.KEYPOINT_OKS_SIGMAS"}
    if is_panoptic(cfg):
        read |= {"MODEL.SEM_SEG_HEAD", "MODEL.PANOPTIC_FPN", "DATASETS.PANOPTIC_FORMAT"}
        # Detectron2 has left these behind.
        unread += ["MODEL.PANOPTIC_FPN.COMBINE.ENABLED", "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT"]
    if has_block_4_in_its_box_head(cfg):
        unread += [f"MODEL.ROI_MASK_HEAD.{key}" for key in _POOLER]  # the box head's is its
        return (*(key for key in UNUSED_BY_DETECTORS if key not in read), *unread)
    read.add("MODEL.FPN")
    unread += _OF_BLOCK_4
    if is_retinanet(cfg):
        read.add("MODEL.RETINANET")
        unread += _OF_PROPOSALS
    else:
        read.update(key for key in UNUSED_BY_DETECTORS if key.startswith("MODEL.ROI_BOX_HEAD."))
        if cfg.MODEL.ROI_HEADS.NAME == "CascadeROIHeads":
            read.add("MODEL.ROI_BOX_CASCADE_HEAD")
    return (*(key for key in UNUSED_BY_DETECTORS if key not in read), *unread)


def kind_ranges(cfg: CfgNode) -> Mapping[str, Rule]:
    """What a detector of this kind asks of its keys, beyond what all detectors do (config_table.py: DETECTION).

    Raises:
        InputError: MODEL.FPN.IN_FEATURES cannot be read.
    """
    rules = {**_features(cfg), "MODEL.BACKBONE.FREEZE_AT": whole(0, 1 + extractor_blocks(cfg))}  # the stem, too
    if has_pyramid(cfg):
        rules.update(_PYRAMID)
    if is_retinanet(cfg):
        return {**rules, **_RETINANET}
    if cfg.MODEL.MASK_ON:
        rules.update(_MASK_HEAD)
    if has_pyramid(cfg):
        rules.update(_BOX_HEAD)
        if cfg.MODEL.ROI_HEADS.NAME == "CascadeROIHeads":
            rules.update(_CASCADE)
        heads = ("MASK", cfg.MODEL.MASK_ON), ("KEYPOINT", cfg.MODEL.KEYPOINT_ON)
        for head in (name for name, there in heads if there):
            rules.update({f"MODEL.ROI_{head}_HEAD.{key}": rule for key, rule in _POOLER.items()})
        if cfg.MODEL.KEYPOINT_ON:
            rules.update(_KEYPOINT_HEAD)
    if is_panoptic(cfg):
        rules.update(_PANOPTIC)
    return rules


def check_kind(cfg: CfgNode) -> None:
    """Raises InputError, naming the key, if a value cannot be one of a detector of this kind."""
    check_ranges(cfg, kind_ranges(cfg))
    if cfg.MODEL.CLASSIFIER.FAMILY != "imagenet":
        raise InputError(
            "MODEL.CLASSIFIER.FAMILY must be 'imagenet' for a detector: other networks have no such features; "
            f"got {cfg.MODEL.CLASSIFIER.FAMILY!r}"
        )
    if has_pyramid(cfg) and not is_retinanet(cfg):
        check_registered("MODEL.ROI_BOX_HEAD.NAME", cfg.MODEL.ROI_BOX_HEAD.NAME, ROI_BOX_HEAD_REGISTRY)
    if cfg.MODEL.MASK_ON:
        check_registered("MODEL.ROI_MASK_HEAD.NAME", cfg.MODEL.ROI_MASK_HEAD.NAME, ROI_MASK_HEAD_REGISTRY)
    if cfg.MODEL.KEYPOINT_ON:
        check_registered("MODEL.ROI_KEYPOINT_HEAD.NAME", cfg.MODEL.ROI_KEYPOINT_HEAD.NAME, ROI_KEYPOINT_HEAD_REGISTRY)
    if is_panoptic(cfg):
        check_registered("MODEL.SEM_SEG_HEAD.NAME", cfg.MODEL.SEM_SEG_HEAD.NAME, SEM_SEG_HEADS_REGISTRY)
        if not cfg.MODEL.MASK_ON:
            raise InputError(f"MODEL.META_ARCHITECTURE {PANOPTIC} needs MODEL.MASK_ON True; got False")
    if not has_block_4_in_its_box_head(cfg):
        check_no_effect(cfg, _OF_BLOCK_4, "a detector on a pyramid")


def _features(cfg: CfgNode) -> Mapping[str, Rule]:
    """That IN_FEATURES of the heads are features of the backbone, where that is one of this package's."""
    features = features_of(cfg)
    if features is None:
        return {}
    names = " or ".join(map(repr, features)) if len(features) < 3 else f"'{features[0]}' to '{features[-1]}'"
    several = listing(one_of(*features), f"features, {names}", least=1)
    if is_retinanet(cfg):
        return {"MODEL.RETINANET.IN_FEATURES": several}
    one = listing(one_of(*features), f"feature, {names}", 1)
    rules = {"MODEL.RPN.IN_FEATURES": several, "MODEL.ROI_HEADS.IN_FEATURES": several if has_pyramid(cfg) else one}
    return {**rules, "MODEL.SEM_SEG_HEAD.IN_FEATURES": several} if is_panoptic(cfg) else rules


def check_detector(cfg: CfgNode, where: str = "", with_proposals: bool = False) -> None:
    """Raises InputError, beginning with `where`, unless a config's detector is C4, on a pyramid, or RetinaNet.

    `with_proposals`: RetinaNet is none.
    """
    name, wanted = cfg.MODEL.META_ARCHITECTURE, ["SACTGeneralizedRCNN", *([] if with_proposals else [RETINANET])]
    if name not in wanted:
        raise InputError(f"{where}MODEL.META_ARCHITECTURE must be {' or '.join(wanted)}; got {name}")
