"""Keys that nothing reads for a task: whoever sets one is told."""

import re

from sweep.harness import (
    CLASSIFIER,
    DETECTOR,
    Case,
)

# What Detectron2 knows and nothing here reads.
WITHOUT_EFFECT = {
    "MODEL.LOAD_PROPOSALS": "True",
    "MODEL.FPN.IN_FEATURES": "['res4']",
    "MODEL.RESNETS.DEPTH": "101",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": "4",
    "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": "(0.4, 0.5, 0.6)",
    "MODEL.RETINANET.NUM_CLASSES": "3",
    "INPUT.MASK_FORMAT": "bitmask",
    "DATASETS.PROPOSAL_FILES_TRAIN": "('a.pkl',)",
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST": "10",
    "DATALOADER.SAMPLER_TRAIN": "RepeatFactorTrainingSampler",
    "DATALOADER.REPEAT_THRESHOLD": "0.1",
    "TEST.AUG.ENABLED": "True",
    "TEST.AUG.FLIP": "False",
    "TEST.PRECISE_BN.ENABLED": "True",
    "TEST.KEYPOINT_OKS_SIGMAS": "[0.1]",
    "GLOBAL.HACK": "2.0",
}
WITHOUT_EFFECT_ON_DETECTORS = {
    "MODEL.ANCHOR_GENERATOR.ANGLES": "[[0]]",
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.NUM_FC": "2",
    "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": "True",
}
WITHOUT_EFFECT_ON_CLASSIFIERS = {
    "MODEL.MASK_ON": "True",
    "MODEL.SACT.BOX_HEAD_HALTING": "act",
    "MODEL.SACT.BOX_HEAD_HALTING_NORM": "BN",
    "MODEL.SACT.BOX_HEAD_MAP_PRODUCTS": "True",
    "MODEL.SACT.BOX_HEAD_MAX_POOL": "True",
    "MODEL.SACT.REJECTION": "True",
    "MODEL.SACT.TAU_BOX_HEAD": "0.1",
    "MODEL.SACT.PROPOSAL_MASS": "0.9",
    "MODEL.SACT.RPN_POSITIONS": "active",
    "INPUT.MIN_SIZE_TRAIN": "(96,)",
    "INPUT.SCALE_JITTER": "(0.1, 2.0)",
    "INPUT.RANDOM_FLIP": "none",
    "INPUT.CROP.ENABLED": "True",
    "TEST.DETECTIONS_PER_IMAGE": "10",
}


def named(key: str) -> str:
    """How a line begins that blames the key."""
    return rf"^{re.escape(key)}\b"


CASES = [
    *(
        Case("train_net", rf"{named(key)} has no effect on a {task}: leave it at ", *start, key, value)
        for task, start, keys in (
            ("detector", DETECTOR, {**WITHOUT_EFFECT, **WITHOUT_EFFECT_ON_DETECTORS}),
            ("classifier", CLASSIFIER, {**WITHOUT_EFFECT, **WITHOUT_EFFECT_ON_CLASSIFIERS}),
        )
        for key, value in keys.items()
    ),
]
