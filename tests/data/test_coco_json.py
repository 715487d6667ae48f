"""Files in COCO format with something wrong are refused, and the entry is named."""

import pytest
from coco_folder import write_coco_folder
from test_coco import change, config, load

import sact_det.detection  # noqa: F401  (imports Detectron2 quietly)
from sact_det.base.errors import InputError


@pytest.fixture
def files(tmp_path):
    """(annotation json, image folder): 4 images of categories 1, 4 and 9, two boxes each."""
    return write_coco_folder(tmp_path, num_images=4)


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
        (
            put("annotations", 2, bbox=None),
            "annotation 3: bbox must be four finite numbers (x, y, width, height); got null",
        ),
        (put("annotations", 2, image_id=[1]), "annotation 3: image_id must be a whole number or a string; got [1]"),
        (
            put("annotations", 2, image_id="1"),
            "annotation 3: image_id is the string \"1\"; the ids of 'images' are like 1",
        ),
        (put("annotations", 2, image_id=True), "annotation 3: image_id must be a whole number or a string; got true"),
        (
            put("annotations", 2, category_id="1"),
            'annotation 3: category_id must be a whole number; got the string "1"',
        ),
        (put("annotations", 2, category_id=1.5), "annotation 3: category_id must be a whole number; got 1.5"),
        (put("annotations", 2, bbox=["1", "2", "3", "4"]), "annotation 3: bbox must be four finite numbers"),
        (put("annotations", 2, bbox=[1, 2, True, 4]), "annotation 3: bbox must be four finite numbers"),
        (put("annotations", 2, bbox=[1, 2, 10**400, 4]), "annotation 3: bbox must be four finite numbers"),
        (put("annotations", 2, bbox={}, id=None), "annotations[2]: bbox must be four finite numbers"),
        (put("annotations", 2, iscrowd="maybe"), 'annotation 3: iscrowd must be 0 or 1; got the string "maybe"'),
        (put("annotations", 2, iscrowd=2), "annotation 3: iscrowd must be 0 or 1; got 2"),
        (put("annotations", 2, iscrowd=[0]), "annotation 3: iscrowd must be 0 or 1; got [0]"),
        (put("annotations", 2, id=2), "two entries of 'annotations' have the id 2"),
        (put("annotations", 2, ignore=1), "annotation 3: ignore must be 0, for only crowds are ignored; got 1"),
        (drop("annotations", 0, "category_id"), "annotation 1: category_id must be a whole number; got nothing"),
        (lambda content: content["annotations"].append(3), "annotations[8] must be an object; got 3"),
        (drop("images", 0, "width"), "image 1: width must be a whole number of pixels above 0; got nothing"),
        (put("images", 0, width=-1), "image 1: width must be a whole number of pixels above 0; got -1"),
        (put("images", 0, width=12.5), "image 1: width must be a whole number of pixels above 0; got 12.5"),
        (
            put("images", 0, id="a"),
            "the ids of 'images' must be all numbers or all strings; got the string \"a\" and 4",
        ),
        (drop("images", 2, "id"), "images[2]: id must be a whole number or a string; got nothing"),
        (put("images", 2, file_name=""), 'image 3: file_name must be a string that is not empty; got the string ""'),
        (
            put("images", 0, height="97"),
            'image 1: height must be a whole number of pixels above 0; got the string "97"',
        ),
        (put("images", 0, file_name=3), "image 1: file_name must be a string that is not empty; got 3"),
        (put("images", 1, id=1), "two entries of 'images' have the id 1"),
    ],
)
def test_a_wrong_entry_is_named(files, edit, message):
    change(files[0], edit)
    with pytest.raises(InputError) as error:
        load(files)
    assert str(error.value).startswith(f"{files[0]}: {message}")
    assert "\n" not in str(error.value)


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
        ('{"images": [{}], "annotations": [], "categories": [1]}', "categories[0] must be an object; got 1"),
        (
            '{"images": [{}], "annotations": [], "categories": [{"name": "a", "id": "1"}]}',
            'category "1": id must be a whole number; got the string "1"',
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
