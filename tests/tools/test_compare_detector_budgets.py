"""Detectors at several budgets: AP and FLOPs of the whole, as shares of the plain one at its own size and proposals."""

import json
from pathlib import Path

import numpy as np
import pytest
import short_trainings
import torch
from coco_folder import write_coco_folder
from command_lines import error_line, load_tool
from labelled_folders import write_class_folders

from sact_det.base.errors import InputError
from sact_det.detection.reference import DetectorReference
from sact_det.detection.trainer import DetectionTrainer
from sact_det.experiments.contenders import at_proposals
from sact_det.tasks import load_config

CONFIGS = Path(__file__).parents[2] / "configs/tests"
CLASSIFIER = str(CONFIGS / "tiny_classifier.yaml")
UNITS = (2, 3, 3, 2)

tool = load_tool("compare_budgets")


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    """An adaptive detector's config and a plain one's, which starts from a plain detector's weights."""
    folder = tmp_path_factory.mktemp("detectors")
    sets = []
    for name, number in (("mine", 6), ("test", 4)):
        (folder / name).mkdir()
        sets.append((name, *write_coco_folder(folder / name, num_images=number)))
    written = []
    for halting in ("sact", "none"):
        path = folder / f"{halting}.yaml"
        data = f"DATASETS:\n  COCO_FORMAT: {json.dumps(sets)}\n  TRAIN: ('mine',)\n  TEST: ('test',)\n"
        sact = f"HALTING: '{halting}'\n    UNITS: {UNITS}\n    REFERENCE_UNITS: {UNITS[:3]}\n    BASE_CHANNELS: 16\n"
        rest = "SOLVER:\n  MAX_ITER: 2\nINPUT:\n  MIN_SIZE_TRAIN: (96,)\n"
        path.write_text(f"_BASE_: '{CONFIGS / 'tiny.yaml'}'\nMODEL:\n  SACT:\n    {sact}{data}{rest}")
        written.append(str(path))
    return written


def argv(configs, output, *more):
    adaptive, plain = configs
    return [
        *("--output", str(output), "--budgets", "0.9", "1", "--calibrate-on", "mine", "--adaptive", "any", adaptive),
        *("--sizes", "smaller images", plain, "48", "96", "--proposals", "fewer proposals", plain, "20", "5", *more),
    ]


def train_here(contender):
    contender.folder.mkdir(parents=True, exist_ok=True)
    short_trainings.train(DetectionTrainer, load_config(contender.config, tool.training_overrides(contender)))


