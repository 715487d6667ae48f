"""The built-in detection set: the same bytes every time, disjoint splits, boxes tight around visible ink."""

import itertools
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

pytest.importorskip("skimage")
sklearn_datasets = pytest.importorskip("sklearn.datasets")

from sact_det.base.errors import InputError  # noqa: E402
from sact_det.data import demo  # noqa: E402
from sact_det.data.demo import Box, DemoDataset, make_demo_dataset  # noqa: E402

ARGUMENTS = {"num_train": 60, "num_val": 30, "image_size": (96, 112), "seed": 3}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DemoDataset:
    return make_demo_dataset(tmp_path_factory.mktemp("demo"), **ARGUMENTS)


@pytest.fixture(scope="module")
def splits(dataset: DemoDataset) -> list[tuple[dict, Path]]:
    return [
        (json.loads(annotations.read_text()), images)
        for annotations, images in [(dataset.train_json, dataset.train_images), (dataset.val_json, dataset.val_images)]
    ]


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def boxes_of(coco: dict, image: dict) -> list[Box]:
    return [Box(*a["bbox"]) for a in coco["annotations"] if a["image_id"] == image["id"]]


def root_of(dataset: DemoDataset) -> Path:
    return dataset.train_json.parent.parent


def test_two_runs_write_identical_bytes(dataset, tmp_path):
    make_demo_dataset(tmp_path, **ARGUMENTS)
    written = files(tmp_path)
    assert len(written) == 60 + 30 + 2
    assert written == files(root_of(dataset))


def test_another_seed_gives_other_images(dataset, tmp_path):
    other = make_demo_dataset(tmp_path, **{**ARGUMENTS, "num_train": 1, "num_val": 1, "seed": 4})
    assert (other.train_images / "00000.png").read_bytes() != (dataset.train_images / "00000.png").read_bytes()


def test_an_image_does_not_depend_on_how_many_there_are(dataset, tmp_path):
    other = make_demo_dataset(tmp_path, **{**ARGUMENTS, "num_train": 2, "num_val": 1})
    assert (other.train_images / "00001.png").read_bytes() == (dataset.train_images / "00001.png").read_bytes()


def test_second_run_writes_nothing(dataset):
    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in root_of(dataset).rglob("*")}

    before = times()
    assert make_demo_dataset(root_of(dataset), **ARGUMENTS) == dataset
    assert times() == before


@pytest.mark.parametrize(
    "lost", ["annotations/instances_train.json", "annotations/instances_val.json", "images/train/00001.png"]
)
def test_partial_run_is_completed(tmp_path, lost):
    small = {**ARGUMENTS, "num_train": 2, "num_val": 2}
    make_demo_dataset(tmp_path, **small)
    whole = files(tmp_path)
    (tmp_path / lost).unlink()
    (tmp_path / "images/val/00001.png").write_bytes(b"of an earlier run")
    make_demo_dataset(tmp_path, **small)
    assert files(tmp_path) == whole


@pytest.mark.parametrize("change", [{"num_train": 61}, {"num_val": 31}, {"image_size": (112, 96)}, {"seed": 0}])
def test_other_arguments_in_the_same_folder_are_refused(dataset, change):
    before = files(root_of(dataset))
    with pytest.raises(InputError, match=r"instances_train\.json: is of a demo set with .*, expected .*") as error:
        make_demo_dataset(root_of(dataset), **{**ARGUMENTS, **change})
    assert "\n" not in str(error.value)
    assert files(root_of(dataset)) == before


@pytest.mark.parametrize("content", ["{}", '{"info": {"year": 2017}}', "[]", "not json"])
def test_annotations_of_another_kind_are_not_overwritten(tmp_path, content):
    foreign = tmp_path / "annotations/instances_val.json"
    foreign.parent.mkdir()
    foreign.write_text(content)
    with pytest.raises(InputError, match="is not of a demo set"):
        make_demo_dataset(tmp_path, **ARGUMENTS)
    assert files(tmp_path) == {"annotations/instances_val.json": content.encode()}


@pytest.mark.parametrize("change", [{"num_train": 0}, {"num_val": 0}, {"image_size": (63, 200)}, {"seed": -1}])
def test_arguments_out_of_range_are_refused(tmp_path, change):
    with pytest.raises(InputError, match=f"`{next(iter(change))}`"):
        make_demo_dataset(tmp_path / "new", **{**ARGUMENTS, **change})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("module", ["sklearn", "sklearn.datasets", "skimage"])
