"""Files appear whole or not at all, and what cannot be written is called by its own name."""

import json
import math

import pytest
import torch

from sact_det.files import replacing, writable_folder, write_json, write_torch

LARGE = {"json": list(range(30_000)), "torch": {"w": torch.arange(30_000)}}
WRITERS = pytest.mark.parametrize(("write", "content"), [(write_json, LARGE["json"]), (write_torch, LARGE["torch"])])


def everything(folder):
    return sorted(path.name for path in folder.rglob("*"))


def test_the_new_content_is_there_after_the_block_and_not_before(tmp_path):
    path = tmp_path / "folder" / "x.txt"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists() and temporary.suffix == ".txt"
    assert path.read_text() == "new"
    assert everything(tmp_path) == ["folder", "x.txt"]


@pytest.mark.parametrize("error", [ValueError("a defect"), KeyboardInterrupt(), OSError("says it all")])
def test_an_interrupted_write_leaves_the_old_content_and_no_debris(tmp_path, error):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(type(error)) as raised, replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert raised.value is error
    assert path.read_text() == "old" and everything(tmp_path) == ["x.txt"]


@WRITERS
def test_a_full_disk_leaves_the_old_file_and_is_named_with_it(tmp_path, full_disk, write, content):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="File too large") as error, full_disk(10_000):
        write(path, content)
    assert error.value.filename == str(path)
    assert path.read_bytes() == b"old" and everything(tmp_path) == ["x"]


@WRITERS
def test_a_folder_without_write_permission_is_named_with_the_file(locked_folder, write, content):
    with pytest.raises(PermissionError) as error:
        write(locked_folder / "x", content)
    assert error.value.filename == str(locked_folder / "x")


@pytest.mark.parametrize("relative", [True, False])
def test_a_target_that_is_a_folder_is_named(tmp_path, monkeypatch, relative):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    target = "x" if relative else str(tmp_path / "x")
    with pytest.raises(IsADirectoryError) as error:
        write_json(target, 1)
    assert error.value.filename == target and everything(tmp_path) == ["x"]


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError) as error:
        write_json(tmp_path / "file" / "x.json", 1)
    assert error.value.filename == str(tmp_path / "file")


def test_an_error_about_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as error, replacing(tmp_path / "x"):
        (tmp_path / "source").read_bytes()
    assert error.value.filename == str(tmp_path / "source")


def test_json_has_null_where_there_is_no_number(tmp_path):
    write_json(tmp_path / "x.json", {"AP": math.nan, "a": [math.inf, 1.5], "b": (None, "NaN")})
    assert json.loads((tmp_path / "x.json").read_text()) == {"AP": None, "a": [None, 1.5], "b": [None, "NaN"]}


def test_a_folder_is_made_and_stays_empty(tmp_path):
    assert writable_folder(tmp_path / "a/b") == tmp_path / "a/b"
    assert everything(tmp_path) == ["a", "b"]


def test_a_file_is_no_folder_to_write_to(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(OSError) as error:
            writable_folder(folder)
        assert error.value.filename == str(folder)


@pytest.mark.parametrize("below", ["", "new"])
def test_a_folder_without_write_permission_is_named(locked_folder, below):
    with pytest.raises(PermissionError) as error:
        writable_folder(locked_folder / below)
    assert error.value.filename == str(locked_folder / below)
