"""COCO's mAP of boxes, whatever ids, areas and names a file has, beside Detectron2's evaluator."""

import math

import numpy as np
import pytest
import torch
from coco_folder import read_json, toy_config, write_coco_folder, write_json
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils import comm

from sact_det.base.errors import InputError
from sact_det.detection.box_evaluator import BoxEvaluator
from sact_det.detection.loader import build_test_loader
from sact_det.engine.launch import launch


def found(item, xywh, classes, scores):
    """The output of a model for one image; boxes [x, y, width, height] of the file."""
    boxes = torch.as_tensor(xywh, dtype=torch.float32).reshape(-1, 4)
    instances = Instances((item["height"], item["width"]))
    instances.pred_boxes = Boxes(BoxMode.convert(boxes, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS))
    instances.scores = torch.as_tensor(scores)
    instances.pred_classes = torch.tensor(classes, dtype=torch.int64)
    return [{"instances": instances}]


def perfect_predictions(files, copies=1):
    """Inputs and outputs of a model that finds every box of the file, so many times."""
    annotations = read_json(files[0])["annotations"]
    for inputs in build_test_loader(toy_config(files), "toy"):
        own = [a for a in annotations if a["image_id"] == inputs[0]["image_id"]] * copies
        numbers = MetadataCatalog.get("toy").thing_dataset_id_to_contiguous_id
        classes = [numbers[a["category_id"]] for a in own]
        yield inputs, found(inputs[0], [a["bbox"] for a in own], classes, torch.linspace(0.9, 0.8, len(own)))


def box_evaluator(files, output_dir, **arguments):
    """One that has seen perfect predictions."""
    pairs = list(perfect_predictions(files, **arguments))
    evaluator = BoxEvaluator("toy", str(output_dir))
    evaluator.reset()
    for inputs, outputs in pairs:
        evaluator.process(inputs, outputs)
    return evaluator


@pytest.mark.parametrize("lacking", [(), ("area",), ("iscrowd",), ("area", "iscrowd")], ids="-".join)
def test_boxes_alone_are_enough_for_coco_map(tmp_path, lacking):
    files = write_coco_folder(tmp_path, num_images=3)
    content = read_json(files[0])
    content["annotations"] = [{k: v for k, v in a.items() if k not in lacking} for a in content["annotations"]]
    write_json(files[0], content)
    assert box_evaluator(files, tmp_path / "out").evaluate()["bbox"]["AP"] == pytest.approx(100)
    results = read_json(tmp_path / "out/coco_instances_results.json")
    assert [box["category_id"] for box in results] == [a["category_id"] for a in content["annotations"]]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["coco_instances_results.json"]


def test_a_full_disk_keeps_the_boxes_of_the_evaluation_before(tmp_path, full_disk):
    path = tmp_path / "out/coco_instances_results.json"
    path.parent.mkdir()
    path.write_text("[]")
    evaluator = box_evaluator(write_coco_folder(tmp_path, num_images=8), path.parent, copies=40)
    with pytest.raises(OSError, match=f"File too large: '{path}'"), full_disk(20_000):
        evaluator.evaluate()
    assert path.read_text() == "[]" and list(path.parent.iterdir()) == [path]


def results_of(files, output_dir, **arguments):
    return box_evaluator(files, output_dir, **arguments).evaluate()["bbox"]


def edited(root, edit, num_images=3):
    files = write_coco_folder(root, num_images=num_images)
    content = read_json(files[0])
    edit(content)
    write_json(files[0], content)
    return files


@pytest.mark.parametrize(
    "ids",
    [
        [0, 1, 2, 3, 4, 5],
        [-3, -2, -1, 0, 1, 2],
        list("abcdef"),
        [0.5, 1.5, 2.5, 3.5, 4.5, 5.5],
        [None] * 6,
        [2**80] + [None] * 5,
    ],
    ids=str,
)
def test_a_perfect_detector_has_ap_100_whatever_the_ids_of_annotations_are(tmp_path, ids):
    files = edited(tmp_path, lambda content: [a.update(id=i) for a, i in zip(content["annotations"], ids)])
    assert results_of(files, tmp_path / "out") == pytest.approx(
        {"AP": 100, "AP50": 100, "AP75": 100, "APs": math.nan, "APm": 100, "APl": math.nan}
        | dict.fromkeys(("AP-class 1", "AP-class 4", "AP-class 9"), 100),
        nan_ok=True,
    )


@pytest.mark.parametrize("category_ids", [(0, 1, 2), (-2, 0, 5), (7, 3, 2**70), (0,)])
def test_categories_may_have_any_ids(tmp_path, category_ids):
    files = write_coco_folder(tmp_path, num_images=3, category_ids=category_ids)
    results = results_of(files, tmp_path / "out")
    by_category = {key: ap for key, ap in results.items() if key.startswith("AP-")}
    expected = [f"AP-class {i}" for i in sorted(category_ids)] if len(category_ids) > 1 else []
    assert list(by_category) == expected and results["AP"] == pytest.approx(100)
    assert all(ap == pytest.approx(100) for ap in by_category.values())
    found = read_json(tmp_path / "out/coco_instances_results.json")
    assert {box["category_id"] for box in found} == set(category_ids)