def test_missing_package_is_named_with_its_remedy(tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    demo._digits.cache_clear()
    demo._photograph.cache_clear()
    with pytest.raises(InputError, match=r"pip install sact_det\[demo\]$"):
        make_demo_dataset(tmp_path, **ARGUMENTS)
    assert not files(tmp_path)


def test_splits_share_no_digit_image(splits):
    train, val = ({a["digit_index"] for a in coco["annotations"]} for coco, _ in splits)
    assert train and val and not train & val


def test_splits_share_no_pixel_of_a_photograph(splits):
    (train, _), (val, _) = splits
    compared = 0
    for a, b in itertools.product(train["images"], val["images"]):
        if a["photograph"] == b["photograph"]:
            assert Box(*a["crop"]).covers(Box(*b["crop"])) == 0
            compared += 1
    assert compared
    assert {image["photograph"] for image in train["images"]} == set(demo.PHOTOGRAPHS)


def test_crops_lie_inside_their_photographs_in_the_shape_of_the_image(splits):
    for coco, _ in splits:
        for image in coco["images"]:
            x, y, w, h = image["crop"]
            height, width = demo._photograph(image["photograph"]).shape[:2]
            assert 0 <= x <= width - w and 0 <= y <= height - h
            assert w / h == pytest.approx(image["width"] / image["height"], rel=0.02)


def test_categories_and_licences_are_complete(splits):
    for coco, _ in splits:
        assert [c["name"] for c in coco["categories"]] == list("0123456789")
        assert {a["category_id"] for a in coco["annotations"]} == {c["id"] for c in coco["categories"]}
        names = {licence["id"]: licence["name"] for licence in coco["licenses"]}
        assert all(names[image["license"]].startswith(image["photograph"] + ": ") for image in coco["images"])


def test_category_is_the_label_of_the_digit(splits):
    labels = sklearn_datasets.load_digits().target
    for coco, _ in splits:
        names = {c["id"]: c["name"] for c in coco["categories"]}
        assert all(names[a["category_id"]] == str(labels[a["digit_index"]]) for a in coco["annotations"])


def test_pycocotools_loads_it(dataset):
    for annotations, images, number in [
        (dataset.train_json, dataset.train_images, 60),
        (dataset.val_json, dataset.val_images, 30),
    ]:
        coco = COCO(str(annotations))
        assert len(coco.imgs) == number
        assert 0 not in coco.anns, "COCOeval takes annotation 0 for no match"
        for image_id, image in coco.imgs.items():
            assert 1 <= len(coco.getAnnIds(imgIds=[image_id])) <= 6
            pixels = cv2.imread(str(images / image["file_name"]))
            assert pixels.shape == (image["height"], image["width"], 3) == (96, 112, 3)


def test_boxes_lie_inside_with_the_promised_side_and_hide_no_other(splits):
    for coco, _ in splits:
        for image in coco["images"]:
            boxes = boxes_of(coco, image)
            for box in boxes:
                assert 0 <= box.x <= image["width"] - box.w and 0 <= box.y <= image["height"] - box.h
                assert 24 <= max(box.w, box.h) <= 72
            assert all(a.covers(b) <= 0.1 for a, b in itertools.permutations(boxes, 2))
        assert all(a["area"] == a["bbox"][2] * a["bbox"][3] and a["iscrowd"] == 0 for a in coco["annotations"])


def test_boxes_are_tight_around_what_was_painted(splits):
    for coco, folder in splits:
        for image in coco["images"]:
            pixels = cv2.imread(str(folder / image["file_name"])).astype(int)
            painted = (pixels != demo.background(image)).any(axis=2)
            boxes = boxes_of(coco, image)
            outside = painted.copy()
            for box in boxes:
                outside[box.y : box.y + box.h, box.x : box.x + box.w] = False
            assert not outside.any()
            for box in boxes:
                rows, columns = np.nonzero(painted[box.y : box.y + box.h, box.x : box.x + box.w])
                assert rows.min() <= 1 and columns.min() <= 1
                assert rows.max() >= box.h - 2 and columns.max() >= box.w - 2


def test_digits_stand_out_from_what_is_behind_them(splits):
    luma = np.array([0.114, 0.587, 0.299])
    for coco, folder in splits:
        for image in coco["images"]:
            pixels = cv2.imread(str(folder / image["file_name"])) @ luma
            behind = demo.background(image) @ luma
            for x, y, w, h in boxes_of(coco, image):
                inside = np.s_[y : y + h, x : x + w]
                contrast = np.abs(pixels[inside] - behind[inside].mean())
                assert (contrast > 100).mean() > 0.1
