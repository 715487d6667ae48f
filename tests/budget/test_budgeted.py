"""Models that are told what they may spend: classifiers, detectors, by hand and by their configs."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from command_lines import error_line, load_tool
from labelled_folders import write_class_folders
from random_detector import write_random_detector
from small_networks import images, randomize

from sact_det import build_classifier
from sact_det.base.errors import InputError
from sact_det.budget import FILE_NAME, BudgetPoint, BudgetTable, weights_digest
from sact_det.classification.predictor import ClassPredictor, load_classifier
from sact_det.detection.predictor import Predictor
from sact_det.engine.fingerprint import fingerprint
from sact_det.execution.release import release_weights
from sact_det.tasks import load_config

CONFIGS = Path(__file__).parents[2] / "configs/tests"
BLOCKS = ("block1", "block2", "block3", "block4")
UNITS = (2, 3, 2, 2)


def table_of(model, blocks=BLOCKS, of="network", shifts=(4.0, -2.0)):
    """Two points, 0.4 and 0.8: a number in every halting logit for either."""
    points = [BudgetPoint(budget, dict.fromkeys(blocks, shift), budget) for budget, shift in zip((0.4, 0.8), shifts)]
    return BudgetTable(weights_digest(model), of, 0.3, tuple(points))


@pytest.fixture
def model():
    made = build_classifier(UNITS, base_channels=8, num_classes=5)
    return randomize(made, images(4, 64, 64), halting_bias=-1.0).eval()


@pytest.fixture
def x():
    return images(2, 70, 90)


def flops(model, x):
    return model(x).ponder.flops.sum().item()


@torch.no_grad()
def test_a_budget_sets_the_shifts_and_none_takes_them_back(model, x):
    table, trained = table_of(model), flops(model, x)
    model.set_budget(0.4, table)
    assert [model.get_submodule(name).shift for name in BLOCKS] == [4.0] * 4 and model.budget == 0.4
    spent = [flops(model, x)]
    for budget in (0.6, 0.8):  # the table is known now
        model.set_budget(budget)
        spent.append(flops(model, x))
    assert model.block2.shift == -2.0 and spent[0] < spent[1] < spent[2]
    model.set_budget(None)
    assert flops(model, x) == trained and model.budget is None and model.block1.shift == 0


@torch.no_grad()
@pytest.mark.parametrize("execution", ["dense", "auto"])
def test_at_1_it_is_the_plain_network(model, x, execution):
    plain = build_classifier(UNITS, base_channels=8, num_classes=5, halting="none").eval()
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if ".halting." not in name})
    model.set_execution(execution)
    model.set_budget(1, table_of(model))
    output, expected = model(x), plain(x)
    torch.testing.assert_close(output.logits, expected.logits, atol=1e-5, rtol=1e-5)
    assert torch.equal(output.ponder.blocks["block2"].num_units, expected.ponder.blocks["block2"].num_units)


def test_other_weights_are_refused_and_drop_the_table(model, tmp_path):
    table = table_of(model)
    table.write(tmp_path / "my.json")
    model.set_budget(0.4, tmp_path / "my.json")
    weights = model.state_dict()
    weights["logits.bias"] = weights["logits.bias"] + 1
    model.load_state_dict(weights)
    assert model.block1.shift == 0 and model.budget is None
    with pytest.raises(InputError, match="no budgets are known of these weights: name their"):
        model.set_budget(0.4)
    for source, name in ((table, "the table"), (tmp_path / "my.json", str(tmp_path / "my.json"))):
        with pytest.raises(InputError, match=f"{name}: budgets of other weights .*calibrate_budget") as error:
            model.set_budget(0.4, source)
        assert "\n" not in str(error.value)
    assert model.block1.shift == 0


@pytest.mark.parametrize("budget", [0, -1, 1.5, float("nan")])
def test_a_budget_out_of_range_changes_nothing(model, budget):
    model.set_budget(0.4, table_of(model))
    with pytest.raises(InputError, match=r"budget must be a share of the plain network's FLOPs, in \(0, 1\]; got"):
        model.set_budget(budget)
    assert model.block1.shift == 4.0


def test_a_plain_network_has_none(model):
    plain = build_classifier(UNITS, base_channels=8, num_classes=5, halting="none")
    plain.set_budget(None)
    with pytest.raises(InputError, match=r"a budget of 0\.5 needs a network that halts; this one is plain"):
        plain.set_budget(0.5, table_of(plain))


@torch.no_grad()
def test_a_table_that_was_taken_serves_released_and_converted_weights(model, x):
    model.set_execution("auto")
    model.set_budget(0.4, table_of(model))
    expected = flops(model, x)
    model.set_budget(0.8)
    release_weights(model)
    model.set_budget(0.4)
    assert flops(model, x) == expected


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """Words of a command line: the tiny classifier, a data set, weights; beside these, budget.json."""
    folder = tmp_path_factory.mktemp("classifier")
    data = write_class_folders(folder / "data")
    words = ["DATASETS.CLASSIFICATION", str([("toy", data)]), "DATASETS.TEST", "('toy',)"]
    words += ["MODEL.WEIGHTS", str(folder / "model.pth"), "OUTPUT_DIR", str(folder / "output")]
    cfg = load_config(str(CONFIGS / "tiny_classifier.yaml"), words)
    torch.manual_seed(0)
    made = build_classifier((1, 2, 3, 2), base_channels=4, num_classes=3)
    randomize(made, images(4, 64, 64), halting_bias=-1.0)
    torch.save(made.state_dict(), folder / "model.pth")
    table_of(load_classifier(cfg), BLOCKS[1:], shifts=(12.0, 4.5)).write(folder / FILE_NAME)
    return words


def configured(classifier, *overrides):
    return load_config(str(CONFIGS / "tiny_classifier.yaml"), [*classifier, *overrides])


def test_the_config_of_a_classifier_asks_for_it(classifier):
    image = torch.randint(0, 256, (3, 60, 70)).float()
    spent = {}
    for budget in ("0", "0.4", "0.8"):
        predictor = ClassPredictor(configured(classifier, "MODEL.SACT.BUDGET", budget))
        assert predictor.model.budget == (float(budget) or None)
        spent[budget] = predictor(image).numbers["flops_percent"]
    assert spent["0.4"] < spent["0.8"] and len(set(spent.values())) == 3


def test_evaluations_at_other_budgets_or_by_other_tables_are_told_apart(classifier, tmp_path):
    prints = {fingerprint(configured(classifier, "MODEL.SACT.BUDGET", budget), "") for budget in ("0", "0.4", "0.8")}
    assert len(prints) == 3
    weights = tmp_path / "model.pth"
    with pytest.raises(InputError, match="no such table of budgets"):
        fingerprint(configured(classifier, "MODEL.SACT.BUDGET", "0.4", "MODEL.WEIGHTS", str(write(weights))), "")
    (tmp_path / FILE_NAME).write_text("{}")
    cfg = configured(classifier, "MODEL.SACT.BUDGET", "0.4", "MODEL.WEIGHTS", str(weights))
    assert fingerprint(cfg, "") not in prints


def write(path):
    path.write_bytes(b"")
    return path


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector")
    write_random_detector(folder / "model.pth", str(CONFIGS / "tiny.yaml"))
    return ["MODEL.WEIGHTS", str(folder / "model.pth")]


def test_a_detectors_extractor_alone_and_all_of_it(detector):
    def predictor(budget):
        return Predictor(load_config(str(CONFIGS / "tiny.yaml"), [*detector, "MODEL.SACT.BUDGET", budget]))

    image = np.random.default_rng(0).integers(0, 255, (100, 120, 3), dtype=np.uint8)
    path = Path(detector[1]).parent / FILE_NAME
    model = predictor("0").model
    halting = [name for name in BLOCKS if name != "block1"]  # which has one unit
    table_of(model, halting[:2], "extractor").write(path)
    low, high = (predictor(budget)(image).numbers for budget in ("0.4", "0.8"))
    assert low["flops"] < high["flops"]
    assert predictor("0.4").model.roi_heads.res5.block4.shift == 0
    table_of(model, halting, "detector").write(path)
    assert predictor("0.4").model.roi_heads.res5.block4.shift == 4.0


def test_a_config_sets_a_limit_that_no_image_exceeds(detector, classifier, capsys):
    image = np.random.default_rng(0).integers(0, 255, (100, 120, 3), dtype=np.uint8)
    limited = Predictor(load_config(str(CONFIGS / "tiny.yaml"), [*detector, "MODEL.SACT.FLOPS_LIMIT", "0.97"]))
    free = Predictor(load_config(str(CONFIGS / "tiny.yaml"), detector))
    assert limited(image).numbers["flops_percent"] <= 97 < free(image).numbers["flops_percent"]
    numbers = ClassPredictor(configured(classifier, "MODEL.SACT.FLOPS_LIMIT", "0.99"))(torch.zeros(3, 60, 70)).numbers
    assert 96 < numbers["flops_percent"] <= 99
    config = ["--config-file", str(CONFIGS / "tiny_classifier.yaml"), "--eval-only", *classifier]
    train = load_tool("train_net").invoke_main
    said = error_line(capsys, train, [*config, "MODEL.SACT.FLOPS_LIMIT", "0.9", "MODEL.SACT.HALTING", "none"])
    assert said == "MODEL.SACT.FLOPS_LIMIT 0.9 needs a network that halts; HALTING is 'none'"
    with pytest.raises(
        InputError, match=r"MODEL\.SACT\.FLOPS_LIMIT 0\.01 cannot be kept: the first units of all blocks"
    ):
        ClassPredictor(configured(classifier, "MODEL.SACT.FLOPS_LIMIT", "0.01"))(torch.zeros(3, 60, 70))


def test_command_lines_take_a_budget_and_refuse_what_is_none(classifier, tmp_path, capsys):
    train, visualize, export = map(load_tool, ("train_net", "visualize", "export_ponder"))
    config = ["--config-file", str(CONFIGS / "tiny_classifier.yaml")]
    train.invoke_main([*config, "--eval-only", "--budget", "0.4", *classifier])
    inference = Path(classifier[-1]) / "inference"
    assert "budget 0.4" in (inference / "log.txt").read_text()
    (results,) = inference.glob("*/classification.json")
    assert json.loads(results.read_text())["budget"] == 0.4
    pictures = ["--input", classifier[1].split("'")[3] + "/apple", "--output", str(tmp_path / "pictures")]
    export.main([*config, "--output", str(tmp_path / "ponder.h5"), "--budget", "0.5", *classifier])
    visualize.main([*config, *pictures, "--budget", "0.4", *classifier])
    out_of_range = "--budget must be a share of the plain network's FLOPs, in (0, 1]; got"
    for budget in ("0", "1.5", "nan", "-1"):
        argv = [*config, "--eval-only", f"--budget={budget}", *classifier]
        assert error_line(capsys, train.invoke_main, argv) == f"{out_of_range} {budget}"
    assert (
        error_line(capsys, train.invoke_main, [*config, "--budget", "0.5", *classifier])
        == "--budget is for --eval-only"
    )
    plain = [*config, "--eval-only", "--budget", "0.5", *classifier, "MODEL.SACT.HALTING", "none"]
    expected = "MODEL.SACT.BUDGET 0.5 needs a network that halts; HALTING is 'none'"
    assert error_line(capsys, train.invoke_main, plain) == expected
    said = error_line(capsys, visualize.main, ["--from-hdf5", "x.h5", "--output", "x", "--budget", "0.5"])
    assert said == "--budget does not go with --from-hdf5"
    training = [*config, *classifier, "DATASETS.TRAIN", "('toy',)", "MODEL.SACT.BUDGET", "0.5"]
    assert error_line(capsys, train.invoke_main, training).startswith("MODEL.SACT.BUDGET 0.5 is for evaluation")
    benchmark, saliency = map(load_tool, ("benchmark", "evaluate_saliency"))
    said = error_line(capsys, saliency.main, ["--dataset", "x", "--output", "x", "--center-only", "--budget", "0.5"])
    assert said == "--budget needs --config-file or --model"
    argv = ["detector", *config, f"--budget={-1}"]
    assert error_line(capsys, benchmark.main, argv) == f"{out_of_range} -1"


def test_a_budget_outside_of_the_table_is_said_once_loaded(classifier, caplog):
    with caplog.at_level(logging.WARNING):
        model = load_classifier(configured(classifier, "MODEL.SACT.BUDGET", "0.9"))
    assert model.block2.shift == 4.5
    assert "Budget 0.9 is outside the calibrated range, 0.4 to 0.8: 0.8 is taken" in caplog.text
