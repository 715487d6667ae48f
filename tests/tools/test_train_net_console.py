"""What a training and an evaluation show on the terminal, and what they leave to the log file."""

import json
import re
from pathlib import Path

import pytest
from coco_folder import write_coco_folder
from command_lines import ROOT, load_tool
from labelled_folders import write_class_folders

from sact_det.engine.evaluator import RowEvaluator

pytestmark = pytest.mark.usefixtures("own_loggers")

tool = load_tool("train_net")
DETECTOR, CLASSIFIER = "tiny", "tiny_classifier"
# What there is of each: the network, its units, those of the extractor, the data.
NETWORKS = {DETECTOR: ("SACTGeneralizedRCNN, SACT (1, 2, 3), tau 0.005", 8, 6, "toy: 4 images of 3 classes")}
NETWORKS[CLASSIFIER] = ("SACTClassifier, SACT (1, 2, 3, 2), tau 0.005", 8, 8, "toy: 6 images of 3 classes")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    entry = ("toy", *write_coco_folder(root, num_images=4))
    folders = write_class_folders(root / "folders", per_class=2)
    return {
        DETECTOR: ("DATASETS.COCO_FORMAT", str([entry])),
        CLASSIFIER: ("DATASETS.CLASSIFICATION", str([("toy", folders)])),
    }


def run(capsys, data, config: str, output: Path, *more: str) -> str:
    """What the command wrote to stdout."""
    flags, pairs = [w for w in more if w.startswith("--")], [w for w in more if not w.startswith("--")]
    words = ("--config-file", str(ROOT / f"configs/tests/{config}.yaml"), *flags, *data[config])
    sets = ("DATASETS.TRAIN", "('toy',)", "DATASETS.TEST", "('toy',)", "SOLVER.MAX_ITER", "2", "OUTPUT_DIR")
    capsys.readouterr()
    tool.main(tool.parse_args([*words, *sets, str(output), *pairs]))
    return capsys.readouterr().out


def words_of_line(out: str, about: str) -> str:
    (said,) = re.findall(rf"^  {about} +(.*)$", out, re.MULTILINE)
    return said


@pytest.mark.parametrize("config", [DETECTOR, CLASSIFIER])
def test_a_training_says_what_it_is_in_a_dozen_lines_and_then_what_images_take(capsys, data, tmp_path, config):
    out, log = run(capsys, data, config, tmp_path), (tmp_path / "log.txt").read_text()
    title, units, extractor, images = NETWORKS[config]
    before, _, rest = out.partition(" iter: ")
    assert 8 <= before.count("\n") <= 16
    assert words_of_line(out, "network") == title and words_of_line(out, "trains on") == images
    assert words_of_line(out, "size").endswith(f"M parameters; {units} residual units in 4 blocks")
    assert words_of_line(out, "begins") == "with random weights"
    assert (
        words_of_line(out, "takes").startswith("2 steps of ") and words_of_line(out, "evaluates") == "toy, at the end"
    )
    assert words_of_line(out, "writes").startswith(f"{tmp_path}: ") and "--resume" in words_of_line(out, "goes on")
    line = re.search(r"1  total_loss: \S+  .*loss_ponder: \S+  flops: (\S+)%  units: (\S+) of (\d+)  .*\n", rest)
    lines = map(json.loads, (tmp_path / "metrics.json").read_text().splitlines())
    (last,) = [line for line in lines if line["iteration"] == 1 and "total_loss" in line]
    assert float(line[1]) == pytest.approx(last["sact/flops_percent"], abs=0.06)
    blocks = sum(last[f"sact/block{number}_units"] for number in range(1, 4 if config == DETECTOR else 5))
    assert float(line[2]) == pytest.approx(blocks, abs=0.06) and int(line[3]) == extractor
    assert "max_mem: " in line[0] and line[0] in log
    # Detectron2's environment and config, and the network, are in the file alone.
    for words in ("Environment info:", "Running with full config", "Model:\n", "copypaste"):
        assert words in log and words not in out


def test_verbose_shows_every_line_of_the_log(capsys, data, tmp_path):
    out = run(capsys, data, CLASSIFIER, tmp_path, "--verbose", "DATASETS.TEST", "()")
    assert all(words in out for words in ("Environment info:", "Running with full config", "Model:\n"))
    assert out.count("Starting training from iteration 0") == 1


def test_a_resumed_training_says_where_it_begins(capsys, data, tmp_path):
    run(capsys, data, CLASSIFIER, tmp_path, "DATASETS.TEST", "()")
    out = run(capsys, data, CLASSIFIER, tmp_path, "--resume", "SOLVER.MAX_ITER", "3", "DATASETS.TEST", "()")
    assert words_of_line(out, "begins") == f"behind step 2, with {tmp_path / 'model_final.pth'}"
    assert words_of_line(out, "takes").startswith("1 step of 4 images")


@pytest.mark.parametrize("config", [DETECTOR, CLASSIFIER])
def test_an_evaluation_says_what_it_is_and_what_images_take(capsys, data, tmp_path, config, monkeypatch):
    run(capsys, data, config, tmp_path, "DATASETS.TEST", "()")
    monkeypatch.setattr(RowEvaluator, "pause", 0.0)
    weights = str(tmp_path / "model_final.pth")
    out = run(capsys, data, config, tmp_path, "--eval-only", "MODEL.WEIGHTS", weights)
    assert words_of_line(out, "network") == NETWORKS[config][0]
    assert words_of_line(out, "weights") == weights and words_of_line(out, "evaluates") == "toy"
    assert "Model:\n" not in out and "Model:\n" in (tmp_path / "inference/log.txt").read_text()
    spent = re.findall(r"images: (\d+)  flops: (\S+)%  units: (\S+)\n", out)
    results = json.loads((tmp_path / "inference/results.json").read_text())["toy"]
    numbers = results["ponder" if config == DETECTOR else "classification"]
    assert int(spent[-1][0]) == numbers["images"]
    assert float(spent[-1][1]) == pytest.approx(numbers["flops_percent"], abs=0.06)
    units = sum(value for key, value in numbers.items() if re.fullmatch(r"block\d_units", key))
    assert float(spent[-1][2]) == pytest.approx(units, abs=0.06)
