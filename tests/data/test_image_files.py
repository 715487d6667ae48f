import os
import time

import pytest

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
        tmp_path: "the image cannot be read: it is a folder",
        tmp_path / "pipe.jpg": "the image cannot be read: it is a pipe",
        tmp_path / "none.jpg": "no such image",
        f"{tmp_path}/a\0b": "the image cannot be read: embedded null byte",
    }
    for path, problem in cases.items():
        with pytest.raises(InputError) as error:
            read_checked(path)
        assert str(error.value) == f"{path}: {problem}"