@pytest.mark.parametrize("number", [0, -5, "0", "x", 2**70])
def test_ids_of_images_and_categories_are_kept_in_the_file_and_change_nothing(tmp_path, number):
    def edit(content):
        kind = str if isinstance(number, str) else int
        new = {image["id"]: number if image["id"] == 2 else kind(image["id"]) for image in content["images"]}
        for image in content["images"]:
            image["id"] = new[image["id"]]
        for annotation in content["annotations"]:
            annotation["image_id"] = new[annotation["image_id"]]

    files = edited(tmp_path, edit)
    assert results_of(files, tmp_path / "out")["AP"] == pytest.approx(100)
    found = read_json(tmp_path / "out/coco_instances_results.json")
    assert {box["image_id"] for box in found} == {image["id"] for image in read_json(files[0])["images"]}


@pytest.mark.parametrize("area", [None, "1600", -1, 0, math.nan, math.inf, 1e9, [1600], True])
def test_an_area_that_cannot_be_one_is_the_boxs(tmp_path, area):
    files = edited(tmp_path, lambda content: [a.update(area=area) for a in content["annotations"]])
    results = results_of(files, tmp_path / "out")
    assert results["AP"] == results["APm"] == pytest.approx(100) and math.isnan(results["APs"])


def test_an_area_that_can_be_one_is_kept_for_masks_are_smaller_than_their_box(tmp_path):
    files = edited(tmp_path, lambda content: [a.update(area=900) for a in content["annotations"]])
    results = results_of(files, tmp_path / "out")
    assert results["AP"] == results["APs"] == pytest.approx(100) and math.isnan(results["APm"])


def test_evaluation_looks_for_the_boxes_of_training_inside_the_image(tmp_path):
    def edit(content):
        content["annotations"][0]["bbox"] = [90, 10, 140, 40]
        content["annotations"][1]["bbox"] = [200, 10, 20, 20]  # outside
        content["annotations"][2]["segmentation"] = [[]]
        content["annotations"][3]["iscrowd"] = "0"

    files = edited(tmp_path, edit)
    loader = build_test_loader(toy_config(files), "toy")
    evaluator = BoxEvaluator("toy", str(tmp_path / "out"))
    trained = {d["image_id"]: d["annotations"] for d in DatasetCatalog.get("toy")}
    assert [[a["id"] for a in annotations] for annotations in trained.values()] == [[1], [3, 4], [5, 6]]
    assert trained[1][0]["bbox"] == [90, 10, 38, 40]
    for inputs in loader:
        own = trained[inputs[0]["image_id"]]
        boxes, classes = [a["bbox"] for a in own], [a["category_id"] for a in own]
        evaluator.process(inputs, found(inputs[0], boxes, classes, torch.ones(len(own))))
    results = evaluator.evaluate()["bbox"]
    assert [results[f"AP{suffix}"] for suffix in ("", "-class 1", "-class 4", "-class 9")] == pytest.approx([100] * 4)


def test_all_detections_of_an_image_count(tmp_path, capsys):
    def edit(content):
        corners = [(x, y) for x in range(0, 120, 8) for y in range(0, 88, 8)]  # 165 boxes of one class
        content["annotations"] = [
            {"id": i, "image_id": 3, "category_id": 1, "bbox": [x, y, 6, 6]} for i, (x, y) in enumerate(corners)
        ]

    files = edited(tmp_path, edit)
    assert results_of(files, tmp_path / "out")["AP"] == pytest.approx(100)
    assert "maxDets=165 ] = 1.000" in capsys.readouterr().out
    results_of(write_coco_folder(tmp_path, num_images=3), tmp_path / "out")
    assert "maxDets=100 ] = 1.000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("edit", "ap"),
    [
        (lambda content: None, 0.0),
        (lambda content: content["annotations"].clear(), math.nan),
        (lambda content: [a.update(iscrowd=1) for a in content["annotations"]], math.nan),
    ],
)
def test_who_finds_nothing_has_ap_0_where_there_is_something_to_find(tmp_path, edit, ap):
    files = edited(tmp_path, edit)
    results = results_of(files, tmp_path / "out", copies=0)
    assert [results["AP"], results["AP50"]] == pytest.approx([ap] * 2, nan_ok=True)
    assert [results[f"AP-class {i}"] for i in (1, 4, 9)] == pytest.approx([ap] * 3, nan_ok=True)
    assert read_json(tmp_path / "out/coco_instances_results.json") == []


