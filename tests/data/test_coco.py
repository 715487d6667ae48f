"""Data sets in COCO format: what can be used is, what cannot is refused in one line that says where."""

import json
import logging
from pathlib import Path

import pytest
from coco_folder import write_coco_folder
from detectron2.data import DatasetCatalog, MetadataCatalog

import sact_det.detection  # noqa: F401  (imports Detectron2 quietly)
from sact_det.errors import InputError
from sact_det.tasks import load_config


@pytest.fixture
def files(tmp_path):
    """(annotation json, image folder): 4 images of categories 1, 4 and 9, two boxes each."""
    return write_coco_folder(tmp_path, num_images=4)


def change(json_file, edit):
    content = json.loads(Path(json_file).read_text())
    edit(content)
    Path(json_file).write_text(json.dumps(content))


def config(*entries, train=("toy",), test=()):
    keys = {
        "MODEL.META_ARCHITECTURE": "SACTGeneralizedRCNN",
        "DATASETS.COCO_FORMAT": list(entries),
        "DATASETS.TRAIN": train,
        "DATASETS.TEST": test,
    }
    return load_config("", [text for key, value in keys.items() for text in (key, str(value))])


def load(files):
    config(("toy", *files))
    return DatasetCatalog.get("toy")


def test_category_ids_may_have_gaps_and_any_order(files):
    change(files[0], lambda content: content["categories"].reverse())
    cfg = config(("toy", *files))
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 3
    assert MetadataCatalog.get("toy").thing_classes == ["class 1", "class 4", "class 9"]
    assert MetadataCatalog.get("toy").thing_dataset_id_to_contiguous_id == {1: 0, 4: 1, 9: 2}
    classes = [[a["category_id"] for a in d["annotations"]] for d in DatasetCatalog.get("toy")]
    assert classes == [[0, 1], [1, 2], [2, 0], [0, 1]]


def test_registering_a_name_again_replaces_it(files, tmp_path):
    config(("toy", *files))
    (tmp_path / "other").mkdir()
    cfg = config(("toy", *write_coco_folder(tmp_path / "other", num_images=2, category_ids=(3,))))
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 1
    assert len(DatasetCatalog.get("toy")) == 2


@pytest.mark.parametrize(
    ("bbox", "kept"),
    [
        ([90, 10, 100, 40], True),  # sticks out to the right of the 128 pixels
        ([-30, -30, 31, 31], True),
        ([127.5, 0, 10, 10], True),
        ([10, 10, 0, 40], False),
        ([10, 10, 40, 0], False),
        ([10, 10, -5, 40], False),
        ([128, 10, 20, 20], False),
        ([10, -50, 20, 50], False),
    ],
)
def test_boxes_without_area_in_their_image_are_left_out_and_counted(files, caplog, bbox, kept):
    change(files[0], lambda content: content["annotations"][0].update(bbox=bbox))
    with caplog.at_level(logging.WARNING, "sact_det.data.coco"):
        first = load(files)[0]
    assert [a["id"] for a in first["annotations"]] == ([1, 2] if kept else [2])
    warnings = [record.getMessage() for record in caplog.records if record.name == "sact_det.data.coco"]
    assert warnings == (
        []
        if kept
        else [f"{files[0]}: left out of training: 1 of 8 boxes, without area or outside their image (annotations 1)"]
    )


def drop(key, index, name):
    return lambda content: content[key][index].pop(name)


def put(key, index, **values):
    return lambda content: content[key][index].update(values)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (put("annotations", 2, image_id=77), "annotation 3: image_id 77 is not in 'images'"),
        (put("annotations", 2, category_id=2), "annotation 3: category_id 2 is not in 'categories'"),
        (put("annotations", 2, bbox=[1, 2, 3]), "annotation 3: bbox must be four finite numbers"),
        (put("annotations", 2, bbox=[1, 2, 3, "4"]), "annotation 3: bbox must be four finite numbers"),
        (put("annotations", 2, bbox=[1, 2, float("nan"), 4]), "annotation 3: bbox must be four finite numbers"),
        (put("annotations", 2, bbox=None), "an entry of 'annotations' has no valid 'bbox'"),
        (put("annotations", 2, image_id=[1]), "an entry of 'annotations' has no valid 'image_id'"),
        (put("annotations", 2, id=2), "two entries of 'annotations' have the id 2"),
        (put("annotations", 2, ignore=1), '"ignore" in COCO json file is not supported'),
        (drop("annotations", 0, "category_id"), "an entry of 'annotations' has no valid 'category_id'"),
        (lambda content: content["annotations"].append(3), "an entry of 'annotations' has no valid"),
        (drop("images", 0, "width"), "an entry of 'images' has no valid 'width'"),
        (put("images", 0, height="97"), "an entry of 'images' has no valid 'height'"),
        (put("images", 0, file_name=3), "an entry of 'images' has no valid 'file_name'"),
        (put("images", 1, id=1), "two entries of 'images' have the id 1"),
    ],
)
def test_a_wrong_entry_is_named(files, edit, message):
    change(files[0], edit)
    with pytest.raises(InputError) as error:
        load(files)
    assert str(error.value).startswith(f"{files[0]}: {message}")
    assert "\n" not in str(error.value)


def test_a_missing_image_is_named(files):
    (Path(files[1]) / "3.png").unlink()
    with pytest.raises(InputError, match=r"3\.png: no such image \(data set 'toy'"):
        load(files)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such annotation file"),
        ("", "not a readable json file"),
        ('{"images": [', "not a readable json file"),
        ("\udcff", "not a readable json file"),
        ("[]", "not in COCO format: no list 'images'"),
        ('{"images": [{}], "annotations": {}}', "not in COCO format: no list 'annotations'"),
        ('{"images": [], "annotations": [], "categories": []}', "the list 'images' is empty"),
        ('{"images": [{}], "annotations": [], "categories": []}', "the list 'categories' is empty"),
        ('{"images": [{}], "annotations": [], "categories": [1]}', "an entry of 'categories' has no valid 'name'"),
        (
            '{"images": [{}], "annotations": [], "categories": [{"name": "a", "id": "1"}]}',
            "an entry of 'categories' has no valid 'id'",
        ),
        (
            '{"images": [{}], "annotations": [], "categories": [{"name": "a", "id": 1}, {"name": "b", "id": 1}]}',
            "two entries of 'categories' have the id 1",
        ),
    ],
)
def test_a_file_that_is_not_in_coco_format_is_refused_with_the_config(tmp_path, text, message):
    path = tmp_path / "instances.json"
    if text is not None:
        path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError) as error:
        config(("toy", str(path), str(tmp_path)))
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("entry", ["toy", ("toy", "x.json"), ("toy", "x.json", 3)])
def test_an_entry_that_is_no_triple_is_refused(entry):
    with pytest.raises(InputError, match=r"COCO_FORMAT: each entry must be \(name, annotation json, image folder\)"):
        config(entry)


def test_data_sets_used_together_must_agree_on_their_categories(files, tmp_path):
    (tmp_path / "other").mkdir()
    other = write_coco_folder(tmp_path / "other", num_images=2, category_ids=(1, 2))
    entries = [("toy", *files), ("other", *other)]
    assert config(*entries).MODEL.ROI_HEADS.NUM_CLASSES == 3  # the other one is not used
    with pytest.raises(InputError, match=r"'other': its categories \(class 1, class 2\) differ from those of 'toy'"):
        config(*entries, test=("other",))
