"""Lists of images with fixation files or points."""

import json
import os

import numpy as np
import pytest
from cat2000_folder import write_cat2000_folder

from sact_det.base.errors import InputError
from saliency.cat2000 import read_cat2000
from saliency.image_list import read_image_list
from saliency.map_sources import MapFolder

IMAGE, LOCATIONS = "Stimuli/Action/001.jpg", "FIXATIONLOCS/Action/001.mat"


@pytest.fixture
def root(tmp_path):
    return write_cat2000_folder(tmp_path)


def read(root, content, suffix=".json", **options):
    path = root / f"list{suffix}"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_image_list(path, **options)


def test_json_and_csv_say_the_same_as_the_layout(root):
    expected = read_cat2000(root)[0].fixations
    points = list(zip(expected.x.tolist(), expected.y.tolist()))
    lists = [
        read(root, [{"image": IMAGE, "fixations": LOCATIONS}]),
        read(root, [{"image": IMAGE, "fixations": points, "category": "Action", "name": "Stimuli/Action/001"}]),
        read(root, f"image,fixations\n{IMAGE},{LOCATIONS}\n", ".csv"),
        read(root, "category,image,x,y\n" + "".join(f"Action,{IMAGE},{x},{y}\n" for x, y in points), ".csv"),
    ]
    for dataset in lists:
        (image,) = dataset
        assert image.name == "Stimuli/Action/001" and image.shape == expected.shape
        assert image.fixations.pixels.tolist() == expected.pixels.tolist()
    assert [dataset[0].category for dataset in lists] == ["", "Action", "", "Action"]


@pytest.mark.parametrize(
    ("content", "suffix", "message"),
    [
        ("", ".json", "not a readable json file: it is empty"),
        ("[]", ".json", "the list is empty"),
        ("{}", ".json", "expected a list of objects"),
        ([{"fixations": []}], ".json", "entry 1 has no 'image'"),
        ([{"image": IMAGE}], ".json", "entry 1 has no 'fixations'"),
        ([{"image": IMAGE, "fixations": []}], ".json", "no fixations"),
        ([{"image": IMAGE, "fixations": [[1, 2, 3]]}], ".json", r"points \[n, 2\]"),
        ([{"image": IMAGE, "fixations": [["a", "b"]]}], ".json", r"points \[n, 2\]"),
        ([{"image": IMAGE, "fixations": [[64, 0]]}], ".json", "001.jpg: 1 of 1 fixations lie outside"),
        (
            [{"image": IMAGE, "fixations": [[1, 2], [3]]}],
            ".json",
            r"points \[n, 2\] of x and y; got \[\[1, 2\], \[3\]\]",
        ),
        ([{"image": IMAGE, "fixations": [1, 2]}], ".json", r"points \[n, 2\]"),
        ([{"image": IMAGE, "fixations": [[{}, 2]]}], ".json", r"points \[n, 2\]"),
        ([{"image": IMAGE, "fixations": [[10**400, 2]]}], ".json", r"points \[n, 2\]"),
        ([{"image": IMAGE, "fixations": [[1e300, 2]]}], ".json", "1 of 1 fixations lie outside"),
        ('[{"image": "Stimuli/Action/001.jpg", "fixations": [[NaN, 2]]}]', ".json", "NaN or infinity"),
        ([{"image": "", "fixations": [[6, 0]]}], ".json", "entry 1 has no 'image'"),
        ([{"image": ".", "fixations": [[6, 0]]}], ".json", "it is a folder"),
        ([{"image": "a\0b", "fixations": [[6, 0]]}], ".json", r"cannot be read \(embedded null byte\)"),
        ([{"image": IMAGE, "fixations": LOCATIONS, "name": {}}], ".json", "entry 1: 'name' must be a string; got dict"),
        ([{"image": "x.jpg", "fixations": [[6, 0]]}], ".json", "x.jpg: no such image"),
        ([{"image": IMAGE, "fixations": "x.mat"}], ".json", "x.mat: no such fixation file"),
        ("a,b\n1,2\n", ".csv", "expected a header"),
        ("", ".csv", "expected a header"),
        ("image,x,y\n", ".csv", "the list is empty"),
        (f"image,x,y\n{IMAGE},1,\n", ".csv", "line 2: x and y must be numbers"),
        (f"image,x,y\n{IMAGE},1,2,3\n", ".csv", "line 2 has 4 cells; expected 3"),
        (f"image,fixations\n{IMAGE},{LOCATIONS},,\n", ".csv", "line 2 has 4 cells; expected 2"),
        (f"image,x,y\n{IMAGE},1\n", ".csv", "line 2: x and y must be numbers"),
        ("image,x,y\n,1,2\n", ".csv", "line 2 has no image"),
        (f"image,x,x,y\n{IMAGE},1,2,3\n", ".csv", "the header has a column twice: image, x, x, y"),
        (
            f"image,x,y,category\n{IMAGE},1,2,a\n{IMAGE},1,2,b\n",
            ".csv",
            "line 3: category 'b' of .*, which has 'a' in line 2",
        ),
        ("image,fixations\na.jpg,\n", ".csv", "line 2 has no image or no fixations"),
        ("", ".txt", "must be a .json or a .csv"),
    ],
)
def test_a_wrong_list_is_refused(root, content, suffix, message):
    with pytest.raises(InputError, match=message) as error:
        read(root, content, suffix)
    assert "\n" not in str(error.value)


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.json: no such list"):
        read_image_list(tmp_path / "none.json")


def test_bad_entries_can_be_left_out(root):
    entries = [{"image": "x.jpg", "fixations": [[6, 0]]}, {"image": IMAGE, "fixations": LOCATIONS}]
    dataset = read(root, entries, skip_bad=True)
    assert len(dataset) == 1 and dataset.skipped == [f"{root / 'x.jpg'}: no such image"]


@pytest.mark.parametrize("folder", [".", "lists", "lists/deep"])
def test_images_are_called_by_their_path_from_the_folder_that_holds_list_and_image(root, folder):
    place = root / folder
    place.mkdir(parents=True, exist_ok=True)
    for image in (str(root / IMAGE), os.path.relpath(root / IMAGE, place)):
        (found,) = read(place, [{"image": image, "fixations": [[1, 2]]}])
        assert found.name == "Stimuli/Action/001" and found.pixels().shape == (36, 64, 3)


def test_maps_of_images_with_absolute_names_lie_in_the_folder_of_maps(root, tmp_path):
    (tmp_path / "maps/Stimuli/Action").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "maps/Stimuli/Action/001.npy", np.eye(3))
    dataset = read(root, [{"image": str(root / IMAGE), "fixations": [[1, 2]]}])
    assert (MapFolder(tmp_path / "maps", dataset)(dataset[0].name) == np.eye(3)).all()
    with pytest.raises(InputError, match="empty/Stimuli/Action/001: no such map"):
        MapFolder(tmp_path / "empty", dataset)(dataset[0].name)


def test_a_line_break_within_quotes_ends_no_row(root):
    (image,) = read(root, f'image,note,x,y\n{IMAGE},"a\u2028b\nc",5,6\n', ".csv")
    assert image.fixations.pixels.tolist() == [6 * 64 + 5]
