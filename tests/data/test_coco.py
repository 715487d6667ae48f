"""Data sets in COCO format: what can be used is, what cannot is refused in one line that says where."""

import json
import logging
from pathlib import Path

import pytest
from coco_folder import write_coco_folder
from detectron2.data import DatasetCatalog, MetadataCatalog

import sact_det.detection  # noqa: F401  (imports Detectron2 quietly)
from sact_det.base.errors import InputError
from sact_det.tasks import load_config

TINY = str(Path(__file__).parents[2] / "configs/tests/tiny.yaml")


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
        "DATASETS.COCO_FORMAT": list(entries),
        "DATASETS.TRAIN": train,
        "DATASETS.TEST": test,
    }
    return load_config(TINY, [text for key, value in keys.items() for text in (key, str(value))])


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


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "sact_det.data.coco"]


@pytest.mark.parametrize(
    ("bbox", "clipped", "pixels"),
    [
        ([90, 10, 100, 40], [90, 10, 38, 40], 62),  # of 128 x 96 pixels
        ([-30, -30, 31, 31], [0, 0, 1, 1], 30),
        ([127.5, 0, 10, 10], [127.5, 0, 0.5, 10], 9.5),
        ([-5, -7, 500, 300], [0, 0, 128, 96], 367),
        ([-1e300, 0, 1e301, 10], [0, 0, 128, 10], "9e+300"),
        ([100, 60, 28.01, 36], [100, 60, 28, 36], None),  # of rounding nothing is said
        ([100, 60, 28, 36], [100, 60, 28, 36], None),
    ],
)
def test_boxes_beyond_their_image_are_clipped_and_counted_once(files, caplog, bbox, clipped, pixels):
    change(files[0], lambda content: content["annotations"][0].update(bbox=bbox))
    for _ in range(2):
        with caplog.at_level(logging.WARNING, "sact_det.data.coco"):
            annotations = load(files)[0]["annotations"]
        assert [a["id"] for a in annotations] == [1, 2] and annotations[0]["bbox"] == clipped
    remark = f"1 of 8 boxes clipped, up to {pixels} pixels beyond their image (annotation 1)"
    assert warnings_of(caplog) == ([f"{files[0]}: {remark}"] if pixels else [])


@pytest.mark.parametrize(
    "bbox",
    [
        [10, 10, 0, 40],
        [10, 10, 40, 0],
        [10, 10, -5, 40],
        [128, 10, 20, 20],
        [10, -50, 20, 50],
        [10, 10, 40, 1e-9],
        [1e300, 10, 1e308, 40],
    ],
)
def test_boxes_without_area_in_their_image_are_left_out_and_counted(files, caplog, bbox):
    change(files[0], lambda content: content["annotations"][0].update(bbox=bbox))
    with caplog.at_level(logging.WARNING, "sact_det.data.coco"):
        assert [a["id"] for a in load(files)[0]["annotations"]] == [2]
    assert warnings_of(caplog) == [f"{files[0]}: 1 of 8 boxes left out, without area in their image (annotation 1)"]


def as_fractions(content):
    images = {image["id"]: image for image in content["images"]}
    for a in content["annotations"]:
        image = images[a["image_id"]]
        a["bbox"] = [side / image[key] for side, key in zip(a["bbox"], ("width", "height") * 2)]


def as_corners(content):
    for a in content["annotations"]:
        x, y, width, height = a["bbox"]
        a["bbox"] = [x + 30, y + 30, x + width + 10, y + height + 10]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (as_fractions, "all numbers of boxes are at most 1, which looks like fractions of the image; expected pixels"),
        (as_corners, "the boxes look like corners (x0, y0, x1, y1); expected x, y, width, height"),
        (lambda content: content["categories"][0].update(name="class 4"), "categories that share a name .*(class 4)"),
        (lambda content: content["annotations"].clear(), "no boxes to find (0 crowds, which are ignored)"),
        (lambda content: [a.update(iscrowd=1) for a in content["annotations"]], "no boxes to find (8 crowds"),
        (lambda content: content["annotations"][1].update(area=-1), "1 of 8 areas cannot be any (annotation 2: -1)"),
        (lambda content: content["annotations"][1].update(area="9"), '(annotation 2: the string "9"); the boxes\' own'),
    ],
)
def test_what_the_numbers_look_like_is_said(files, caplog, edit, message):
    change(files[0], edit)
    with caplog.at_level(logging.WARNING, "sact_det.data.coco"):
        load(files)
    (warning,) = warnings_of(caplog)
    assert all(part in warning for part in message.split(".*"))


