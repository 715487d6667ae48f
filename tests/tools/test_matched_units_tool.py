"""The matched-units tool: what it measures is what the evaluator says, and what it writes trains and evaluates."""

import json
from pathlib import Path

import pytest
import torch
from command_lines import load_tool
from labelled_folders import write_class_folders
from random_weights import write_random_weights

from sact_det.tasks import load_config, task_of
from sact_det.weights.matched_units import matched_units
from sact_det.weights.weight_file import load_weights

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "configs/tests/tiny_classifier.yaml")


tool = load_tool("matched_units")


@pytest.fixture(scope="module")
def overrides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("matched")
    write_class_folders(folder / "data", per_class=2)
    units = ["MODEL.SACT.UNITS", "(3, 3, 3, 2)"]
    weights = write_random_weights(folder / "sact.pth", load_config(TINY, units))
    data = ["DATASETS.CLASSIFICATION", str([("toy", str(folder / "data"))]), "DATASETS.TRAIN", "('toy',)"]
    return [*data, "DATASETS.TEST", "('toy',)", *units, "MODEL.WEIGHTS", weights]


@pytest.fixture(scope="module")
def written(overrides, tmp_path_factory):
    output = tmp_path_factory.mktemp("plain") / "new"
    tool.main(["--config-file", TINY, "--output", str(output), *overrides])
    return output


def test_units_are_the_rounded_means_of_the_evaluation(written):
    measured = json.loads((written / "units.json").read_text())
    results = json.loads((written / "inference" / "results.json").read_text())["toy"]["classification"]
    means = [results[f"block{block}_units"] for block in (1, 2, 3, 4)]
    assert list(measured["mean_units"].values()) == means
    assert tuple(measured["matched_units"]) == matched_units(means) != (3, 3, 3, 2)


def test_the_plain_network_evaluates_and_its_first_units_are_those_of_the_adaptive_one(written, overrides, tmp_path):
    cfg = load_config(str(written / "config.yaml"), ["OUTPUT_DIR", str(tmp_path)])
    units = tuple(json.loads((written / "units.json").read_text())["matched_units"])
    assert cfg.MODEL.SACT.HALTING == "none" and units == cfg.MODEL.SACT.UNITS
    trainer = task_of(cfg).trainer
    model = trainer.build_model(cfg)
    trainer.checkpointer_class(model, evaluate=True).load(cfg.MODEL.WEIGHTS)  # strict
    source = load_weights(overrides[-1]).state_dict
    assert all(torch.equal(value, source[name]) for name, value in model.state_dict().items())
    results = trainer.test(cfg, model)["classification"]
    assert [results[f"block{block}_units"] for block in (1, 2, 3, 4)] == list(units)
    metadata = load_weights(written / "weights.pth").metadata
    assert tuple(metadata["units"]) == units and metadata["halting"] == "none"


def test_the_plain_network_may_start_from_the_first_units_of_another_one(written, overrides, tmp_path):
    full = ["MODEL.SACT.UNITS", "(3, 3, 3, 2)", "MODEL.SACT.HALTING", "none"]
    other = write_random_weights(tmp_path / "full.pth", load_config(TINY, full), seed=1)
    tool.main(["--config-file", TINY, "--output", str(tmp_path / "new"), "--initialize-from", str(other), *overrides])
    plain, source = (load_weights(path) for path in (tmp_path / "new" / "weights.pth", other))
    assert plain.state_dict and all(torch.equal(value, source.state_dict[n]) for n, value in plain.state_dict.items())
    assert plain.metadata["units"] == load_weights(written / "weights.pth").metadata["units"]
    assert str(other) in plain.metadata["source"]


def test_another_network_with_too_few_units_is_refused(overrides, tmp_path, capsys):
    short = ["MODEL.SACT.UNITS", "(1, 1, 1, 1)", "MODEL.SACT.HALTING", "none"]
    other = write_random_weights(tmp_path / "short.pth", load_config(TINY, short))
    with pytest.raises(SystemExit):
        tool.main(
            ["--config-file", TINY, "--output", str(tmp_path / "new"), "--initialize-from", str(other), *overrides]
        )
    assert f"{other}: `units` asks for" in capsys.readouterr().err
    assert not (tmp_path / "new" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["MODEL.SACT.HALTING", "none"], "MODEL.SACT.HALTING is 'none'"),
        (["DATASETS.TEST", "()"], "DATASETS.TEST must name the one data set to measure on; got ()"),
        (["MODEL.WEIGHTS", "missing.pth"], "missing.pth: no such weight file"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(overrides, tmp_path, capsys, more, message):
    with pytest.raises(SystemExit):
        tool.main(["--config-file", TINY, "--output", str(tmp_path / "new"), *overrides, *more])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new" / "config.yaml").exists()


def test_a_folder_that_holds_a_network_is_left_alone(written, overrides, capsys):
    before = (written / "config.yaml").read_bytes()
    with pytest.raises(SystemExit):
        tool.main(["--config-file", TINY, "--output", str(written), *overrides])
    assert "already holds a config.yaml" in capsys.readouterr().err
    assert (written / "config.yaml").read_bytes() == before
