"""What is found in an image goes into other people's programs: supervision and FiftyOne."""

import cv2
import numpy as np
import pytest
from coco_folder import TINY, read_json, write_coco_folder
from command_lines import load_tool
from random_detector import write_random_detector

from sact_det.detection.predictor import Predictor
from sact_det.tasks import load_config


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return ["MODEL.WEIGHTS", write_random_detector(tmp_path_factory.mktemp("weights") / "model.pth", TINY)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    (folder / "images").mkdir()
    write_coco_folder(folder / "images", num_images=3)
    cv2.imwrite(str(folder / "1.v2.png"), np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8))
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def prediction(photos, weights):
    found = Predictor(load_config(TINY, weights))(cv2.imread(str(photos / "1.v2.png")))
    assert len(found.instances) > 3
    return found


def test_the_cost_of_a_box_is_the_mean_of_the_map_inside(prediction):
    ponder_map = prediction.ponder.map((90, 140))[0].numpy()
    assert np.ptp(ponder_map) > 0.1
    for (x0, y0, x1, y1), cost in zip(prediction.instances.pred_boxes.tensor.tolist(), prediction.box_costs()):
        touched = [
            ponder_map[y, x] for y in range(90) for x in range(140) if y + 1 > y0 and y < y1 and x + 1 > x0 and x < x1
        ]
        assert cost == pytest.approx(np.mean(touched), rel=1e-5)


def test_supervision_takes_what_was_found(prediction):
    supervision = pytest.importorskip("supervision", reason="supervision (the extra interop) is not installed")
    detections = supervision.Detections.from_detectron2({"instances": prediction.instances})
    detections.data["ponder_cost"] = prediction.box_costs()
    assert np.array_equal(detections.xyxy, prediction.instances.pred_boxes.tensor.numpy())
    assert np.array_equal(detections.class_id, prediction.instances.pred_classes.numpy())
    assert np.array_equal(detections.confidence, prediction.instances.scores.numpy())
    costly = detections[detections.data["ponder_cost"] > np.median(prediction.box_costs())]
    assert 0 < len(costly) < len(detections)
    labels = [f"{cost:.1f}" for cost in costly.data["ponder_cost"]]
    blank = np.zeros((90, 140, 3), np.uint8)
    boxes = supervision.BoxAnnotator().annotate(blank.copy(), costly)
    assert (supervision.LabelAnnotator().annotate(boxes, costly, labels) != blank).any()


def imported(folder, stem):
    """What FiftyOne makes of the two files: name -> (file, objects); it cuts the suffixes off the manifest's keys."""
    content, media = read_json(folder / f"{stem}.json"), read_json(folder / f"{stem}.media.json")
    places = {name.rpartition(".")[0]: place for name, place in media.items()}
    assert len(places) == len(media) == len(content["labels"])
    return {
        name: (places[name], [{**own, "label": content["classes"][own["label"]]} for own in objects])
        for name, objects in content["labels"].items()
    }


def test_fiftyone_imports_boxes_as_shares_of_the_image(photos, weights, tmp_path):
    tool = load_tool("predict")
    inputs = ["--config-file", TINY, "--input", str(photos / "images"), str(photos)]
    tool.main([*inputs, "--output", str(tmp_path / "coco.json"), *weights])
    tool.main([*inputs, "--output", str(tmp_path / "labels.json"), "--format", "fiftyone", *weights])
    found, coco = imported(tmp_path, "labels"), read_json(tmp_path / "coco.json")
    assert sorted(found) == ["1", "1.v2", "2", "3"]
    assert not (tmp_path / "coco.media.json").exists()
    assert read_json(tmp_path / "labels.summary.json")["unreadable"] == [str(photos / "broken.png")]
    for image_id, name in enumerate(["1", "2", "3", "1.v2"], 1):
        path, objects = found[name]
        height, width = cv2.imread(path).shape[:2]
        expected = [result for result in coco if result["image_id"] == image_id]
        assert len(objects) == len(expected) > 0
        for own, result in zip(objects, expected):
            assert np.multiply(own["bounding_box"], [width, height, width, height]) == pytest.approx(result["bbox"])
            assert (own["label"], own["confidence"]) == (f"class {result['category_id']}", result["score"])
            assert set(own) == {"label", "bounding_box", "confidence"}


def test_the_two_formats_are_different_runs(photos, weights, tmp_path):
    tool = load_tool("predict")
    argv = ["--config-file", TINY, "--input", str(photos / "1.v2.png"), "--output", str(tmp_path / "found.json")]
    tool.main([*argv, *weights])
    assert isinstance(read_json(tmp_path / "found.json"), list)
    tool.main([*argv, "--format", "fiftyone", *weights])
    assert list(imported(tmp_path, "found")) == ["1.v2"]
