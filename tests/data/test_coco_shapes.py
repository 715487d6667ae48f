"""Masks and keypoints of files in COCO format: read as pycocotools does, or refused in one line."""

import numpy as np
import pytest
from coco_folder import KEYPOINTS, read_json, write_coco_folder, write_json
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.coco import load_coco_json
from pycocotools import mask as rle

from sact_det.base.errors import InputError
from sact_det.data.coco import load_checked, register_coco_file
from sact_det.data.coco_json import Annotation, Image
from sact_det.data.coco_shapes import as_rle, mask_area, read_segmentation

SIZE = (30, 40)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools


def annotation(segmentation):
    return Annotation("annotation 7", 7, Image(1, "a.png", *SIZE), 1, (0.0, 0.0, 9.0, 9.0), None, False, segmentation)


def random_mask(seed=0):
    return np.asfortranarray(np.random.default_rng(seed).random(SIZE) < 0.4, dtype=np.uint8)


@pytest.fixture
def files(tmp_path):
    return write_coco_folder(tmp_path, num_images=3, masks=True, keypoints=True)


def change(files, **values):
    """Gives the first annotation other values."""
    content = read_json(files[0])
    content["annotations"][0].update(values)
    write_json(files[0], content)


def test_masks_and_keypoints_are_those_that_detectron2_reads(files):
    ours = load_checked("toy", *files, masks=True, keypoints=True)
    theirs = load_coco_json(*files, "toy for detectron2")
    assert [d["file_name"] for d in ours] == [d["file_name"] for d in theirs]
    for own, other in zip(ours, theirs):
        for a, b in zip(own["annotations"], other["annotations"], strict=True):
            assert a["segmentation"] == b["segmentation"] and a["keypoints"] == b["keypoints"]


def test_a_file_s_keypoints_flip_and_connect_by_their_names(files):
    register_coco_file("toy", *files, keypoints=True)
    metadata = MetadataCatalog.get("toy")
    assert metadata.keypoint_names == KEYPOINTS and metadata.keypoint_flip_map == [("left_corner", "right_corner")]
    assert [bone[:2] for bone in metadata.keypoint_connection_rules] == [
        ("left_corner", "middle"),
        ("middle", "right_corner"),
    ]


def test_who_asks_for_boxes_gets_boxes(files):
    (first, *_) = load_checked("toy", *files)
    assert all("segmentation" not in a and "keypoints" not in a for a in first["annotations"])


@pytest.mark.parametrize("seed", range(3))
def test_run_lengths_are_those_of_pycocotools_in_either_spelling(seed):
    mask = random_mask(seed)
    packed = rle.encode(mask)
    values = mask.flatten(order="F")
    ends = [*(np.flatnonzero(np.diff(values)) + 1), values.size]
    runs = ([0] if values[0] else []) + np.diff([0, *ends]).tolist()
    for counts in (packed["counts"].decode(), runs):
        read = read_segmentation("f.json", annotation({"size": list(SIZE), "counts": counts}))
        assert np.array_equal(rle.decode(read), mask) and mask_area(read, SIZE) == mask.sum()


def test_polygons_of_one_object_are_united():
    square = [2, 2, 12, 2, 12, 12, 2, 12]
    read = read_segmentation("f.json", annotation([square, [v + 4 for v in square], [1, 2, 3, 4]]))
    assert len(read) == 2  # two points enclose nothing
    assert rle.decode(as_rle(read, SIZE)).sum() == mask_area(read, SIZE) == 2 * 100 - 36


@pytest.mark.parametrize("nothing", [None, [], {}, [[]], [[1, 2, 3, 4]]])
def test_no_mask_is_none(nothing):
    assert read_segmentation("f.json", annotation(nothing)) is None


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ("x", "must be a list of polygons or an object with size and counts; got the string"),
        ([1, 2, 3], "must be a list of polygons or an object with size and counts"),
        ([[1, 2, 3, 4, 5, 6, 7]], "a polygon must list finite numbers, x and y of each point"),
        ([[1, 2, 3, float("nan"), 5, 6]], "a polygon must list finite numbers"),
        ({"counts": "x"}, r"size must be that of the image, \[30, 40\]"),
        ({"size": [40, 30], "counts": "x"}, r"size must be that of the image, \[30, 40\]"),
        ({"size": [30, 40], "counts": "0"}, "counts must be runs of 1200 pixels together"),
        ({"size": [30, 40], "counts": "é"}, "counts must be runs of 1200 pixels together"),
        ({"size": [30, 40], "counts": [-1, 1201]}, "counts must be runs of 1200 pixels together"),
        ({"size": [30, 40], "counts": [600, 599]}, "counts must be runs of 1200 pixels together"),
        ({"size": [30, 40]}, "counts must be runs of 1200 pixels together; got null"),
    ],
)
def test_a_broken_mask_is_named(segmentation, message):
    with pytest.raises(InputError, match=f"^f.json: annotation 7: segmentation.*{message}") as error:
        read_segmentation("f.json", annotation(segmentation))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("keypoints", [[1, 2, 2], "x", [1, 2, "2"] * 3, {}, [None] * 9])
def test_broken_keypoints_are_named(files, keypoints):
    change(files, keypoints=keypoints)
    with pytest.raises(InputError, match=r"annotation 1: keypoints must list 9 finite numbers"):
        load_checked("toy", *files, keypoints=True)


def test_keypoints_that_are_not_there_are_not_labelled(files):
    change(files, keypoints=None)
    first = load_checked("toy", *files, keypoints=True)[0]["annotations"][0]
    assert first["keypoints"][2::3] == [0, 0, 0]


@pytest.mark.parametrize(
    ("category", "message"),
    [
        ({"keypoints": "x"}, "keypoints of category 'class 1' must be a list of names"),
        ({"keypoints": ["a"]}, "keypoints of category 'class 4' must be a list of names, the same in every category"),
        ({"skeleton": [[0, 1]]}, "skeleton of category 'class 1' must list pairs of keypoints, numbered from 1"),
    ],
)
def test_a_broken_skeleton_is_named(files, category, message):
    content = read_json(files[0])
    content["categories"][0].update(category)
    write_json(files[0], content)
    with pytest.raises(InputError, match=message):
        register_coco_file("toy", *files, keypoints=True)


def test_boxes_only_are_refused_where_masks_or_keypoints_are_needed(tmp_path):
    files = write_coco_folder(tmp_path, num_images=2)
    with pytest.raises(InputError, match=rf"^{files[0]}: has boxes only.*MODEL.MASK_ON needs them$"):
        load_checked("toy", *files, masks=True)
    with pytest.raises(InputError, match=rf"^{files[0]}: no category names keypoints; MODEL.KEYPOINT_ON needs them$"):
        load_checked("toy", *files, keypoints=True)