def test_detectors_stand_at_their_budgets_sizes_and_proposals(configs, tmp_path):
    trained = []
    args = tool.parse_arguments(argv(configs, tmp_path))
    tool.run(args, lambda contender: [trained.append(contender.name), train_here(contender)])
    points = json.loads((tmp_path / "results.json").read_text())["points"]
    ways = [(one["name"], one["budget"] or one["setting"]) for one in points]
    assert trained == ["any", "smaller images", "fewer proposals"]
    assert ways == [
        *(("any", 0.9), ("any", 1), ("smaller images", "48 pixels"), ("smaller images", "96 pixels")),
        *(("fewer proposals", "5 proposals"), ("fewer proposals", "20 proposals")),
    ]
    assert all(one["metric"] == "AP" and one["images"] == 4 and 0 <= one["quality"] <= 100 for one in points)
    shares = dict(zip(ways, (one["flops"] for one in points)))
    assert 0.8 < shares["any", 0.9] < shares["any", 1]
    cfg = load_config(configs[1])
    reference, sizes = DetectorReference.from_config(cfg), [(96, 128), (128, 96), (96, 130), (96, 96)]
    whole = np.mean([reference.flops(size, 20)["total"] for size in sizes])
    found = json.loads((tmp_path / "fewer_proposals/seed_0/5_proposals/evaluated.json").read_text())
    few = np.mean([reference.flops(size, own["regions"])["total"] for size, own in zip(sizes, found["images"])])
    assert shares["fewer proposals", "5 proposals"] == pytest.approx(few / whole)
    assert shares["fewer proposals", "20 proposals"] == pytest.approx(shares["smaller images", "96 pixels"])
    assert shares["smaller images", "48 pixels"] < shares["smaller images", "96 pixels"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/*/evaluated.json")}
    tool.run(args, train_here)
    assert len(before) == 6 and before == {path: path.stat().st_mtime_ns for path in before}
    assert "| AP (%) " in (tmp_path / "table.md").read_text()


def test_the_mean_of_some_classes_counts_where_they_are_named(configs, tmp_path):
    common = ["--output", str(tmp_path), "--budgets", "1", "--calibrate-on", "mine"]
    words = [*common, "--sizes", "plain", configs[1], "48", "--classes"]
    tool.run(tool.parse_arguments([*words, "class 9", "class 1"]), train_here)
    evaluated = tmp_path / "plain/seed_0/48_pixels/evaluated.json"
    found = json.loads(evaluated.read_text())
    found["bbox"] |= {"AP": 1.0, "AP-class 1": 10.0, "AP-class 4": 99.0, "AP-class 9": 30.0}  # two steps find nothing
    evaluated.write_text(json.dumps(found))
    tool.run(tool.parse_arguments([*words, "class 9", "class 1"]), train_here)
    (point,) = json.loads((tmp_path / "results.json").read_text())["points"]
    assert (point["quality"], point["metric"]) == (20.0, "AP of class 9, class 1")
    assert "| AP of class 9, class 1 (%) " in (tmp_path / "table.md").read_text()
    with pytest.raises(InputError, match=r"--classes class 2: expected one of class 1, class 4, class 9"):
        tool.run(tool.parse_arguments([*words, "class 2", "--output", str(tmp_path / "untrained")]), pytest.fail)
    data = ["DATASETS.CLASSIFICATION", str([("toy", write_class_folders(tmp_path / "toy"))])]
    data += ["DATASETS.TRAIN", "('toy',)", "DATASETS.TEST", "('toy',)"]
    classifier = [*common, "--sizes", "plain", CLASSIFIER, "48", "--classes", "a", *data]
    with pytest.raises(InputError, match=r"--classes: .*tiny_classifier\.yaml is no detector's"):
        tool.run(tool.parse_arguments(classifier), train_here)


def test_fewer_units_start_from_the_first_ones_of_a_detector(configs, tmp_path):
    plain = load_config(configs[1], ["OUTPUT_DIR", str(tmp_path / "plain")])
    short_trainings.train(DetectionTrainer, plain)
    weights = ["MODEL.WEIGHTS", str(tmp_path / "plain/model_final.pth")]
    words = argv(configs, tmp_path, "--units", "fewer units", configs[1], "1,2,2,1", *weights)
    fewer = tool.contenders_of(tool.parse_arguments(words), 0)[1]
    assert fewer.setting == "units 1,2,2,1" and fewer.load().MODEL.SACT.UNITS == (1, 2, 2, 1)
    train_here(fewer)
    state = torch.load(fewer.folder / "model_final.pth", weights_only=True)["model"]
    assert not [name for name in state if "block3.units.2" in name] and [n for n in state if "block3.units.1" in n]


def test_a_price_of_block_4_is_scaled_with_the_extractors(configs, tmp_path):
    both = tmp_path / "both.yaml"
    both.write_text(f"_BASE_: '{configs[0]}'\nMODEL:\n  SACT:\n    TAU: 0.1\n    TAU_BOX_HEAD: 0.3\n")
    for config, expected in ((str(both), [(0.2, 0.6), (0.01, 0.03)]), (configs[0], [(0.2, 0), (0.01, 0)])):
        words = argv(configs, tmp_path, "--priced", "each", config, "0.2", "0.01")
        priced = [one.load() for one in tool.contenders_of(tool.parse_arguments(words), 0) if one.name == "each"]
        found = [(cfg.MODEL.SACT.TAU, cfg.MODEL.SACT.TAU_BOX_HEAD) for cfg in priced]
        assert found == [pytest.approx(prices) for prices in expected]


def test_bad_input_is_one_line(configs, tmp_path, capsys):
    other = tmp_path / "other.yaml"
    other.write_text(f"_BASE_: '{configs[1]}'\nDATASETS:\n  TEST: ('mine',)\n")
    for more, said in (
        (["--proposals", "x", configs[1], "few"], "--proposals few: expected a number"),
        (["INPUT.MIN_SIZE_TEST", "0"], "INPUT.MIN_SIZE_TEST is 0, so that images have no size to change (--sizes)"),
        (["--sizes", "x", str(other), "48"], f"{other}: another task or test set than {configs[0]} has"),
        (["--sizes", "x", CLASSIFIER, "48"], f"{CLASSIFIER}: DATASETS.TEST must name one data set; got ()"),
    ):
        line = error_line(capsys, tool.main, argv(configs, tmp_path, *more))
        assert said in line, line
    assert not list(tmp_path.glob("**/model_final.pth"))
    with pytest.raises(InputError, match=r"SACTClassifier has no proposals \(--proposals\)"):
        at_proposals(load_config(CLASSIFIER), [5])