@pytest.mark.parametrize("name", ["area", "iscrowd", "segmentation", "keypoints", "id", "score", "attributes"])
@pytest.mark.parametrize("value", [None, "x", -1, [[]], [[1, 2]], {"counts": "?"}, float("nan"), 10**400])
def test_what_boxes_do_not_need_cannot_hurt(files, name, value):
    if name == "iscrowd" and value is not None:
        pytest.skip("what is a crowd must be known")
    expected = [{**a, "id": None} for d in load(files) for a in d["annotations"]]
    change(files[0], lambda content: [content["annotations"][i].update({name: value}) for i in (0,)])
    assert [{**a, "id": None} for d in load(files) for a in d["annotations"]] == expected


@pytest.mark.parametrize(
    ("value", "crowd"),
    [*[(v, 0) for v in (0, 0.0, False, None, "0", "false")], *[(v, 1) for v in (1, 1.0, True, "1", " True")]],
)
def test_a_crowd_is_told_in_every_spelling(files, value, crowd):
    change(files[0], lambda content: content["annotations"][0].update(iscrowd=value))
    assert [a["iscrowd"] for a in load(files)[0]["annotations"]] == [crowd, 0]


def test_numbers_that_pandas_made_floats_are_whole(files):
    expected = load(files)

    def edit(content):
        for entry in (*content["images"], *content["annotations"], *content["categories"]):
            entry.update({key: float(value) for key, value in entry.items() if isinstance(value, int)})

    change(files[0], edit)
    assert load(files) == expected
    assert MetadataCatalog.get("toy").thing_dataset_id_to_contiguous_id == {1: 0, 4: 1, 9: 2}


@pytest.mark.parametrize("number", [0, -7, 2**70, 33.0, "x", "0"])
def test_ids_of_images_may_be_any_number_or_string(files, number):
    expected = [{**d, "image_id": None} for d in load(files)]
    kind = str if isinstance(number, str) else lambda value: value

    def edit(content):
        for entry in content["images"]:
            entry["id"] = number if entry["id"] == 1 else kind(entry["id"])
        for entry in content["annotations"]:
            entry["image_id"] = number if entry["image_id"] == 1 else kind(entry["image_id"])

    change(files[0], edit)
    found = load(files)
    assert [d["image_id"] for d in found] == sorted(d["image_id"] for d in found)
    assert sorted([{**d, "image_id": None} for d in found], key=lambda d: d["file_name"]) == expected


def test_categories_of_one_name_say_their_ids(files):
    change(files[0], lambda content: [category.update(name="cell") for category in content["categories"][:2]])
    config(("toy", *files))
    assert MetadataCatalog.get("toy").thing_classes == ["cell (id 1)", "cell (id 4)", "class 9"]


def test_a_missing_image_is_named(files):
    (Path(files[1]) / "3.png").unlink()
    with pytest.raises(InputError, match=r"3\.png: no such image \(data set 'toy'"):
        load(files)


@pytest.mark.parametrize("entry", ["toy", ("toy", "x.json"), ("toy", "x.json", 3)])
def test_an_entry_that_is_no_triple_is_refused(entry):
    with pytest.raises(InputError, match=r"COCO_FORMAT: each entry must be \(name, annotation json, image folder\)"):
        config(entry)


def test_two_data_sets_of_one_name_are_refused(files, tmp_path):
    assert config(("toy", *files), ("toy", *files)).DATASETS.TRAIN == ("toy",)
    with pytest.raises(InputError, match=r"DATASETS\.COCO_FORMAT: two entries have the name 'toy'"):
        config(("toy", *files), ("toy", files[0], str(tmp_path / "elsewhere")))


def test_data_sets_used_together_must_agree_on_their_categories(files, tmp_path):
    (tmp_path / "other").mkdir()
    other = write_coco_folder(tmp_path / "other", num_images=2, category_ids=(1, 2))
    entries = [("toy", *files), ("other", *other)]
    assert config(*entries).MODEL.ROI_HEADS.NUM_CLASSES == 3  # the other one is not used
    with pytest.raises(InputError, match=r"'other': its categories \(class 1, class 2\) differ from those of 'toy'"):
        config(*entries, test=("other",))
