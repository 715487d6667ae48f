"""A trained detector where its data sets are not: its checkpoint says how many classes there are, and their names."""

import os
import shutil
from pathlib import Path

import cv2
import pytest
import torch
from coco_folder import TINY, write_coco_folder

from sact_det.base.errors import InputError
from sact_det.detection.class_names import class_names
from sact_det.detection.image_names import Categories
from sact_det.detection.predictor import Predictor
from sact_det.detection.trainer import DetectionTrainer
from sact_det.tasks import load_config
from sact_det.weights.weight_file import load_weights, save_weights

BCCD = str(Path(TINY).parents[1] / "BCCD/plain_R_50_C4.yaml")  # leaves the number of classes to the data
STEPS = ["SOLVER.MAX_ITER", "1", "SOLVER.STEPS", "()", "TEST.EVAL_PERIOD", "0"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(overrides, checkpoint, image) of a detector whose data set has been moved away."""
    root = tmp_path_factory.mktemp("absent")
    json_file, images = write_coco_folder(root)
    entry = ("cells", json_file, images)
    overrides = ["DATASETS.COCO_FORMAT", str([entry]), "DATASETS.TRAIN", "('cells',)", "DATASETS.TEST", "('cells',)"]
    cfg = load_config(TINY, [*overrides, *STEPS, "OUTPUT_DIR", str(root / "output")])
    os.makedirs(cfg.OUTPUT_DIR)
    torch.manual_seed(0)
    trainer = DetectionTrainer(cfg)
    trainer.resume_or_load()
    trainer.train()
    image = shutil.copy(Path(images) / "1.png", root / "kept.png")
    os.remove(json_file)
    return overrides, root / "output/model_final.pth", image


def test_its_weights_say_what_the_classes_are(trained):
    overrides, weights, image = trained
    cfg = load_config(TINY, [*overrides, "MODEL.WEIGHTS", str(weights)], data=False)
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 3 and class_names(cfg) == ["class 1", "class 4", "class 9"]
    found = Predictor(cfg)(cv2.imread(str(image)))
    said = Categories.of(cfg).said()
    assert said == {"category_ids": "contiguous, from 0", "categories": dict(enumerate(class_names(cfg)))}
    assert found.numbers["flops"] > 0 and set(found.instances.pred_classes.tolist()) <= {0, 1, 2}


def test_whoever_needs_the_data_is_told_what_is_missing(trained):
    overrides, weights, _ = trained
    with pytest.raises(InputError, match=r"instances.json: no such"):
        load_config(TINY, [*overrides, "MODEL.WEIGHTS", str(weights)])


def test_a_config_or_weights_that_know_the_number_alone_will_do(trained, tmp_path):
    overrides, weights, _ = trained
    state_dict, metadata = load_weights(weights)
    save_weights(tmp_path / "number.pth", state_dict, {"num_classes": metadata["num_classes"]})
    save_weights(tmp_path / "nothing.pth", state_dict, {})
    for config, name in ((BCCD, "number.pth"), (TINY, "number.pth"), (TINY, "nothing.pth")):
        cfg = load_config(config, [*overrides, "MODEL.WEIGHTS", str(tmp_path / name)], data=False)
        assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 3 and class_names(cfg) is None
    with pytest.raises(InputError, match=r"instances.json: no such"):
        load_config(BCCD, [*overrides, "MODEL.WEIGHTS", str(tmp_path / "nothing.pth")], data=False)


def test_data_that_are_there_are_used(trained, tmp_path):
    _, weights, _ = trained
    json_file, images = write_coco_folder(tmp_path, category_ids=(1, 2))
    entries = [("cells", str(tmp_path / "gone.json"), images), ("others", json_file, images)]
    used = ["DATASETS.TRAIN", "('cells',)", "DATASETS.TEST", "('others',)", "MODEL.WEIGHTS", str(weights)]
    cfg = load_config(TINY, ["DATASETS.COCO_FORMAT", str(entries), *used], data=False)
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2 and class_names(cfg) == ["class 1", "class 2"]
