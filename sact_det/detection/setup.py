"""What a detector's config must fulfil, before any work is done."""

from importlib.util import find_spec
from typing import Sequence

from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog

from sact_det.base.errors import InputError
from sact_det.base.value_rules import whole, within
from sact_det.data.coco import register_coco_datasets
from sact_det.data.coco_panoptic import register_panoptic_datasets
from sact_det.detection.box_evaluator import COCO_SIGMAS
from sact_det.detection.config_kinds import PANOPTIC, classes_key, is_panoptic, is_retinanet, unused_keys
from sact_det.detection.parts import check_parts
from sact_det.detection.pyramid import extractor_blocks
from sact_det.engine.config_checks import check_no_effect, check_ranges, value_of
from sact_det.engine.config_table import DETECTION
from sact_det.engine.setup import check_sact
from sact_det.network.resnet_v2 import ResNetV2Spec


def prepare(cfg: CfgNode, overrides: Sequence[str] = ()) -> None:
    """Checks the config and registers its data sets.

    Args:
        cfg: the config; its NUM_CLASSES becomes that of its data.
        overrides: KEY VALUE pairs that `cfg` has from a command line.

    Raises:
        InputError: a value cannot be used.
    """
    check_parts(cfg)
    check_sact(cfg, ResNetV2Spec, extractor_blocks(cfg))
    check_ranges(cfg, DETECTION)
    check_no_effect(cfg, unused_keys(cfg), "a detector")
    _check_anchors_and_labels(cfg)
    _check_sizes(cfg)
    stated = value_of(cfg, classes_key(cfg))
    register_coco_datasets(cfg)
    if is_panoptic(cfg):
        register_panoptic_datasets(cfg)
        _take_stuff(cfg)
    _take_classes(cfg, stated, overrides[::2])
    _check_keypoints(cfg)
    _check_federated(cfg)


def _check_anchors_and_labels(cfg: CfgNode) -> None:
    head, labelled = ("RETINANET", ("RETINANET",)) if is_retinanet(cfg) else ("RPN", ("RPN", "ROI_HEADS"))
    features = len(cfg.MODEL[head].IN_FEATURES)
    for key in ("SIZES", "ASPECT_RATIOS"):
        anchors = cfg.MODEL.ANCHOR_GENERATOR[key]
        lists = [isinstance(entry, (list, tuple)) for entry in anchors]
        if any(lists) and not (all(lists) and len(lists) in (1, features)):
            raise InputError(
                f"MODEL.ANCHOR_GENERATOR.{key} must list numbers, or one list of them, or one for each of "
                f"MODEL.{head}.IN_FEATURES, {features}; got {anchors}"
            )
    for section in labelled:
        thresholds, labels = cfg.MODEL[section].IOU_THRESHOLDS, cfg.MODEL[section].IOU_LABELS
        if sorted(thresholds) != list(thresholds):
            raise InputError(f"MODEL.{section}.IOU_THRESHOLDS must not fall; got {thresholds}")
        if len(labels) != len(thresholds) + 1:
            raise InputError(
                f"MODEL.{section}.IOU_LABELS must list {len(thresholds) + 1}, one more than thresholds; got {labels}"
            )


def _check_sizes(cfg: CfgNode) -> None:
    sizes = cfg.INPUT
    if sizes.MIN_SIZE_TRAIN_SAMPLING == "range" and not (
        len(sizes.MIN_SIZE_TRAIN) == 2 and 0 < sizes.MIN_SIZE_TRAIN[0] <= sizes.MIN_SIZE_TRAIN[1]
    ):
        raise InputError(
            "INPUT.MIN_SIZE_TRAIN must list two sides, the smaller first, for INPUT.MIN_SIZE_TRAIN_SAMPLING 'range'; "
            f"got {sizes.MIN_SIZE_TRAIN}"
        )
    for phase, least in (("TRAIN", max(sizes.MIN_SIZE_TRAIN)), ("TEST", sizes.MIN_SIZE_TEST)):
        if sizes[f"MAX_SIZE_{phase}"] < least:
            raise InputError(
                f"INPUT.MAX_SIZE_{phase} must be at least INPUT.MIN_SIZE_{phase}, {least}; "
                f"got {sizes[f'MAX_SIZE_{phase}']}"
            )
    relative = sizes.CROP.TYPE.startswith("relative")
    rule = within(0, 1, "(]") if relative else whole(1)
    if sizes.CROP.ENABLED and sizes.SCALE_JITTER:
        raise InputError("INPUT.SCALE_JITTER cuts a part out of an image itself: INPUT.CROP.ENABLED must be False")
    cutting = "SCALE_JITTER" if sizes.SCALE_JITTER else "CROP.ENABLED" if sizes.CROP.ENABLED else ""
    if cutting and cfg.MODEL.MASK_ON and find_spec("shapely") is None:
        raise InputError(f"INPUT.{cutting} cuts the polygons of masks, which needs shapely: pip install shapely")
    if not all(map(rule.allows, sizes.CROP.SIZE)):
        raise InputError(
            f"INPUT.CROP.SIZE: each of both must {rule.expected} for INPUT.CROP.TYPE {sizes.CROP.TYPE!r}; "
            f"got {sizes.CROP.SIZE}"
        )


