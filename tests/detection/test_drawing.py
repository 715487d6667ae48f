"""Detections drawn on their image, under the names of their classes."""

from pathlib import Path

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances

from sact_det.detection.drawing import bright_colors, class_names, draw_detections
from sact_det.tasks import load_config

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "configs/tests/tiny.yaml")


def found(boxes, classes):
    scores = torch.linspace(0.9, 0.6, len(boxes))
    return Instances((60, 80), pred_boxes=Boxes(torch.tensor(boxes)), scores=scores, pred_classes=torch.tensor(classes))


def test_drawing_detections_is_repeatable_and_enlarges():
    image = np.full((60, 80, 3), 128, dtype=np.uint8)
    instances = found([[5.0, 5.0, 40.0, 50.0], [30.0, 10.0, 70.0, 30.0]], [0, 2])
    once, again = (draw_detections(image, instances, ["a", "b", "c"], scale=5) for _ in range(2))
    assert once.shape == (300, 400, 3) and once.dtype == np.uint8
    assert np.array_equal(once, again) and (once != 128).any()


def test_boxes_are_bright_on_dark_photographs():
    assert (bright_colors().max(1) == 1).all() and (bright_colors() >= 0).all()
    dark = np.zeros((60, 80, 3), dtype=np.uint8)
    grey = found([[20.0, 20.0, 60.0, 40.0]], [7])  # Detectron2 has a dark grey for this class
    assert draw_detections(dark, grey, scale=4)[80, 120].min() > 200  # the upper edge


def test_an_image_without_detections_stays_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    nothing = Instances(
        (60, 80), pred_boxes=Boxes(torch.zeros(0, 4)), scores=torch.zeros(0), pred_classes=torch.zeros(0).long()
    )
    assert np.array_equal(draw_detections(image, nothing), image)


def test_class_names_are_used_if_they_fit_the_model():
    MetadataCatalog.get("visualize_toy").set(thing_classes=["a", "b", "c"])
    toy = ["DATASETS.TEST", "('visualize_toy',)"]
    assert class_names(load_config(TINY, toy)) == ["a", "b", "c"]
    assert class_names(load_config(TINY, [*toy, "MODEL.ROI_HEADS.NUM_CLASSES", "4"])) is None
    assert class_names(load_config(TINY, ["DATASETS.TEST", "()"])) is None
    assert class_names(load_config(TINY, ["DATASETS.TEST", "('never_registered',)"])) is None
