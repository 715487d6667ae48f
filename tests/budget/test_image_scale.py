"""Budgets that make images smaller: classifiers and detectors see them so, and answer for the images as given."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from random_detector import write_random_detector
from small_networks import images, randomize

from sact_det import build_classifier
from sact_det.base.errors import InputError
from sact_det.budget import BudgetPoint, BudgetTable, weights_digest
from sact_det.budget.budgeted import halting_blocks
from sact_det.budget.image_scale import scaled_images, scaled_size
from sact_det.detection.evaluator import detector_row
from sact_det.detection.predictor import load_detector
from sact_det.detection.reference import DetectorReference
from sact_det.export.programs import recording
from sact_det.tasks import load_config

CONFIGS = Path(__file__).parents[2] / "configs/tests"
DETECTORS = ("tiny", "tiny_fpn", "tiny_retinanet", "tiny_panoptic")
UNITS = (2, 3, 2, 2)


def table_of(model, of, *scales):
    """Budgets 0.3, 0.5, ... with these scales, and shifts of 0.5, 1, ..."""
    points = [
        BudgetPoint(0.3 + 0.2 * number, dict.fromkeys(halting_blocks(model), 0.5 + 0.5 * number), 0.3, scale=scale)
        for number, scale in enumerate(scales)
    ]
    return BudgetTable(weights_digest(model), of, 0.2, tuple(points))


def test_an_image_becomes_what_opencv_makes_of_it_where_sides_are_halved():
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 20, 36), dtype=np.uint8))
    found = scaled_images(image, 0.5)
    assert found.shape == (1, 3, 10, 18) and found.dtype == torch.float32
    constant = scaled_images(torch.full((1, 1, 9, 9), 7, dtype=torch.uint8), 1 / 3)
    assert torch.equal(constant, torch.full((1, 1, 3, 3), 7.0))
    # A triangle of two pixels' radius, normalised inside of the image: by a convolution of its own.
    kernel = np.array([1, 3, 3, 1]) / 8
    padded = cv2.copyMakeBorder(image[0, 0].numpy().astype(np.float64), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    sums = cv2.sepFilter2D(padded, -1, kernel, kernel, anchor=(1, 1), borderType=cv2.BORDER_CONSTANT)
    inside = cv2.copyMakeBorder(np.ones((20, 36)), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    weights = cv2.sepFilter2D(inside, -1, kernel, kernel, anchor=(1, 1), borderType=cv2.BORDER_CONSTANT)
    expected = (sums / np.maximum(weights, 1e-9))[1:-1:2, 1:-1:2]
    np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=1e-3)


def test_at_1_images_stay_what_they_are_and_a_side_has_a_pixel_at_least():
    image = torch.zeros(1, 3, 4, 5, dtype=torch.uint8)
    assert scaled_images(image, 1.0) is image
    assert scaled_size((3, 100), 0.1) == (1, 10) and scaled_images(image, 0.1).shape == (1, 3, 1, 1)
    with pytest.raises(ValueError, match="must be a batch"):
        scaled_images(image[0], 0.5)


@pytest.fixture
def classifier():
    made = build_classifier(UNITS, base_channels=8, num_classes=5)
    return randomize(made, images(4, 64, 64), halting_bias=-1.0).eval()


@torch.no_grad()
def test_a_classifier_sees_images_as_its_budget_has_them(classifier):
    x = images(2, 70, 90)
    classifier.set_budget(0.3, table_of(classifier, "network", 0.5, 0.8))
    found = classifier(x)
    small = scaled_images(x, 0.5)
    classifier.image_scale = 1.0
    expected = classifier(small)
    assert torch.equal(found.logits, expected.logits) and torch.equal(found.ponder.flops, expected.ponder.flops)
    assert found.ponder.map((70, 90)).shape == (2, 70, 90)


def test_a_training_sees_whole_images(classifier):
    classifier.image_scale = 0.5
    assert classifier.train()(images(2, 64, 64)).ponder.blocks["block1"].num_units.shape[1:] == (16, 16)


def test_scales_are_linear_between_budgets_and_go_with_them(classifier):
    table = table_of(classifier, "network", 0.5, 0.8)
    for budget, scale in ((0.3, 0.5), (0.4, 0.65), (0.5, 0.8), (0.9, 0.8), (1, 1.0)):
        classifier.set_budget(budget, table)
        assert classifier.image_scale == pytest.approx(scale)
    classifier.set_budget(0.3)
    classifier.set_budget(None)
    assert classifier.image_scale == 1
    classifier.set_budget(0.3)
    classifier.load_state_dict(classifier.state_dict())
    assert classifier.image_scale == 1


def detector_of(name, folder):
    config = str(CONFIGS / f"{name}.yaml")
    return load_detector(load_config(config, ["MODEL.WEIGHTS", write_random_detector(folder / "model.pth", config)]))


def same(found, expected):
    assert found.keys() == expected.keys()
    for key in ("flops", "regions", "detections", "units_per_region"):
        assert found[key] == expected[key]
    assert found["instances"].image_size == expected["instances"].image_size
    for name, value in expected["instances"].get_fields().items():
        own = found["instances"].get(name)
        values, owns = (part.tensor if hasattr(part, "tensor") else part for part in (value, own))
        assert torch.equal(values, owns), name
    for name, block in expected["ponder"].blocks.items():
        assert torch.equal(block.num_units, found["ponder"].blocks[name].num_units)


@torch.no_grad()
@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("sized", [True, False], ids=["with the sizes of files", "without"])
def test_a_detector_sees_images_as_its_budget_has_them_and_finds_things_in_those_it_was_given(name, sized, tmp_path):
    model = detector_of(name, tmp_path)
    whole = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in ((96, 128), (120, 80))]
    files = [(192, 256), (240, 160)] if sized else [tuple(image.shape[1:]) for image in whole]
    given = [{"height": h, "width": w} if sized else {} for h, w in files]
    model.set_budget(0.3, table_of(model, "detector", 0.5, 0.8))
    found = model([{"image": image, **own} for image, own in zip(whole, given)])
    budgeted = model.image_scale
    model.image_scale = 1.0
    smaller = [scaled_images(image[None], 0.5)[0] for image in whole]
    expected = model([{"image": image, "height": h, "width": w} for image, (h, w) in zip(smaller, files)])
    assert budgeted == 0.5 and all(len(one["instances"]) for one in expected)
    reference = DetectorReference.of(model)
    for one, other, image in zip(found, expected, whole):
        size = tuple(image.shape[1:])
        assert one["seen_size"] == other["seen_size"] == scaled_size(size, 0.5)
        row, of_smaller = detector_row(one, size, reference), detector_row(other, other["seen_size"], reference)
        assert row["detector_flops"] == of_smaller["detector_flops"]
        share = row["detector_flops"]["total"] / reference.flops(size, row["regions"], row["detections"])["total"]
        assert row["detector_flops_percent"] == pytest.approx(100 * share) and share < 0.9
    for one, other, (h, w) in zip(found, expected, files):
        same(one, other)
        assert one["instances"].image_size == (h, w)


@torch.no_grad()
def test_what_runs_parts_of_a_detector_alone_has_the_same_images(tmp_path):
    model = detector_of("tiny", tmp_path)
    items = [{"image": torch.randint(0, 256, (3, *size), dtype=torch.uint8)} for size in ((96, 128), (120, 80))]
    model.image_scale = 0.5
    assert model.preprocess_image(items).image_sizes == [(48, 64), (60, 40)]
    (found, _), (expected, _) = model.inference(items), model(items)
    same(found, expected)


class Shrunk(torch.nn.Module):
    """Images made smaller, and a convolution behind them."""

    def __init__(self, scale):
        super().__init__()
        self.scale, self.conv = scale, torch.nn.Conv2d(3, 4, 3, stride=2, padding=1)

    def forward(self, x):
        return self.conv(scaled_images(x, self.scale))


@torch.no_grad()
@pytest.mark.parametrize("scale", [0.5, 0.61, 1 / 3, 0.97])
@pytest.mark.parametrize("recorder", ["trace", "export"])
def test_a_recording_makes_images_of_any_size_smaller(recorder, scale):
    module, x = Shrunk(scale).eval(), images(2, 130, 190)
    sides = {2: torch.export.Dim("height", min=100), 3: torch.export.Dim("width", min=100)}
    with recording():
        if recorder == "trace":
            recorded = torch.jit.trace(module, (x,))
        else:
            recorded = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("n"), **sides},)).module()
    for size in ((2, 130, 190), (3, 101, 256), (4, 175, 125)):
        own = images(*size)
        torch.testing.assert_close(recorded(own), module(own), rtol=0, atol=1e-4)


def test_a_half_of_a_pixel_is_rounded_up():
    assert scaled_size((100, 300), 0.625) == (63, 188) and scaled_size((500, 20), 0.567) == (284, 11)


def test_a_file_holds_the_scale_and_one_without_means_whole_images(classifier, tmp_path):
    table = table_of(classifier, "network", 0.5, 0.8)
    path = tmp_path / "budget.json"
    table.write(path)
    assert BudgetTable.read(path) == table
    content = json.loads(path.read_text())
    for point in content["points"]:
        del point["scale"]
    path.write_text(json.dumps(content))
    assert BudgetTable.read(path).points == tuple(replace(point, scale=1.0) for point in table.points)
    for wrong in (0, 1.5, "half", float("nan")):
        content["points"][1]["scale"] = wrong
        path.write_text(json.dumps(content))
        with pytest.raises(InputError, match=r"point 2: scale must .*\(0, 1\]"):
            BudgetTable.read(path)