def _take_classes(cfg: CfgNode, stated: int, overridden: Sequence[str]) -> None:
    """NUM_CLASSES of the detector's head becomes that of the data, unless another was asked for: that is refused.

    Detectron2's default asks for nothing, nor does a file whose data sets the command line has exchanged.
    """
    key = classes_key(cfg)
    counts = {
        name: len(classes)
        for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
        if name in DatasetCatalog and (classes := MetadataCatalog.get(name).get("thing_classes")) is not None
    }
    if not counts:
        return
    own_data = not any(name.startswith("DATASETS.") for name in overridden)
    asked = key in overridden or (own_data and stated != value_of(get_cfg(), key))
    first = next(iter(counts))
    for name, count in counts.items():
        if asked and count != stated:
            raise InputError(
                f"{key} is {stated}, but data set {name!r} has {count} classes; leave it out, or set {count}"
            )
        if count != counts[first]:
            raise InputError(f"data set {name!r} has {count} classes, {first!r} has {counts[first]}")
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = counts[first]
    if is_retinanet(cfg):
        cfg.MODEL.RETINANET.NUM_CLASSES = counts[first]


def _take_stuff(cfg: CfgNode) -> None:
    """SEM_SEG_HEAD.NUM_CLASSES becomes that of the data, "things" included; Detectron2's default asks for nothing."""
    key = "MODEL.SEM_SEG_HEAD.NUM_CLASSES"
    stated, default = value_of(cfg, key), value_of(get_cfg(), key)
    for name in (name for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) if name in DatasetCatalog):
        metadata = MetadataCatalog.get(name)
        if metadata.get("panoptic_json") is None:
            raise InputError(
                f"data set {name!r} has no panoptic segments, which {PANOPTIC} needs; DATASETS.PANOPTIC_FORMAT lists "
                "those that have"
            )
        count = len(metadata.stuff_classes)
        if stated not in (count, default):
            raise InputError(f"{key} is {stated}, but data set {name!r} has {count} classes, all things being one")
        stated = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = count


def _check_keypoints(cfg: CfgNode) -> None:
    """NUM_KEYPOINTS are those of the data, and each has a sigma: COCO's own program has those of its 17 alone."""
    if not cfg.MODEL.KEYPOINT_ON:
        return
    number, sigmas = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS, cfg.TEST.KEYPOINT_OKS_SIGMAS
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        names = MetadataCatalog.get(name).get("keypoint_names") if name in DatasetCatalog else None
        if names is not None and len(names) != number:
            raise InputError(
                f"MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS is {number}, but data set {name!r} has {len(names)} keypoints"
            )
    if len(sigmas or COCO_SIGMAS) != number:
        raise InputError(
            f"TEST.KEYPOINT_OKS_SIGMAS must list a number for each of MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS, {number}; "
            f"got {list(sigmas)}"
        )


def _check_federated(cfg: CfgNode) -> None:
    """The federated loss draws classes by how often they occur, which Detectron2 knows of LVIS alone."""
    head, names = cfg.MODEL.ROI_BOX_HEAD, cfg.DATASETS.TRAIN
    counted = names and all(MetadataCatalog.get(name).get("class_image_count") is not None for name in names)
    if head.USE_FED_LOSS and head.USE_SIGMOID_CE and not counted:
        raise InputError(
            "MODEL.ROI_BOX_HEAD.USE_FED_LOSS needs data sets in DATASETS.TRAIN whose metadata has class_image_count; "
            f"got {tuple(names)}"
        )
