"""Every key has a range, a use, or a refusal."""

from pathlib import Path

import pytest

from sact_det.base.errors import InputError
from sact_det.base.value_rules import FINITE, each_as_list, listing, one_of, optional, rising, whole, within
from sact_det.detection.config_kinds import kind_ranges, unused_keys
from sact_det.engine.config_checks import check_no_effect, check_ranges, defaults, leaves, value_of
from sact_det.engine.config_table import (
    CLASSIFICATION,
    COMMON,
    DETECTION,
    UNUSED_BY_CLASSIFIERS,
)
from sact_det.tasks import load_config

CONFIGS = Path(__file__).parents[2] / "configs"
DETECTORS = {
    kind: f"tests/{name}.yaml"
    for kind, name in (
        ("detector", "tiny"),
        ("FPN", "tiny_fpn"),
        ("RetinaNet", "tiny_retinanet"),
        ("panoptic", "tiny_panoptic"),
    )
}
CONFIGS_OF_KINDS = {kind: load_config(str(CONFIGS / name)) for kind, name in DETECTORS.items()}
RANGES = {
    **{kind: {**COMMON, **DETECTION, **kind_ranges(cfg)} for kind, cfg in CONFIGS_OF_KINDS.items()},
    "classifier": {**COMMON, **CLASSIFICATION},
}
BASES = {**DETECTORS, "classifier": "tests/tiny_classifier.yaml"}
UNUSED = {**{kind: unused_keys(cfg) for kind, cfg in CONFIGS_OF_KINDS.items()}, "classifier": UNUSED_BY_CLASSIFIERS}
# Sections of the other task, and switches of which every value is one.
OTHER = {
    **dict.fromkeys(DETECTORS, ("MODEL.CLASSIFIER", "INPUT.CLASSIFICATION", "DATASETS.CLASSIFICATION")),
    "classifier": (
        *("MODEL.BACKBONE.NAME", "MODEL.PROPOSAL_GENERATOR", "MODEL.ANCHOR_GENERATOR", "MODEL.RPN"),
        *("MODEL.ROI_HEADS", "MODEL.ROI_BOX_HEAD"),
        *("DATASETS.COCO_FORMAT", "DATASETS.VOC_FORMAT", "DATASETS.YOLO_FORMAT"),
    ),
}


def bad_values(good):
    """Values of the same type that no key with this good one can want."""
    if isinstance(good, float):
        return [float("nan"), float("inf"), -1e300]
    if isinstance(good, int):
        return [-(10**40), 10**40]
    if isinstance(good, str):
        return ["no such choice\0"]
    return [[-(10**40)], [float("nan")], [None]]


def with_value(cfg, key, value):
    """The config with another value, of any type."""
    changed = cfg.clone()
    changed.defrost()
    *sections, name = key.split(".")
    section = changed
    for part in sections:
        section = section[part]
    section[name] = value
    return changed


@pytest.mark.parametrize("task", RANGES)
def test_every_row_of_the_table_refuses_what_is_out_of_its_range(task):
    for key, rule in RANGES[task].items():
        good = value_of(load_config(str(CONFIGS / BASES[task])), key)
        assert rule.allows(good), key
        refused = [value for value in bad_values(good) if not rule.allows(value)]
        assert refused, f"{key} takes anything"
        assert not rule.allows(object()) and not rule.allows(float("nan")), key
        assert rule.expected and not rule.expected.startswith("must"), key


@pytest.mark.parametrize("task", RANGES)
def test_a_value_out_of_range_is_one_line_with_key_expectation_and_value(task):
    cfg = load_config(str(CONFIGS / BASES[task]))
    for key, rule in RANGES[task].items():
        with pytest.raises(InputError) as error:
            check_ranges(with_value(cfg, key, "\0"), RANGES[task])
        assert str(error.value) == f"{key} must {rule.expected}; got '\\x00'"