def test_a_category_has_no_ap_only_where_there_is_nothing_of_it_to_find(tmp_path):
    def edit(content):
        content["annotations"] = [a for a in content["annotations"] if a["category_id"] != 9]

    files = edited(tmp_path, edit)
    evaluator = box_evaluator(files, tmp_path / "out")
    evaluator._detections = [[box for box in image if box["category_id"] != 1] for image in evaluator._detections]
    results = evaluator.evaluate()["bbox"]
    assert (results["AP-class 1"], results["AP-class 4"]) == pytest.approx((100, 0))
    assert math.isnan(results["AP-class 9"]) and results["AP"] == pytest.approx(50)


def test_categories_of_one_name_have_an_ap_each(tmp_path):
    files = edited(tmp_path, lambda content: [category.update(name="cell") for category in content["categories"]])
    results = results_of(files, tmp_path / "out")
    assert {key for key in results if key.startswith("AP-")} == {f"AP-cell (id {i})" for i in (1, 4, 9)}


def test_a_data_set_that_python_registered_is_evaluated_too(tmp_path):
    files = write_coco_folder(tmp_path, num_images=2)
    toy_config(files)
    dicts = DatasetCatalog.get("toy")
    DatasetCatalog.register("toy from Python", lambda: dicts)
    MetadataCatalog.get("toy from Python").thing_classes = MetadataCatalog.get("toy").thing_classes
    try:
        evaluator = BoxEvaluator("toy from Python", str(tmp_path / "out"))
        for inputs, outputs in perfect_predictions(files):
            evaluator.process(inputs, outputs)
        assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)
    finally:
        DatasetCatalog.remove("toy from Python")
        MetadataCatalog.remove("toy from Python")


def test_annotations_that_are_kept_from_us_leave_the_boxes_to_be_sent_in(tmp_path):
    files = write_coco_folder(tmp_path, num_images=2)
    evaluator = box_evaluator(files, tmp_path / "out")
    content = read_json(files[0])
    content.pop("annotations")
    write_json(files[0], content)
    blind = BoxEvaluator("toy", str(tmp_path / "out"))
    blind._detections = evaluator._detections
    assert math.isnan(blind.evaluate()["bbox"]["AP"])
    assert len(read_json(tmp_path / "out/coco_instances_results.json")) == 4


def evaluate_boxes_of_shares(files, folder):
    """Every process finds the first box of the images that its loader gives, the main one gathers."""
    rank, world_size = comm.get_rank(), comm.get_world_size()
    pairs = list(perfect_predictions(files))
    evaluator = BoxEvaluator("toy", f"{folder}/{world_size}")
    assert len(pairs) < 5 or world_size == 1
    for inputs, outputs in pairs:
        evaluator.process(inputs, [{"instances": outputs[0]["instances"][:1]}])
    results = evaluator.evaluate()
    assert (results == {}) == (rank > 0)
    if rank == 0:
        write_json(f"{folder}/{world_size}/results.json", results)


def test_two_processes_have_the_ap_of_one(tmp_path):
    files = write_coco_folder(tmp_path, num_images=5)
    evaluate_boxes_of_shares(files, tmp_path)
    launch(evaluate_boxes_of_shares, 2, dist_url="auto", args=(files, tmp_path))
    one, two = (read_json(tmp_path / name / "results.json") for name in ("1", "2"))
    assert str(two) == str(one) and 0 < one["bbox"]["AP"] < 100


def test_more_classes_than_the_data_set_has_are_refused(tmp_path):
    evaluator = box_evaluator(write_coco_folder(tmp_path, num_images=1), tmp_path / "out")
    evaluator._detections[0][0]["category_id"] = 3
    with pytest.raises(
        InputError, match=r"MODEL\.ROI_HEADS\.NUM_CLASSES must be 3, the data set's; the model found class 3"
    ):
        evaluator.evaluate()


@pytest.mark.parametrize("per_image", [3, 100])
def test_numbers_are_those_of_detectron2s_evaluator(tmp_path, per_image):
    files = write_coco_folder(tmp_path, num_images=8)
    loader = build_test_loader(toy_config(files), "toy")
    truth = {d["image_id"]: d["annotations"] for d in DatasetCatalog.get("toy")}
    ours = BoxEvaluator("toy", str(tmp_path / "ours"))
    theirs = COCOEvaluator("toy", tasks=("bbox",), output_dir=str(tmp_path / "theirs"))
    theirs.reset()
    rng = np.random.default_rng(per_image)
    for inputs in loader:
        chosen = [truth[inputs[0]["image_id"]][i] for i in rng.integers(2, size=per_image)]
        boxes = np.array([a["bbox"] for a in chosen]) + rng.normal(scale=3, size=(per_image, 4))
        scores = rng.random(per_image).round(1)  # with ties
        for evaluator in (ours, theirs):
            evaluator.process(inputs, found(inputs[0], boxes, [a["category_id"] for a in chosen], scores))
    results = ours.evaluate()["bbox"]
    assert 0 < results["AP"] < 100
    assert str(results) == str(theirs.evaluate()["bbox"])  # to the last digit, NaN included
