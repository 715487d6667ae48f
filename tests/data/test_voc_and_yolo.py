"""Folders of Pascal VOC and of YOLO are the data sets that the same file in COCO's format is, or one line."""

import json
from pathlib import Path

import pytest
from coco_folder import TINY, write_coco_folder
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import inference_context
from detectron2.modeling import build_model
from voc_and_yolo import write_voc_folder, write_yolo_folder

from sact_det.base.errors import InputError
from sact_det.data.coco_json import read_coco
from sact_det.data.voc import voc_files
from sact_det.data.yolo import yolo_files
from sact_det.detection.trainer import DetectionTrainer
from sact_det.tasks import load_config

WRITERS = {"VOC_FORMAT": write_voc_folder, "YOLO_FORMAT": write_yolo_folder}
both = pytest.mark.parametrize("key", WRITERS)


def coco(root, **options):
    """A file in COCO's format, one of whose objects is a crowd, and its images."""
    root.mkdir()
    json_file, images = write_coco_folder(root, num_images=5, **options)
    content = json.loads(Path(json_file).read_text())
    content["annotations"][3]["iscrowd"] = 1
    Path(json_file).write_text(json.dumps(content))
    return json_file, images


def config(key, *entry, split="TEST", more=()):
    return load_config(TINY, [f"DATASETS.{key}", str([("toy", *entry)]), f"DATASETS.{split}", "('toy',)", *more])


def records(cfg):
    """What a detector is trained on: image, size, and of every object class, box, crowd and polygon."""
    found = []
    for item in DatasetCatalog.get("toy"):
        objects = [
            (one["category_id"], pytest.approx(one["bbox"], abs=1e-9), one["iscrowd"], one.get("segmentation"))
            for one in item["annotations"]
        ]
        found.append((Path(item["file_name"]).name, item["height"], item["width"], objects))
    return found, MetadataCatalog.get("toy").thing_classes, cfg.MODEL.ROI_HEADS.NUM_CLASSES


@both
def test_a_folder_has_the_records_of_the_file_it_was_made_of(tmp_path, key):
    files = coco(tmp_path / "coco")
    folder = WRITERS[key](tmp_path / "folder", *files)
    expected, classes, number = records(config("COCO_FORMAT", *files))
    actual, *same = records(config(key, folder, "train"))
    if key == "YOLO_FORMAT":  # which knows no crowds
        for *_, objects in expected:
            objects[:] = [(category, box, 0, shape) for category, box, _, shape in objects]
    assert same == [classes, number] and number == 3
    assert [item[:3] for item in actual] == [item[:3] for item in expected]
    for (*_, one), (*_, other) in zip(actual, expected):
        assert [(c, b.expected, i, s) for c, b, i, s in one] == [tuple(values) for values in other]


@both
def test_a_folder_is_judged_as_the_file_is(tmp_path, key):
    files = coco(tmp_path / "coco")
    if key == "YOLO_FORMAT":
        content = json.loads(Path(files[0]).read_text())
        content["annotations"][3]["iscrowd"] = 0
        Path(files[0]).write_text(json.dumps(content))
    folder = WRITERS[key](tmp_path / "folder", *files)
    results = []
    for entry in (("COCO_FORMAT", *files), (key, folder, "train")):
        cfg = config(*entry, more=["OUTPUT_DIR", str(tmp_path / entry[0]), "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"])
        if not results:
            model = build_model(cfg)
        with inference_context(model):
            results.append(DetectionTrainer.test(cfg, model))
    assert results[0]["bbox"] == pytest.approx(results[1]["bbox"], nan_ok=True)


def test_polygons_of_yolo_are_masks(tmp_path):
    files = coco(tmp_path / "coco", masks=True)
    labels, _ = yolo_files(write_yolo_folder(tmp_path / "folder", *files), "train")
    expected, actual = (read_coco(path)["annotations"] for path in (files[0], labels))
    for one, other in zip(expected, actual):
        assert other["segmentation"][0] == pytest.approx(one["segmentation"][0])
        assert other["bbox"] == pytest.approx(one["bbox"])


def test_labels_of_a_voc_folder_say_the_classes_and_their_order(tmp_path):
    folder = write_voc_folder(tmp_path / "folder", *coco(tmp_path / "coco"))
    Path(folder, "labels.txt").write_text("class 9\nnothing\nclass 4\nclass 1\n")
    content = read_coco(voc_files(folder, "train")[0])
    assert [category["name"] for category in content["categories"]] == ["class 9", "nothing", "class 4", "class 1"]


