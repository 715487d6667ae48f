"""The command line on a classifier: its files, and one line for whatever is wrong."""

import json
from pathlib import Path

import pytest
import torch
from command_lines import load_tool
from labelled_folders import write_class_folders

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "configs/tests/tiny_classifier.yaml")

pytestmark = pytest.mark.usefixtures("own_loggers")


def run(data, output, *more):
    flags = [part for part in more if part.startswith("--")]
    arguments = [
        *("--config-file", TINY, *flags),
        *("DATASETS.CLASSIFICATION", str([("toy", data)]), "DATASETS.TRAIN", "('toy',)", "DATASETS.TEST", "('toy',)"),
        *("SOLVER.MAX_ITER", "2", "OUTPUT_DIR", str(output)),
        *(part for part in more if part not in flags),
    ]
    tool = load_tool("train_net")
    tool.main(tool.parse_args(arguments))


def read_json(path):
    return json.loads(Path(path).read_text())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_class_folders(tmp_path_factory.mktemp("toy") / "data", per_class=2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data):
    """OUTPUT_DIR of a finished training."""
    output = tmp_path_factory.mktemp("runs") / "trained"
    run(data, output)
    return output


def test_a_training_leaves_its_model_its_records_and_an_evaluation(trained):
    assert (trained / "last_checkpoint").read_text() == "model_final.pth"
    assert torch.load(trained / "model_final.pth", weights_only=True)["iteration"] == 1
    assert {"loss_cls", "loss_ponder", "classifier/accuracy"} <= read_json_lines(trained / "metrics.json")[0].keys()
    assert len(read_json(trained / "inference/toy/classification.json")["images"]) == 6
    results = read_json(trained / "inference/results.json")["toy"]["classification"]
    assert 0 <= results["accuracy"] <= 1 and results["images"] == 6
    assert "| SACT (1, 2, 3, 2), tau 0.005 | 56 |" in (trained / "log.txt").read_text()


def read_json_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_eval_only_repeats_the_evaluation_and_takes_any_resolution(trained, data, tmp_path):
    weights = ("--eval-only", "MODEL.WEIGHTS", str(trained / "model_final.pth"))
    run(data, tmp_path / "same", *weights)
    for name in ("results.json", "toy/classification.json"):
        assert read_json(tmp_path / "same/inference" / name) == read_json(trained / "inference" / name)
    run(data, tmp_path / "larger", *weights, "INPUT.CLASSIFICATION.SIZE_TEST", "96")
    larger, same = (read_json(folder / "inference/results.json")["toy"]["classification"] for folder in
                    (tmp_path / "larger", trained))  # fmt: skip
    assert larger["flops"] > 2 * same["flops"]
    rows = read_json(tmp_path / "larger/inference/toy/classification.json")["images"]
    assert {(row["height"], row["width"]) for row in rows} == {(96, 96)}


def test_inspect_describes_a_checkpoint(trained, capsys):
    load_tool("convert_weights").main(["inspect", str(trained / "model_final.pth")])
    printed = capsys.readouterr().out
    assert "MODEL.SACT.UNITS '(1, 2, 3, 2)'" in printed and "halting: sact" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["MODEL.CLASSIFIER.NUM_CLASSES", "7"], "MODEL.CLASSIFIER.NUM_CLASSES is 7, but data set 'toy' has 3 classes"),
        (["DATASETS.CLASSIFICATION", "[('toy', 'nowhere')]"], "nowhere: no such file or folder of images"),
        (["DATASETS.TEST", "('nowhere',)"], "nowhere: no such data set of labelled images"),
        (["MODEL.CLASSIFIER.FAMILY", "foo"], "MODEL.CLASSIFIER.FAMILY must be one of 'imagenet', 'cifar'; got 'foo'"),
        (["--eval-only"], "MODEL.WEIGHTS is empty: evaluation needs trained weights"),
        (["MODEL.WEIGHTS", "nowhere.pth"], "nowhere.pth: no such weight file"),
    ],
)
def test_a_command_that_cannot_be_run_ends_in_one_line(data, tmp_path, capsys, options, message):
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        run(data, tmp_path / "output", *options)
    err = capsys.readouterr().err
    assert end.value.code == 1 and err.startswith(f"error: {message}") and err.count("\n") == 1
    assert not list((tmp_path / "output").glob("*.pth"))
