"""Classifiers at several budgets: trained, calibrated and evaluated once; interrupted runs; one line for faults."""

import json
from pathlib import Path

import pytest
import short_trainings
import torch
from command_lines import error_line, load_tool
from labelled_folders import write_class_folders
from small_networks import images, randomize

from sact_det import build_classifier
from sact_det.classification.trainer import ClassificationTrainer
from sact_det.experiments.comparison_report import comparison_table, draw_comparison
from sact_det.experiments.contenders import with_first_units
from sact_det.tasks import load_config
from sact_det.weights.weight_file import load_weights

CONFIG = str(Path(__file__).parents[2] / "configs/tests/tiny_classifier.yaml")
UNITS = (2, 3, 3, 2)

tool = load_tool("compare_budgets")


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    write_class_folders(folder / "train")
    write_class_folders(folder / "test", per_class=1)
    plain = build_classifier(UNITS, halting="none", base_channels=16, num_classes=3)
    torch.save(randomize(plain, images(4, 64, 64)).state_dict(), folder / "plain.pth")
    sets = [("mine", str(folder / "train")), ("test", str(folder / "test"))]
    return [
        *("MODEL.SACT.UNITS", str(UNITS), "MODEL.SACT.REFERENCE_UNITS", str(UNITS), "MODEL.SACT.BASE_CHANNELS", "16"),
        *("DATASETS.CLASSIFICATION", str(sets), "DATASETS.TRAIN", "('mine',)", "DATASETS.TEST", "('test',)"),
        *("SOLVER.MAX_ITER", "2", "MODEL.WEIGHTS", str(folder / "plain.pth")),
    ]


@pytest.fixture(scope="module")
def plain_config(tmp_path_factory):
    file = tmp_path_factory.mktemp("configs") / "plain.yaml"
    file.write_text(f'_BASE_: "{CONFIG}"\nMODEL:\n  SACT:\n    HALTING: "none"\n')
    return str(file)


def argv(words, output, plain_config, *more):
    return [
        *("--output", str(output), "--budgets", "0.75", "1", "--calibrate-on", "mine", *more),
        *("--adaptive", "any", CONFIG, "--priced", "each", CONFIG, "0.5", "0.001"),
        *("--units", "fewer", plain_config, "1,2,2,2", "--sizes", "smaller", plain_config, "40", "56", *words),
    ]


def train_here(contender, trained):
    trained.append((contender.name, contender.setting, contender.seed))
    contender.folder.mkdir(parents=True, exist_ok=True)
    short_trainings.train(ClassificationTrainer, load_config(contender.config, tool.training_overrides(contender)))


def test_every_network_is_trained_once_and_stands_at_its_budgets(words, plain_config, tmp_path):
    trained = []
    args = tool.parse_arguments(argv(words, tmp_path, plain_config, "--seeds", "0"))
    tool.run(args, lambda contender: train_here(contender, trained))
    content = json.loads((tmp_path / "results.json").read_text())
    assert trained == [("any", "", 0), *(("each", f"tau {tau}", 0) for tau in ("0.5", "0.001")), *SHORT]
    points = content["points"]
    assert [(one["name"], one["budget"]) for one in points[:4]] == [
        ("any", 0.75),
        ("any", 1),
        ("each", 0.75),
        ("each", 1),
    ]
    assert [(one["name"], one["setting"]) for one in points[4:]] == [
        ("fewer", "units 1,2,2,2"),
        ("smaller", "40 pixels"),
        ("smaller", "56 pixels"),
    ]
    shares = [one["flops"] for one in points]
    assert shares[0] < 0.85 and shares[2] < 0.85 and shares[1] == pytest.approx(shares[3]) == pytest.approx(1, abs=0.03)
    assert shares[4] < 0.9 and shares[6] == pytest.approx(1) and shares[5] == pytest.approx((40 / 56) ** 2, abs=0.1)
    assert all((one["seconds"] is None) == (one["budget"] is None) for one in points)
    table = (tmp_path / "table.md").read_text()
    assert len(table.splitlines()) == 2 + len(points) and (tmp_path / "budgets.png").stat().st_size > 1000
    both = tool.parse_arguments(argv(words, tmp_path, plain_config, "--seeds", "0", "1"))
    before = (tmp_path / "any/seed_0/budget.json").read_bytes()
    tool.run(both, lambda contender: train_here(contender, trained))
    assert (tmp_path / "any/seed_0/budget.json").read_bytes() == before
    assert len(trained) == 10 and {seed for *_, seed in trained[5:]} == {1}  # what was there is not trained again
    again = json.loads((tmp_path / "results.json").read_text())["points"]
    assert again[: len(points)] == points and len(again) == 2 * len(points)
    assert "±" in comparison_table(again) and draw_comparison(again, "title").axes
    load_tool("plot_results").main([str(tmp_path / "results.json"), "--output", str(tmp_path / "drawn")])
    assert (tmp_path / "drawn/results_quality.png").read_bytes() == (tmp_path / "budgets.png").read_bytes()


SHORT = [("fewer", "units 1,2,2,2", 0), ("smaller", "", 0)]


def test_first_units_are_those_of_the_whole_network(words, tmp_path):
    source = words[-1]
    with_first_units(source, (1, 2, 2, 1), tmp_path / "short.pth")
    short, described = load_weights(tmp_path / "short.pth")
    whole, _ = load_weights(source)
    assert tuple(described["units"]) == (1, 2, 2, 1)
    assert all(torch.equal(value, whole[name]) for name, value in short.items()) and len(short) < len(whole)


def test_bad_input_is_one_line(words, plain_config, tmp_path, capsys):
    whole = argv(words, tmp_path, plain_config)
    for change, said in (
        (["--budgets", "1", "0.7"], "--budgets must rise; got 1 0.7"),
        (["--budgets", "0", "1"], "--budgets must be a share of the plain network's FLOPs, in (0, 1]; got 0.0"),
        (["--calibrate-on", "test"], "test: has the images of DATASETS.TEST, test; what is calibrated on them"),
        (["--priced", "one", CONFIG, "0.5"], "--priced one: expected 2 prices, one for each budget"),
        (["--units", "one", plain_config, "1,2"], "MODEL.SACT.UNITS"),
        (["--units", "one", plain_config, "few"], "--units few: expected units per block, such as 3,4,6,3"),
        (["SEED", "3"], "SEED is each training's own: --output and --seeds say it"),
        (["--sizes", "one", plain_config, "-3"], "--sizes -3: expected a side in pixels"),
        (["--sizes", "one", plain_config], f"--sizes one {plain_config}: expected a name, a config and values"),
    ):
        start = whole.index("MODEL.SACT.UNITS")
        line = error_line(capsys, tool.main, [*whole[:start], *change, *whole[start:]])
        assert said in line, line
    assert not list(tmp_path.glob("**/model_final.pth"))
