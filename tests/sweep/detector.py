"""Detectors of parts that do not go together, under every command that builds one."""

from sweep.harness import DETECTOR, DRAW_DETECTIONS, EVALUATE_DETECTOR, SALIENCY, Case, good

SCORE_MAPS = (*SALIENCY, "--config-file", good("detector_config"), "MODEL.WEIGHTS", good("detector_weights"))
COMMANDS = (
    ("train_net", DETECTOR),
    ("train_net", EVALUATE_DETECTOR),
    ("visualize", (*DRAW_DETECTIONS, "--input", good("photograph"))),
    ("evaluate_saliency", SCORE_MAPS),
)

_HEADS = r"needs MODEL\.ROI_HEADS\.NAME SACTRes5ROIHeads; got '{}'$"
_BACKBONE = r"needs MODEL\.BACKBONE\.NAME build_sact_resnet_backbone or build_sact_resnet_fpn_backbone; got '{}'$"
_TASKS = (
    r"^MODEL\.META_ARCHITECTURE must be one of SACTGeneralizedRCNN, SACTRetinaNet, SACTPanopticFPN, SACTClassifier; "
    "got '{}'"
)

# key of MODEL, value, what is said
PARTS = [
    *(("META_ARCHITECTURE", name, _TASKS.format(name)) for name in ("GeneralizedRCNN", "RetinaNet", "PanopticFPN")),
    *(("ROI_HEADS.NAME", name, _HEADS.format(name)) for name in ("CascadeROIHeads", "Res5ROIHeads", "RROIHeads")),
    ("BACKBONE.NAME", "build_resnet_fpn_backbone", _BACKBONE.format("build_resnet_fpn_backbone")),
    ("BACKBONE.NAME", "build_retinanet_resnet_fpn_backbone", _BACKBONE.format("build_retinanet_resnet_fpn_backbone")),
    ("LOAD_PROPOSALS", "True", r"^MODEL\.LOAD_PROPOSALS has no effect on a detector"),
    (
        "RPN.IN_FEATURES",
        "['res4', 'res6']",
        r"^MODEL\.RPN\.IN_FEATURES must list .*; got \['res4', 'res6'\]",
    ),
]

# What only Detectron2's parts know, as they are built: overrides, and what is said.
_BUILT = r"^the model cannot be built from this config: "
BUILDING = [
    (
        ("MODEL.RPN.IN_FEATURES", "['res4', 'res4_relu']", "MODEL.ANCHOR_GENERATOR.SIZES", "[[16], [32, 64]]"),
        _BUILT + "Each level must have the same number of anchors",
    ),
    (("MODEL.ROI_BOX_HEAD.USE_FED_LOSS", "True"), _BUILT + "Please use sigmoid cross entropy"),
    (
        ("MODEL.ROI_BOX_HEAD.USE_FED_LOSS", "True", "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", "True"),
        r"^MODEL\.ROI_BOX_HEAD\.USE_FED_LOSS needs data sets .* class_image_count; got \(",
    ),
]

# Weights of a detector that are not for the config's.
MISFITS = [
    (("MODEL.SACT.UNITS", "(1, 2, 3, 3)"), r"weights of another architecture"),
    (("MODEL.SACT.BASE_CHANNELS", "16"), r"weights of another architecture"),
    (("MODEL.SACT.HALTING", "none"), r"not in the model: \S+\.halting\."),
    (("MODEL.SACT.HALTING", "act"), r"not in the model: \S+\.halting\."),
    (("MODEL.RPN.CONV_DIMS", "[64]"), r"weights of another architecture"),
    (("MODEL.ANCHOR_GENERATOR.SIZES", "[[16, 32]]"), r"shapes differ: proposal_generator\."),
]

CASES = [
    *(Case(tool, says, *words, f"MODEL.{key}", value) for tool, words in COMMANDS for key, value, says in PARTS),
    *(Case(tool, says, *words, *overrides) for tool, words in COMMANDS[:3] for overrides, says in BUILDING),
    *(Case(tool, says, *words, *overrides) for tool, words in COMMANDS[1:3] for overrides, says in MISFITS),
]