@pytest.mark.parametrize("name", sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.glob("*/[a-z]*.yaml")))
def test_every_config_of_ours_passes(name):
    load_config(str(CONFIGS / name), ["DATASETS.COCO_FORMAT", "[]"])


@pytest.mark.parametrize("task", RANGES)
def test_every_key_of_detectron2_and_ours_has_a_range_or_is_refused_or_takes_any_value(task):
    """A key of a later Detectron2, or of ours, has to be given a place in the table."""
    known = (*RANGES[task], *UNUSED[task], *OTHER[task], "MODEL.META_ARCHITECTURE", "MODEL.SACT", "CUDNN_BENCHMARK")
    for key, value in leaves(defaults()):
        placed = any(key == name or key.startswith(f"{name}.") for name in known)
        assert placed or isinstance(value, bool) or key in ("MODEL.BACKBONE.NAME", *NAMES[task]), key


# Checked beside the table: names in a registry, choices that the code itself lists, data sets.
NAMES = {
    **dict.fromkeys(
        DETECTORS,
        (
            *("MODEL.PROPOSAL_GENERATOR.NAME", "MODEL.ANCHOR_GENERATOR.NAME", "MODEL.RPN.HEAD_NAME"),
            *("MODEL.ROI_HEADS.NAME", "MODEL.ROI_BOX_HEAD.NAME", "MODEL.FPN.IN_FEATURES"),
            *("MODEL.ROI_MASK_HEAD.NAME", "MODEL.ROI_KEYPOINT_HEAD.NAME", "MODEL.SEM_SEG_HEAD.NAME"),
            *("DATASETS.COCO_FORMAT", "DATASETS.VOC_FORMAT", "DATASETS.YOLO_FORMAT", "DATASETS.PANOPTIC_FORMAT"),
        ),
    ),
    "classifier": (
        *("MODEL.CLASSIFIER.FAMILY", "INPUT.CLASSIFICATION.AUGMENTATION", "INPUT.FORMAT"),
        "DATASETS.CLASSIFICATION",
    ),
}


@pytest.mark.parametrize("task", RANGES)
def test_a_key_without_effect_is_refused_unless_it_has_its_default(task):
    cfg = load_config(str(CONFIGS / BASES[task]))
    check_no_effect(cfg, UNUSED[task], "this")
    for unused in UNUSED[task]:
        keys = [key for key, _ in leaves(defaults()) if key == unused or key.startswith(f"{unused}.")]
        assert keys, unused
        for key in keys:
            with pytest.raises(InputError) as error:
                check_no_effect(with_value(cfg, key, "changed"), UNUSED[task], "this")
            assert str(error.value).startswith(f"{key} has no effect on this: leave it at ")


@pytest.mark.parametrize(
    ("rule", "allowed", "refused"),
    [
        (within(0, 1), [0, 0.5, 1], [-0.1, 1.1, float("nan"), "0", True, None]),
        (within(0, 1, "[)"), [0, 0.99], [1, -1]),
        (within(0, 1, "(]"), [0.01, 1], [0, 2]),
        (whole(2, 4), [2, 4], [1, 5, 3.0, True, "3"]),
        (whole(0), [0, 10**20], [-1]),
        (optional(whole(0)), [None, 0], [-1]),
        (one_of("a", 1), ["a", 1], ["b", None]),
        (listing(FINITE, "numbers", 2), [[1, 2], (0.5, -1)], [[1], [1, 2, 3], "12", [1, float("inf")], 3]),
        (listing(FINITE, "numbers", least=1), [[1]], [[], None]),
        (rising(whole(1), "integers"), [[], [1], (1, 2)], [[2, 1], [1, 1], [0, 1]]),
        (each_as_list(FINITE), [1, [1, 2]], [[], [[1]], "1"]),
    ],
)
def test_rules(rule, allowed, refused):
    assert [value for value in allowed if not rule.allows(value)] == []
    assert [value for value in refused if rule.allows(value)] == []
