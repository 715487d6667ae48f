"""What README types behind the installation, before any training: weights that draw and detect without a data set."""

from pathlib import Path

import cv2
import numpy as np
from command_lines import load_tool

from sact_det.base.text_files import read_json
from sact_det.detection.drawing import class_names
from sact_det.detection.predictor import Predictor
from sact_det.tasks import load_config

ROOT = Path(__file__).parents[2]
CONFIG, IMAGE = str(ROOT / "configs/demo/sact.yaml"), str(ROOT / "docs/images/digits.png")
DEMO = ["MODEL.WEIGHTS", "sact://demo"]


def test_the_picture_shows_the_ponder_map_beside_the_detections(own_cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no output/demo is
    load_tool("visualize").main(["--config-file", CONFIG, "--input", IMAGE, "--output", "first", *DEMO])
    (name,) = (path.name for path in (tmp_path / "first").glob("*_digits.png"))
    (row,) = read_json(tmp_path / "first/ponder.json")["images"]
    assert name == f"{row['mean_ponder_cost']:.2f}_digits.png" and 30 < row["flops_percent"] < 100


def test_the_digits_are_found_and_cost_more_than_what_is_around_them(own_cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = load_config(CONFIG, DEMO, data=False)
    found = Predictor(cfg)(cv2.imread(IMAGE))
    sure = found.instances[found.instances.scores > 0.5]
    assert sorted(class_names(cfg)[i] for i in sure.pred_classes) == ["0", "6", "9"]
    ponder = found.ponder.map(cv2.imread(IMAGE).shape[:2])[0].numpy()
    inside = np.zeros(ponder.shape, dtype=bool)
    for left, top, right, bottom in sure.pred_boxes.tensor.round().int().tolist():
        inside[top:bottom, left:right] = True
    assert ponder[inside].mean() > 1.5 * ponder[~inside].mean()
