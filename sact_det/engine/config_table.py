"""Every key of the config that is checked, and what its value must be; the keys that nothing reads."""

from typing import Any, Mapping

import torch

from sact_det.base.value_rules import (
    FINITE,
    NOT_NEGATIVE,
    POSITIVE,
    Rule,
    each_as_list,
    listing,
    one_of,
    optional,
    rising,
    whole,
    within,
)
from sact_det.budget import DRAWS, PER
from sact_det.execution import EXECUTIONS
from sact_det.network.halting_rule import HALTING_RULES
from sact_det.network.norm import NORMS

# No recipe comes near these; what lies beyond them would fill any memory, or take for ever, before it fails.
MOST_IMAGES, MOST_PIXELS, MOST_CHANNELS, MOST_UNITS = 2**16, 2**16, 2**13, 1000
MOST_CLASSES, MOST_WORKERS = 100_000, 1024

UNITS = listing(whole(1, MOST_UNITS), f"integers from 1 to {MOST_UNITS}")
NAMES = listing(Rule(lambda name: isinstance(name, str) and name != "", ""), "names")
_NAME = Rule(str.isprintable, "be a name")
_PATH = Rule(lambda path: "\0" not in path and path.encode() is not None, "be a path, in characters that UTF-8 has")


def _is_expectation(row: Any) -> bool:
    task, metric, *numbers = row
    return isinstance(task, str) and isinstance(metric, str) and len(numbers) == 2 and all(map(FINITE.allows, numbers))


def _is_range(value: Any) -> bool:
    return value == () or value == [] or (len(value) == 2 and all(map(FINITE.allows, value)) and value[0] <= value[1])


def _is_scales(value: Any) -> bool:
    return len(value) == 0 or (len(value) == 2 and all(map(POSITIVE.allows, value)) and value[0] <= value[1])


def _is_device(name: str) -> bool:
    try:
        device = torch.device(name)
    except RuntimeError:
        return False
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    return device.type == "cpu"


