"""COCO's panoptic format: ids of pixels, instances of things, and what is refused in one line."""

import numpy as np
import pytest
from coco_folder import read_json, write_json
from panoptic_folder import write_panoptic_folder
from pycocotools import mask as rle

from sact_det.base.errors import InputError
from sact_det.data.coco_panoptic import ids_of, instances_of, pixels_of, read_panoptic, read_png

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools


@pytest.fixture
def files(tmp_path):
    return write_panoptic_folder(tmp_path, num_images=2)


def test_every_id_has_its_colour():
    ids = np.array([[0, 1, 255], [256, 65_535, 256**3 - 1]], np.int32)
    assert np.array_equal(ids_of(pixels_of(ids)), ids)
    assert pixels_of(ids)[1, 0].tolist() == [0, 1, 0]  # red is the lowest byte


def test_things_and_stuff_are_told_apart(files):
    panoptic = read_panoptic(files[0])
    assert (panoptic.things, panoptic.stuff) == ({3: "box", 8: "bar"}, {5: "sky", 9: "sea"})
    assert [one.id for one in panoptic.images[0].segments] == [70_000, 2, 300, 4]


def test_instances_are_things_with_the_pixels_that_they_have_to_themselves(files):
    content = instances_of(files[0], files[1])
    assert [one["category_id"] for one in content["annotations"]] == [3, 8, 3, 8]
    ids = ids_of(read_png(f"{files[1]}/1.png", (content["images"][0]["height"], content["images"][0]["width"])))
    for one, segment in zip(content["annotations"], (300, 4)):
        assert np.array_equal(rle.decode(one["segmentation"]), ids == segment)
        assert one["bbox"] == rle.toBbox(one["segmentation"]).tolist()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda c: c["annotations"][0].pop("segments_info"),
            r"annotations\[0\]: no list 'segments_info'; expected a file",
        ),
        (lambda c: [one["segments_info"].clear() for one in c["annotations"]], "no image has segments"),
        (lambda c: c["categories"][1].pop("isthing"), "category 5: isthing must be 0 or 1; got null"),
        (lambda c: c["annotations"][1].update(image_id=1), r"annotations\[1\]: image_id 1 is not in 'images', or has"),
        (lambda c: c["annotations"][0].pop("file_name"), r"annotations\[0\]: file_name must be the name of a PNG"),
        (
            lambda c: c["annotations"][0]["segments_info"][0].update(id=0),
            r"segments_info\[0\]: id must be a whole number",
        ),
        (
            lambda c: c["annotations"][0]["segments_info"][1].update(category_id=4),
            r"category_id 4 is not in 'categories'",
        ),
        (
            lambda c: c["annotations"][0]["segments_info"][2].pop("bbox"),
            r"segments_info\[2\]: bbox must be four finite",
        ),
    ],
)
def test_what_is_no_panoptic_json_is_named(files, edit, message):
    content = read_json(files[0])
    edit(content)
    write_json(files[0], content)
    with pytest.raises(InputError, match=f"^{files[0]}: .*{message}") as error:
        read_panoptic(files[0])
    assert "\n" not in str(error.value)


def test_a_png_of_another_size_is_named(files, tmp_path):
    with pytest.raises(InputError, match=r"1.png: must be an image of \[5, 5\] \(height, width\)"):
        read_png(f"{files[1]}/1.png", (5, 5))
    with pytest.raises(InputError, match="no such PNG"):
        read_png(tmp_path / "none.png", (5, 5))
    (tmp_path / "broken.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"broken.png: must be an image of .*got no image"):
        read_png(tmp_path / "broken.png", (5, 5))
