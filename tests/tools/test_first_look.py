"""What README types behind the installation, before any training: weights that draw and detect without a data set."""

from pathlib import Path

import cv2
import numpy as np
import torch
from command_lines import load_tool
from skimage.data import chelsea

from sact_det.base.text_files import read_json
from sact_det.classification.class_names import class_names as classifier_names
from sact_det.classification.predictor import ClassPredictor
from sact_det.detection.class_names import class_names
from sact_det.detection.predictor import Predictor
from sact_det.tasks import load_config

ROOT = Path(__file__).parents[2]
CONFIG, IMAGE = str(ROOT / "configs/demo/sact.yaml"), str(ROOT / "docs/images/digits.png")
CIFAR = str(ROOT / "configs/CIFAR10/sact_R_32_tau_0.01.yaml")
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


def test_a_cat_is_one_of_cifars_animals_and_its_parts_cost_unequally(own_cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = load_config(CIFAR, ["MODEL.WEIGHTS", "sact://cifar10"], data=False)
    names = classifier_names(cfg)
    assert names is not None and names[3] == "cat" and len(names) == 10
    image = cv2.resize(chelsea()[:, 75:375], (32, 32), interpolation=cv2.INTER_AREA)
    found = ClassPredictor(cfg)(torch.from_numpy(image).permute(2, 0, 1).float())
    assert names[int(found.probabilities.argmax())] in ("cat", "dog")
    ponder = found.ponder.map((32, 32))
    assert ponder.max() > 1.5 * ponder.min() and 40 < found.numbers["flops_percent"] < 90