def test_yolo_folders_by_split_and_names_in_a_list_are_read_too(tmp_path):
    folder = Path(write_yolo_folder(tmp_path / "folder", *coco(tmp_path / "coco")))
    (folder / "train").mkdir()
    for part in ("images", "labels"):
        (folder / part / "train").rename(folder / "train" / part)
    (folder / "data.yaml").write_text("names: [a, b, c]\nnc: 3\n")
    (folder / "train/labels/2.txt").unlink()  # an image without objects
    content = read_coco(yolo_files(str(folder), "train")[0])
    assert [category["name"] for category in content["categories"]] == ["a", "b", "c"]
    assert {one["image_id"] for one in content["annotations"]} == {1, 3, 4, 5}


BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<size>", "<sizes>", r"1\.xml:\d+: not a readable xml file \(mismatched tag\)"),
        ("<width>128</width>", "", r"1\.xml:3: <size> has no <width>"),
        (
            "<width>128</width>",
            "<width>0</width>",
            r"1\.xml:3: <width> must be a whole number of pixels above 0; got '0'",
        ),
        ("<xmax>", "<xmax>x", r"1\.xml:7: <xmax> must be a number; got 'x"),
        ("<xmin>", "<xmin>9", r"1\.xml:7: <bndbox> ends before it begins"),
        ("<difficult>0", "<difficult>yes", r"1\.xml:6: <difficult> must be 0 or 1; got 'yes'"),
        ("<name>class", "<title>class", r"1\.xml:\d+: not a readable xml file"),
        (None, "<annotation></annotation>", r"1\.xml:1: <annotation> has no <size>"),
        (None, BOMB, r"1\.xml:1: declares a document type; expected elements alone"),
        (None, "", r"1\.xml:1: not a readable xml file \(no element found\)"),
    ],
)
def test_a_broken_xml_is_named_with_its_line(tmp_path, old, new, message):
    folder = write_voc_folder(tmp_path / "folder", *coco(tmp_path / "coco"))
    path = Path(folder, "Annotations/1.xml")
    path.write_text(new if old is None else path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        config("VOC_FORMAT", folder, "train")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 1.2 0.1", r"1\.txt:1: must be shares of the image's sides, from 0 to 1; got 1\.2"),
        ("0 0.5 nan 0.2 0.1", r"1\.txt:1: must be shares of the image's sides, from 0 to 1; got nan"),
        ("3 0.5 0.5 0.2 0.1", r"1\.txt:1: there are 3 classes, from 0 to 2; got 3"),
        ("0.5 0.5 0.5 0.2 0.1", r"1\.txt:1: there are 3 classes, from 0 to 2; got 0\.5"),
        ("0 0.5 0.5 0.2", r"1\.txt:1: must be a class and a box of 4 numbers, or a polygon's; got 3"),
        ("\ncat 0.5 0.5 0.2 0.1", r"1\.txt:2: must be numbers; got 'cat 0\.5 0\.5 0\.2 0\.1'"),
    ],
)
def test_a_broken_line_of_labels_is_named(tmp_path, line, message):
    folder = write_yolo_folder(tmp_path / "folder", *coco(tmp_path / "coco"))
    Path(folder, "labels/train/1.txt").write_text(f"{line}\n")
    with pytest.raises(InputError, match=message):
        config("YOLO_FORMAT", folder, "train")


@both
def test_a_missing_image_or_split_is_named(tmp_path, key):
    folder = WRITERS[key](tmp_path / "folder", *coco(tmp_path / "coco"))
    with pytest.raises(InputError, match=r"no such list of images|no such split of a YOLO folder"):
        config(key, folder, "val")
    next(Path(folder).rglob("3.png")).unlink()
    with pytest.raises(InputError, match=r"3\.png: no such image|3\.txt: no image of this name is in"):
        config(key, folder, "train")


@pytest.mark.parametrize("content", ["names: 3\n", "nc: 3\n", "names: {0: a, 2: b}\n", "- a\n"])
def test_names_that_are_none_are_named(tmp_path, content):
    folder = write_yolo_folder(tmp_path / "folder", *coco(tmp_path / "coco"))
    Path(folder, "data.yaml").write_text(content)
    with pytest.raises(InputError, match=r"data\.yaml: 'names' must list the classes"):
        config("YOLO_FORMAT", folder, "train")


@both
def test_an_entry_that_is_none_names_its_key(key):
    with pytest.raises(InputError, match=rf"DATASETS\.{key}: each entry must be \(name, folder, split\); got"):
        config(key, "folder")