# Read by the trainers of both tasks. NUM_CLASSES and what describes the network are checked with the family.
COMMON: Mapping[str, Rule] = {
    "MODEL.DEVICE": Rule(_is_device, "be 'cpu', 'cuda' or 'cuda:N' of this machine"),
    "MODEL.WEIGHTS": _PATH,
    "MODEL.PIXEL_MEAN": listing(FINITE, "finite numbers, one for each channel", 3),
    "MODEL.PIXEL_STD": listing(POSITIVE, "finite positive numbers, one for each channel", 3),
    "MODEL.SACT.UNITS": UNITS,
    "MODEL.SACT.REFERENCE_UNITS": UNITS,
    "MODEL.SACT.BASE_CHANNELS": whole(1, MOST_CHANNELS),
    "MODEL.SACT.TILE": whole(1, MOST_PIXELS),
    "MODEL.SACT.DILATION": listing(whole(1, 64), "integers from 1 to 64"),
    "MODEL.SACT.TAU": NOT_NEGATIVE,
    "MODEL.SACT.BUDGET": within(0, 1),
    "MODEL.SACT.FLOPS_LIMIT": within(0, 1),
    "MODEL.SACT.BUDGET_TRAINING": Rule(_is_range, "list nothing, or two finite numbers, the lower one first"),
    "MODEL.SACT.BUDGET_TRAINING_DRAWS": one_of(*DRAWS),
    "MODEL.SACT.BUDGET_TRAINING_PER": one_of(*PER),
    "MODEL.SACT.EXECUTION": one_of(*EXECUTIONS),
    "MODEL.SACT.BOX_HEAD_NORM": one_of("", *NORMS),
    "MODEL.SACT.BOX_HEAD_HALTING_NORM": one_of("", *NORMS),
    "DATASETS.TRAIN": NAMES,
    "DATASETS.TEST": NAMES,
    "DATALOADER.NUM_WORKERS": whole(0, MOST_WORKERS),
    "SOLVER.MAX_ITER": whole(1),
    "SOLVER.STEPS": rising(whole(1), "positive integers"),
    "SOLVER.CHECKPOINT_PERIOD": whole(1),
    "SOLVER.CHECKPOINTS_KEPT": whole(0),
    "SOLVER.IMS_PER_BATCH": whole(1, MOST_IMAGES),
    "SOLVER.REFERENCE_WORLD_SIZE": whole(0),
    "SOLVER.LR_SCHEDULER_NAME": one_of("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR"),
    "SOLVER.BASE_LR": POSITIVE,
    "SOLVER.BASE_LR_END": NOT_NEGATIVE,
    "SOLVER.EPOCHS": NOT_NEGATIVE,
    "SOLVER.EMA_DECAY": within(0, 1, "[)"),
    "SOLVER.ACCUMULATION_STEPS": whole(1, MOST_IMAGES),
    "SOLVER.HALTING_LR_FACTOR": POSITIVE,
    "SOLVER.BACKBONE_LR_FACTOR": POSITIVE,
    "SOLVER.BIAS_LR_FACTOR": NOT_NEGATIVE,
    "SOLVER.MOMENTUM": within(0, 1, "[)"),
    "SOLVER.WEIGHT_DECAY": NOT_NEGATIVE,
    "SOLVER.WEIGHT_DECAY_NORM": NOT_NEGATIVE,
    "SOLVER.WEIGHT_DECAY_BIAS": optional(NOT_NEGATIVE),
    "SOLVER.GAMMA": within(0, 1, "(]"),
    "SOLVER.NUM_DECAYS": whole(1),
    "SOLVER.WARMUP_FACTOR": within(0, 1),
    "SOLVER.WARMUP_ITERS": whole(0),
    "SOLVER.WARMUP_METHOD": one_of("linear", "constant"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": one_of("value", "norm"),
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": POSITIVE,
    "SOLVER.CLIP_GRADIENTS.NORM_TYPE": Rule(lambda value: value > 0, "be positive"),
    "TEST.EVAL_PERIOD": whole(0),
    "TEST.LOSS_PERIOD": whole(0),
    "TEST.BEST_METRIC": _NAME,
    "TEST.BEST_METRIC_MODE": one_of("max", "min"),
    "TEST.PATIENCE": whole(0),
    "TEST.EXPECTED_RESULTS": listing(Rule(_is_expectation, ""), "(task, metric, value, tolerance) each"),
    "WANDB.PROJECT": _NAME,
    "SEED": Rule(lambda seed: seed < 2**32, f"be an integer below {2**32}"),
    "VIS_PERIOD": whole(0),
    "OUTPUT_DIR": Rule(lambda path: path and _PATH.allows(path), "name a folder, in characters that UTF-8 has"),
    "VERSION": one_of(2),
}

_SHARE = within(0, 1)
_TOP = whole(1)
_LOSSES = one_of("smooth_l1", "giou", "diou", "ciou")
_BOX_WEIGHTS = listing(POSITIVE, "finite positive numbers", 4)
_IOUS = listing(within(0, 1, "(]"), "thresholds in (0, 1]", least=1)
_LABELS = listing(one_of(-1, 0, 1), "labels, each -1, 0 or 1")
_ANCHORS = listing(each_as_list(POSITIVE), "finite positive numbers, or a list of them for each feature", least=1)
_SIZE = whole(0, MOST_PIXELS)  # 0: not resized

DETECTION: Mapping[str, Rule] = {
    "MODEL.SACT.BOX_HEAD_HALTING": one_of("", *HALTING_RULES),
    "MODEL.SACT.TAU_BOX_HEAD": NOT_NEGATIVE,
    "MODEL.SACT.PROPOSAL_MASS": within(0, 1, "(]"),
    "MODEL.SACT.RPN_POSITIONS": one_of("all", "active"),
    "MODEL.ANCHOR_GENERATOR.SIZES": _ANCHORS,
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": _ANCHORS,
    "MODEL.ANCHOR_GENERATOR.OFFSET": within(0, 1, "[)"),
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": whole(0, MOST_PIXELS),
    "MODEL.RPN.BOUNDARY_THRESH": whole(-1, MOST_PIXELS),
    "MODEL.RPN.IOU_THRESHOLDS": _IOUS,
    "MODEL.RPN.IOU_LABELS": _LABELS,
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": _TOP,
    "MODEL.RPN.POSITIVE_FRACTION": _SHARE,
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": _LOSSES,
    "MODEL.RPN.BBOX_REG_LOSS_WEIGHT": NOT_NEGATIVE,
    "MODEL.RPN.BBOX_REG_WEIGHTS": _BOX_WEIGHTS,
    "MODEL.RPN.SMOOTH_L1_BETA": NOT_NEGATIVE,
    "MODEL.RPN.LOSS_WEIGHT": NOT_NEGATIVE,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": _TOP,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": _TOP,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": _TOP,
    "MODEL.RPN.POST_NMS_TOPK_TEST": _TOP,
    "MODEL.RPN.NMS_THRESH": _SHARE,
    "MODEL.RPN.CONV_DIMS": listing(
        Rule(lambda width: width == -1 or whole(1, MOST_CHANNELS).allows(width), ""),
        f"widths, each from 1 to {MOST_CHANNELS}, or -1 for that of the feature",
        least=1,
    ),
    "MODEL.ROI_HEADS.NUM_CLASSES": whole(1, MOST_CLASSES),
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": _IOUS,
    "MODEL.ROI_HEADS.IOU_LABELS": _LABELS,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": _TOP,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": _SHARE,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": _SHARE,
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": _SHARE,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": _LOSSES,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT": NOT_NEGATIVE,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": _BOX_WEIGHTS,
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": NOT_NEGATIVE,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": whole(1, 256),
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": whole(0, 64),  # 0: as many points as the region has positions
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": one_of("ROIAlignV2", "ROIAlign", "ROIPool"),
    "MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES": _TOP,
    "MODEL.ROI_BOX_HEAD.FED_LOSS_FREQ_WEIGHT_POWER": NOT_NEGATIVE,
    "INPUT.MIN_SIZE_TRAIN": listing(_SIZE, f"sides, each from 0 (not resized) to {MOST_PIXELS} pixels", least=1),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": one_of("choice", "range"),
    "INPUT.MAX_SIZE_TRAIN": whole(1, MOST_PIXELS),
    "INPUT.MIN_SIZE_TEST": _SIZE,
    "INPUT.MAX_SIZE_TEST": whole(1, MOST_PIXELS),
    "INPUT.SCALE_JITTER": Rule(_is_scales, "list nothing, or two positive numbers, the lower one first"),
    "INPUT.SCALE_JITTER_SIZE": whole(1, MOST_PIXELS),
    "INPUT.RANDOM_FLIP": one_of("horizontal", "vertical", "none"),
    "INPUT.CROP.TYPE": one_of("relative_range", "relative", "absolute", "absolute_range"),
    "INPUT.CROP.SIZE": listing(POSITIVE, "finite positive numbers", 2),
    "INPUT.FORMAT": one_of("RGB", "BGR"),
    "TEST.DETECTIONS_PER_IMAGE": _TOP,
}

CLASSIFICATION: Mapping[str, Rule] = {
    "MODEL.BACKBONE.FREEZE_AT": whole(0, 5),  # stem and up to four blocks
    "MODEL.CLASSIFIER.NUM_CLASSES": whole(1, MOST_CLASSES),
    "MODEL.CLASSIFIER.LABEL_SMOOTHING": within(0, 1, "[)"),
    "INPUT.CLASSIFICATION.SIZE_TRAIN": whole(1, MOST_PIXELS),
    "INPUT.CLASSIFICATION.SIZE_TEST": whole(1, MOST_PIXELS),
    "INPUT.CLASSIFICATION.CROP_FRACTION": within(0, 1, "(]"),
    "INPUT.CLASSIFICATION.BATCH_SIZE_TEST": whole(1, MOST_IMAGES),
}

# Keys, or sections of them, that no trainer, evaluator or predictor here reads. Those of the other task are no fault:
# a detector starts with a classifier's weights, and command lines take overrides for models of both.
UNUSED: tuple[str, ...] = (
    "MODEL.LOAD_PROPOSALS",
    "MODEL.FPN",
    "MODEL.ROI_BOX_CASCADE_HEAD",
    "MODEL.ROI_MASK_HEAD",
    "MODEL.ROI_KEYPOINT_HEAD",
    "MODEL.SEM_SEG_HEAD",
    "MODEL.PANOPTIC_FPN",
    "MODEL.RETINANET",
    "MODEL.RESNETS",
    "INPUT.MASK_FORMAT",
    "DATASETS.PANOPTIC_FORMAT",
    "DATASETS.PROPOSAL_FILES_TRAIN",
    "DATASETS.PROPOSAL_FILES_TEST",
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN",
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST",
    "DATALOADER.SAMPLER_TRAIN",
    "DATALOADER.REPEAT_THRESHOLD",
    "DATALOADER.REPEAT_SQRT",
    "TEST.KEYPOINT_OKS_SIGMAS",
    "TEST.AUG",
    "TEST.PRECISE_BN",
    "GLOBAL",
)


UNUSED_BY_DETECTORS = (
    *UNUSED,
    "MODEL.ANCHOR_GENERATOR.ANGLES",
    *(
        f"MODEL.ROI_BOX_HEAD.{key}"
        for key in ("NAME", "NUM_FC", "FC_DIM", "NUM_CONV", "CONV_DIM", "NORM", "TRAIN_ON_PRED_BOXES")
    ),
)
UNUSED_BY_CLASSIFIERS = (
    *UNUSED,
    "MODEL.MASK_ON",
    "MODEL.KEYPOINT_ON",
    "MODEL.SACT.BOX_HEAD_HALTING",
    "MODEL.SACT.BOX_HEAD_HALTING_NORM",
    "MODEL.SACT.BOX_HEAD_MAP_PRODUCTS",
    "MODEL.SACT.BOX_HEAD_MAX_POOL",
    "MODEL.SACT.REJECTION",
    "MODEL.SACT.TAU_BOX_HEAD",
    "MODEL.SACT.PROPOSAL_MASS",
    "MODEL.SACT.RPN_POSITIONS",
    "INPUT.MIN_SIZE_TRAIN",
    "INPUT.MIN_SIZE_TRAIN_SAMPLING",
    "INPUT.MAX_SIZE_TRAIN",
    "INPUT.MIN_SIZE_TEST",
    "INPUT.MAX_SIZE_TEST",
    "INPUT.SCALE_JITTER",
    "INPUT.SCALE_JITTER_SIZE",
    "INPUT.RANDOM_FLIP",
    "INPUT.CROP",
    "DATALOADER.ASPECT_RATIO_GROUPING",
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS",
    "TEST.DETECTIONS_PER_IMAGE",
)
