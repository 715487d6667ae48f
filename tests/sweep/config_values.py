"""Values of a config that cannot be used: each is named before anything is built."""

import re

from sweep.harness import (
    CLASSIFIER,
    DETECTOR,
    DRAW_CLASSES,
    DRAW_DETECTIONS,
    EVALUATE_CLASSIFIER,
    EVALUATE_DETECTOR,
    EXPORT,
    MATCHED,
    RESOLUTIONS,
    SALIENCY,
    Case,
    Word,
    file,
    good,
    labelled_data,
    output,
)

# Keys of both tasks with values out of range, or of another type.
COMMON = {
    "MODEL.DEVICE": ("foo", "meta", "tpu", "cuda:-1x", ""),
    "MODEL.PIXEL_MEAN": ("[1, 2]", "[]", "[1, 2, 3, 4]", "['a', 'b', 'c']", "[1e999, 0, 0]"),
    "MODEL.PIXEL_STD": ("[0, 1, 1]", "[-1, 1, 1]", "[1, 1]"),
    "MODEL.BACKBONE.FREEZE_AT": ("-1", "9"),
    "MODEL.SACT.HALTING": ("foo", "SACT", ""),
    "MODEL.SACT.EXECUTION": ("lazy",),
    "MODEL.SACT.BUDGET": ("-0.5", "1.5", "1e999"),
    "MODEL.SACT.BUDGET_TRAINING": ("(1,)", "(3, 1)", "(0, 1e999)", "(1, 2, 3)"),
    "MODEL.SACT.BUDGET_TRAINING_DRAWS": ("none", "1"),
    "MODEL.SACT.BUDGET_TRAINING_PER": ("step", "1"),
    "MODEL.SACT.FLOPS_LIMIT": ("-0.5", "1.5", "1e999"),
    "MODEL.SACT.NORM": ("foo", "GN", ""),
    "MODEL.SACT.HALTING_NORM": ("LN",),
    "MODEL.SACT.BOX_HEAD_NORM": ("LN",),
    "MODEL.SACT.TAU": ("-1", "-1e-9", "1e999"),
    "MODEL.SACT.EPS": ("0", "1", "-0.5", "1e999"),
    "MODEL.SACT.NORM_DECAY": ("1", "-0.1", "2", "1e999"),
    "MODEL.SACT.TILE": ("0", "-2", "1000000000"),
    "MODEL.SACT.UNITS": ("(1, 2)", "(1, 2, 0, 2)", "(1, 2, 3, 1000000)", "(1.5, 2, 3, 2)", "()"),
    "MODEL.SACT.BASE_CHANNELS": ("0", "-8", "1000000000"),
    "MODEL.SACT.DILATION": ("(1, 1)", "(0, 1, 1, 1)", "(1, 1, 1, 100000)"),
    "MODEL.SACT.STEM_POOL": ("valid",),
    "MODEL.SACT.REFERENCE_UNITS": ("()", "(0, 1, 2)", "(1, 2, 100000)"),
    "DATASETS.TRAIN": ("(1,)", "('',)", "((),)"),
    "DATALOADER.NUM_WORKERS": ("-1", "1000000"),
    "SOLVER.MAX_ITER": ("0", "-5"),
    "SOLVER.STEPS": ("(3, 2)", "(0,)", "(-1,)", "(2, 2)", "(1.5,)", "('a',)"),
    "SOLVER.CHECKPOINT_PERIOD": ("0", "-1"),
    "SOLVER.CHECKPOINTS_KEPT": ("-1",),
    "SOLVER.IMS_PER_BATCH": ("0", "-1", "1000000000"),
    "SOLVER.REFERENCE_WORLD_SIZE": ("-1",),
    "SOLVER.LR_SCHEDULER_NAME": ("StepLR", ""),
    "SOLVER.BASE_LR": ("0", "-0.1", "1e999"),
    "SOLVER.BASE_LR_END": ("-0.1",),
    "SOLVER.EMA_DECAY": ("1", "-0.1", "1e999"),
    "SOLVER.ACCUMULATION_STEPS": ("0", "-1", "1000000000"),
    "SOLVER.HALTING_LR_FACTOR": ("0", "-1", "1e999"),
    "SOLVER.BIAS_LR_FACTOR": ("-1",),
    "SOLVER.MOMENTUM": ("1", "2", "-0.1", "1e999"),
    "SOLVER.WEIGHT_DECAY": ("-0.1", "1e999"),
    "SOLVER.WEIGHT_DECAY_NORM": ("-0.1",),
    "SOLVER.WEIGHT_DECAY_BIAS": ("-0.1", "'none'"),
    "SOLVER.GAMMA": ("0", "-0.1", "1.5", "1e999"),
    "SOLVER.NUM_DECAYS": ("0",),
    "SOLVER.WARMUP_FACTOR": ("-0.1", "1.5", "1e999"),
    "SOLVER.WARMUP_ITERS": ("-1",),
    "SOLVER.WARMUP_METHOD": ("exponential", ""),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("global",),
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": ("0", "-1", "1e999"),
    "SOLVER.CLIP_GRADIENTS.NORM_TYPE": ("0", "-2"),
    "TEST.EVAL_PERIOD": ("-1",),
    "TEST.LOSS_PERIOD": ("-1",),
    "TEST.BEST_METRIC_MODE": ("highest", ""),
    "TEST.PATIENCE": ("-1", "3"),
    "TEST.EXPECTED_RESULTS": ("[['bbox']]", "[1]", "[['bbox', 'AP', 'high', 1]]"),
    "SEED": ("10000000000",),
    "VIS_PERIOD": ("-1",),
    "OUTPUT_DIR": ("",),
    "VERSION": ("1", "3"),
}
DETECTION = {
    "MODEL.SACT.BOX_HEAD_HALTING": ("foo", "SACT"),
    "MODEL.SACT.TAU_BOX_HEAD": ("-1", "-1e-9", "1e999", "much"),
    "MODEL.SACT.PROPOSAL_MASS": ("0", "1.5", "-0.5", "float('nan')", "1e999", "most"),
    "MODEL.SACT.RPN_POSITIONS": ("halted", "ALL", ""),
    "MODEL.ANCHOR_GENERATOR.SIZES": ("[]", "[[]]", "[[0]]", "[[-16]]", "[[16], [32]]", "[['a']]", "[[1e999]]"),
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": ("[]", "[[0.0]]", "[[1.0], [2.0]]", "[1.0, [2.0]]"),
    "MODEL.ANCHOR_GENERATOR.OFFSET": ("1", "-0.5"),
    "MODEL.ANCHOR_GENERATOR.NAME": ("foo", "RotatedAnchorGenerator"),
    "MODEL.PROPOSAL_GENERATOR.NAME": ("foo", "RRPN", "PrecomputedProposals"),
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": ("-1",),
    "MODEL.RPN.HEAD_NAME": ("foo",),
    "MODEL.RPN.IN_FEATURES": ("[]", "['res5']", "['p2', 'p3']", "[4]"),
    "MODEL.RPN.IOU_THRESHOLDS": ("[]", "[0.7, 0.3]", "[0.0, 0.7]", "[0.3, 1.7]"),
    "MODEL.RPN.IOU_LABELS": ("[0, 1]", "[0, 2, 1]", "[]"),
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": ("0", "-1"),
    "MODEL.RPN.POSITIVE_FRACTION": ("-0.1", "1.1"),
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": ("l2",),
    "MODEL.RPN.BBOX_REG_LOSS_WEIGHT": ("-1", "1e999"),
    "MODEL.RPN.BBOX_REG_WEIGHTS": ("(1, 1)", "(0, 1, 1, 1)"),
    "MODEL.RPN.SMOOTH_L1_BETA": ("-1",),
    "MODEL.RPN.LOSS_WEIGHT": ("-1",),
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": ("0",),
    "MODEL.RPN.PRE_NMS_TOPK_TEST": ("-1",),
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": ("0",),
    "MODEL.RPN.POST_NMS_TOPK_TEST": ("-1",),
    "MODEL.RPN.NMS_THRESH": ("-0.1", "1.5", "1e999"),
    "MODEL.RPN.CONV_DIMS": ("[]", "[0]", "[-2]"),
    "MODEL.ROI_HEADS.NAME": ("foo",),
    "MODEL.ROI_HEADS.NUM_CLASSES": ("0", "-1", "1000000000"),
    "MODEL.ROI_HEADS.IN_FEATURES": ("[]", "['res4', 'res4_relu']", "['res5']"),
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": ("[]", "[1.5]"),
    "MODEL.ROI_HEADS.IOU_LABELS": ("[0]", "[0, 1, 1]"),
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": ("0",),
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": ("2",),
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": ("-1", "1.5"),
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": ("-0.1", "2"),
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": ("(1, 1, 1)", "(1, 1, 1, -1)"),
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": ("l2",),
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": ("0", "-7", "100000"),
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": ("-1", "1000000"),
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": ("RoIPool", "ROIAlignRotated"),
    "INPUT.MIN_SIZE_TRAIN": ("()", "(-1,)", "(96.5,)", "('a',)", "(1000000000,)"),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": ("uniform",),
    "INPUT.MAX_SIZE_TRAIN": ("0", "-1", "50"),
    "INPUT.MIN_SIZE_TEST": ("-1",),
    "INPUT.MAX_SIZE_TEST": ("0", "50"),
    "INPUT.SCALE_JITTER": ("(1.0,)", "(2.0, 0.1)", "(0, 2.0)", "(0.1, 1e999)"),
    "INPUT.SCALE_JITTER_SIZE": ("0", "1000000000"),
    "INPUT.RANDOM_FLIP": ("both", ""),
    "INPUT.CROP.TYPE": ("foo",),
    "INPUT.CROP.SIZE": ("[0.9]", "[0, 0.5]", "[2.0, 2.0]", "[-1, 1]"),
    "INPUT.FORMAT": ("HSV", "L"),
    "TEST.DETECTIONS_PER_IMAGE": ("0", "-1"),
}
CLASSIFICATION = {
    "MODEL.CLASSIFIER.FAMILY": ("resnet", ""),
    "MODEL.CLASSIFIER.NUM_CLASSES": ("0", "-1", "1000000000"),
    "MODEL.CLASSIFIER.LABEL_SMOOTHING": ("1", "-0.1", "1e999"),
    "INPUT.CLASSIFICATION.SIZE_TRAIN": ("0", "1000000000"),
    "INPUT.CLASSIFICATION.SIZE_TEST": ("-1", "1000000000"),
    "INPUT.CLASSIFICATION.CROP_FRACTION": ("0", "1.5", "1e999"),
    "INPUT.CLASSIFICATION.AUGMENTATION": ("autoaugment", ""),
    "INPUT.CLASSIFICATION.BATCH_SIZE_TEST": ("0", "1000000000"),
    "INPUT.FORMAT": ("BGR",),
    "SOLVER.BACKBONE_LR_FACTOR": ("0.5",),
}
# Words that do not fit their key, whatever the task.
MISFITS = (
    ("SOLVER.BASE_LR", "fast", r"Type mismatch: SOLVER\.BASE_LR is of type float; got str fast"),
    ("SOLVER.MAX_ITER", "1.5", r"Type mismatch: SOLVER\.MAX_ITER is of type int; got float 1\.5"),
    ("SOLVER.MAX_ITER", "None", r"Type mismatch: SOLVER\.MAX_ITER is of type int; got NoneType None"),
    ("SOLVER.NESTEROV", "1", r"Type mismatch: SOLVER\.NESTEROV is of type bool; got int 1"),
    ("DATASETS.TRAIN", "toy", r"Type mismatch: DATASETS\.TRAIN is of type tuple; got str toy"),
    ("MODEL.SACT.UNITS", "[" * 3000, r"^MODEL\.SACT\.UNITS \[+\.\.\.: "),
    ("MODEL.SACT", "{}", r"MODEL\.SACT is a section of keys; got \{\}"),
    ("SEED.X", "1", r"Non-existent key: SEED\.X"),
    ("MODEL.SACT.TOW", "1", r"Non-existent key: MODEL\.SACT\.TOW; did you mean MODEL\.SACT\.TAU\?"),
    ("SOLVER.MAXITER", "1", r"did you mean SOLVER\.MAX_ITER\?"),
    ("INPUT.MIN_SIZE_TEXT", "1", r"did you mean INPUT\.MIN_SIZE_TEST\?"),
    ("MODEL.META_ARCHITECTURE", "GeneralizedRCNN", r"^MODEL\.META_ARCHITECTURE must be one of "),
    ("SOLVER.AMP.HALF_STATES", "True", r"SOLVER\.AMP\.HALF_STATES True needs SOLVER\.AMP\.ENABLED True"),
    ("SOLVER.AMP.ENABLED", "True", r"SOLVER\.AMP\.ENABLED: mixed precision needs a GPU; MODEL\.DEVICE is 'cpu'"),
    ("MODEL.SACT.HALTING_NORM", "FrozenBN", r"HALTING_NORM FrozenBN: \S+ starts fresh \(MODEL\.WEIGHTS is empty\)"),
    ("OUTPUT_DIR", "\udcff", r"^OUTPUT_DIR must name a folder, in characters that UTF-8 has"),
)


