import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sact_det.base.errors import InputError
from sact_det.data.image_files import distinct_stems, find_images, read_checked


def test_images_of_data_sets_get_names_that_files_can_have():
    names = [
        "data/test.npz: image 7",
        "a.tar.gz: data_batch_1: image 12",
        "val.tar: ILSVRC2012_val_1.JPEG",
        "b/c.d.png",
    ]
    assert distinct_stems(names) == [
        "test.npz_image_7",
        "a.tar.gz_data_batch_1_image_12",
        "val.tar_ILSVRC2012_val_1",
        "c.d",
    ]


def test_a_name_with_blanks_stays_as_it_is():
    assert distinct_stems(["my cat.jpg", "../..", "a/.hidden"]) == ["my cat", "..", ".hidden"]


def test_numbers_of_equal_names_do_not_meet_other_names():
    assert distinct_stems(["a.png", "a.png", "A.jpg", "a_3.png", "a.bmp"]) == ["a", "a_2", "A_4", "a_3", "a_5"]


def test_many_equal_names_take_no_time():
    start = time.process_time()
    stems = distinct_stems([f"{number}/image.png" for number in range(20_000)])
    assert len(set(stems)) == 20_000 and stems[-1] == "image_20000"
    assert time.process_time() - start < 5


def test_hidden_files_and_folders_are_no_images(tmp_path):
    for name in ("a.jpg", "._a.jpg", ".hidden.png", "b.PNG", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.jpg").mkdir()
    assert [path.name for path in find_images([str(tmp_path)])] == ["a.jpg", "b.PNG"]
    assert [path.name for path in find_images([str(tmp_path / "*.[jP]*")])] == ["a.jpg", "b.PNG"]


def test_what_is_no_file_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    cases = {
        tmp_path: "cannot be read (it is a folder); expected a regular image file",
        tmp_path / "pipe.jpg": "cannot be read (it is a pipe); expected a regular image file",
        tmp_path / "none.jpg": "no such image",
        f"{tmp_path}/a\0b": "cannot be read (embedded null byte)",
    }
    for path, problem in cases.items():
        with pytest.raises(InputError) as error:
            read_checked(path)
        assert str(error.value) == f"{path}: {problem}"


def test_a_file_with_a_globs_characters_in_its_name_is_found(tmp_path):
    (tmp_path / "a[1].png").touch()
    assert find_images([str(tmp_path / "a[1].png")]) == [tmp_path / "a[1].png"]


def test_stems_never_collide():
    stems = distinct_stems([Path(p) for p in ("a/cat.jpg", "b/cat.png", "c/cat_2.jpg", "d/Cat.jpg", "e/dog.jpg")])
    assert stems == ["cat", "cat_3", "cat_2", "Cat_4", "dog"]


def test_an_image_upside_down_in_its_exif_is_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate 90 degrees clockwise
    Image.new("RGB", (80, 60)).save(tmp_path / "rotated.jpg", exif=exif)
    assert read_checked(tmp_path / "rotated.jpg", "RGB").shape == (80, 60, 3)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "I;16"])
def test_every_kind_of_image_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    Image.new(mode, (40, 30)).save(path)
    image = read_checked(path, "RGB")
    assert image.shape == (30, 40, 3) and image.dtype == np.uint8


def test_a_missing_image_is_named():
    with pytest.raises(InputError, match="nowhere"):
        read_checked("nowhere.jpg", "RGB")