def named(key: str) -> str:
    """How a line begins that blames the key."""
    return rf"^{re.escape(key)}\b"


def config(text: str) -> Word:
    """A config file."""
    return file("config.yaml", text)


CASES = [
    *(
        Case("train_net", named(key), *start, key, value)
        for start, rules in ((DETECTOR, {**COMMON, **DETECTION}), (CLASSIFIER, CLASSIFICATION))
        for key, values in rules.items()
        for value in values
    ),
    *(Case("train_net", says, *start, key, value) for start in (DETECTOR, CLASSIFIER) for key, value, says in MISFITS),
    # Between keys.
    Case("train_net", r"^SOLVER\.IMS_PER_BATCH must be a multiple of", *DETECTOR, "SOLVER.REFERENCE_WORLD_SIZE", "3"),
    Case("train_net", r"^SOLVER\.NESTEROV needs", *DETECTOR, "SOLVER.NESTEROV", "True", "SOLVER.MOMENTUM", "0"),
    Case(
        "train_net",
        r"^SOLVER\.BASE_LR_END must be at most SOLVER\.BASE_LR",
        *(*DETECTOR, "SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.BASE_LR_END", "1"),
    ),
    Case("train_net", r"^SOLVER\.RESCALE_INTERVAL needs steps", *DETECTOR, "SOLVER.RESCALE_INTERVAL", "True"),
    Case(
        "train_net",
        r"^INPUT\.MIN_SIZE_TRAIN must list two sides",
        *(*DETECTOR, "INPUT.MIN_SIZE_TRAIN_SAMPLING", "range", "INPUT.MIN_SIZE_TRAIN", "(96, 64)"),
    ),
    Case(
        "train_net",
        r"^INPUT\.CROP\.SIZE: each of both must be an integer, 1 or more for INPUT\.CROP\.TYPE 'absolute'",
        *(*DETECTOR, "INPUT.CROP.TYPE", "absolute"),
    ),
    Case(
        "train_net",
        r"^MODEL\.SACT\.BOX_HEAD_MAX_POOL True needs MODEL\.ROI_BOX_HEAD\.POOLER_TYPE ROIAlign",
        *(*DETECTOR, "MODEL.SACT.BOX_HEAD_MAX_POOL", "True", "MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIPool"),
    ),
    Case(
        "train_net", r"has boxes only, no segmentation of any object; MODEL\.MASK", *DETECTOR, "MODEL.MASK_ON", "True"
    ),
    Case("train_net", r"^MODEL\.KEYPOINT_ON: \w+ has no keypoint head", *DETECTOR, "MODEL.KEYPOINT_ON", "True"),
    Case(
        "train_net",
        r"needs MODEL\.BACKBONE\.NAME build_sact",
        *DETECTOR,
        "MODEL.BACKBONE.NAME",
        "build_resnet_backbone",
    ),
    Case(
        "train_net",
        r"^MODEL\.BACKBONE\.FREEZE_AT must be at most 4, stem and blocks; got 5",
        *("--config-file", good("cifar_config"), *labelled_data(), "OUTPUT_DIR", output),
        *("MODEL.BACKBONE.FREEZE_AT", "5"),
    ),
    Case("train_net", r"needs MODEL\.ROI_HEADS\.NAME SACTRes5", *DETECTOR, "MODEL.ROI_HEADS.NAME", "StandardROIHeads"),
    Case(
        "train_net",
        r"^the model cannot be built from this config: Please use sigmoid cross entropy",
        *(*DETECTOR, "MODEL.ROI_BOX_HEAD.USE_FED_LOSS", "True"),
    ),
    # Numbers of classes.
    Case(
        "train_net",
        r"NUM_CLASSES is 80, but data set 'toy' has 3 classes",
        *(*DETECTOR, "MODEL.ROI_HEADS.NUM_CLASSES", "80"),
    ),
    Case(
        "train_net",
        r"NUM_CLASSES is 2, but data set 'toy' has 3 classes",
        *(*DETECTOR, "MODEL.ROI_HEADS.NUM_CLASSES", "2"),
    ),
    Case(
        "train_net", r"NUM_CLASSES is 80, but data set 'toy' has 3", *CLASSIFIER, "MODEL.CLASSIFIER.NUM_CLASSES", "80"
    ),
    Case("train_net", r"NUM_CLASSES is 2, but data set 'toy' has 3", *CLASSIFIER, "MODEL.CLASSIFIER.NUM_CLASSES", "2"),
    # Other command lines read the same config.
    *(
        Case(tool, named("MODEL.SACT.EPS"), *words, "MODEL.SACT.EPS", "7")
        for tool, words in (
            ("train_net", EVALUATE_DETECTOR),
            ("train_net", EVALUATE_CLASSIFIER),
            ("visualize", (*DRAW_DETECTIONS, "--input", good("photograph"))),
            ("visualize", (*DRAW_CLASSES, "--input", good("photograph"))),
            ("export_ponder", EXPORT),
            ("matched_units", MATCHED),
            ("sweep_resolutions", (*RESOLUTIONS, "--sizes", "32")),
            ("evaluate_saliency", (*SALIENCY, "--config-file", good("classifier_config"))),
        )
    ),
    *(
        Case(tool, r"Non-existent key: MODEL\.SACT\.TOW", *words, "MODEL.SACT.TOW", "7")
        for tool, words in (
            ("visualize", (*DRAW_DETECTIONS, "--input", good("photograph"))),
            ("export_ponder", EXPORT),
            ("matched_units", MATCHED),
            ("benchmark", ("detector", "--config-file", good("detector_config"), "--images", good("coco_images"))),
        )
    ),
    Case("train_net", r"overrides come as KEY VALUE pairs", *DETECTOR, "SEED"),
    Case("train_net", r"^MODEL\.META_ARCHITECTURE must be one of", "OUTPUT_DIR", output),
    # The same in a file.
    Case(
        "train_net",
        r"config\.yaml: .*SOLVER\.MAX_ITER is of type int; got str",
        "--config-file",
        config("SOLVER: {MAX_ITER: x}"),
    ),
    Case(
        "train_net",
        r"config\.yaml: .*SOLVER\.MAX_ITER is of type int; got NoneType",
        "--config-file",
        config("SOLVER:\n  MAX_ITER:"),
    ),
    Case(
        "train_net",
        r"config\.yaml: MODEL\.SACT is a section of keys; got 3",
        "--config-file",
        config("MODEL: {SACT: 3}"),
    ),
    *(
        Case(
            "train_net",
            says,
            "--config-file",
            config("MODEL: {META_ARCHITECTURE: SACTClassifier, SACT: {REFERENCE_UNITS: [1, 1, 1, 1]}}\n" + text),
        )
        for text, says in (
            ("SOLVER: {BASE_LR: .nan}", r"^SOLVER\.BASE_LR must be a finite positive number; got nan"),
            ("SOLVER: {MOMENTUM: .inf}", r"^SOLVER\.MOMENTUM must lie in \[0, 1\); got inf"),
            ("SOLVER: {STEPS: [.nan]}", r"^SOLVER\.STEPS must list positive integers, in rising order"),
            ("SEED: 2020-01-01", r"SEED is of type int; got date"),
            ("OUTPUT_DIR: !!binary aGk=", r"OUTPUT_DIR is of type str; got bytes"),
            ('OUTPUT_DIR: "a\\0b"', r"^OUTPUT_DIR must name a folder"),
            ("DATASETS: {TRAIN: {a: 1}}", r"DATASETS\.TRAIN is of type tuple; got dict"),
            ("SOLVER: {MAX_ITER: yes}", r"SOLVER\.MAX_ITER is of type int; got bool"),
        )
    ),
    Case("train_net", r"config\.yaml: MODEL is a section of keys", "--config-file", config("MODEL: [1]")),
    Case(
        "train_net",
        r"config\.yaml: .*did you mean MODEL\.SACT\.TAU",
        "--config-file",
        config("MODEL: {SACT: {TAW: 1}}"),
    ),
]
