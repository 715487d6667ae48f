"""Files appear whole or not at all, and what cannot be written is called by its own name."""

import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sact_det.base.errors import InputError
from sact_det.base.files import replacing, writable_file, writable_folder, write_json, write_torch

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


def test_json_that_is_nested_too_deeply_is_named_and_nothing_is_written(tmp_path):
    value = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(InputError, match=r"x\.json: what is to be written there is nested too deeply"):
        write_json(tmp_path / "x.json", value)
    assert everything(tmp_path) == []


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


# What is no regular file


def make_device(path):
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))  # as /dev/null
    except PermissionError:
        pytest.skip("only root makes devices")


@pytest.fixture(params=["a device", "a pipe", "a socket"])
def special_file(request, tmp_path, monkeypatch):
    """A file that is not regular, and what it is."""
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    path = tmp_path / "special"
    with contextlib.ExitStack() as stack:
        if request.param == "a device":
            make_device(path)
        elif request.param == "a pipe":
            os.mkfifo(path)
        else:
            stack.enter_context(socket.socket(socket.AF_UNIX)).bind("special")
        yield path, request.param


@WRITERS
def test_what_is_no_regular_file_is_refused_and_stays(special_file, write, content):
    path, kind = special_file
    before = os.lstat(path)
    for target in (path, path.with_name("link")):
        if target != path:
            target.symlink_to(path)
        with pytest.raises(OSError, match=f"is {kind}; expected a regular file, or none yet") as error:
            write(target, content)
        assert error.value.filename == str(target)
    assert os.lstat(path) == before and everything(path.parent) == ["link", "special"]


def test_a_link_stays_a_link_and_its_file_is_replaced(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "x.json").write_text("old")
    (tmp_path / "x.json").symlink_to("disk/x.json")
    (tmp_path / "new.json").symlink_to("disk/new.json")
    for name in ("x.json", "new.json"):
        write_json(tmp_path / name, 1)
        assert (tmp_path / name).is_symlink() and (tmp_path / "disk" / name).read_text() == "1\n"
    assert everything(tmp_path) == ["disk", "new.json", "new.json", "x.json", "x.json"]


def test_links_in_a_ring_are_named(tmp_path):
    (tmp_path / "x").symlink_to(tmp_path / "y")
    (tmp_path / "y").symlink_to(tmp_path / "x")
    with pytest.raises(OSError, match="Too many levels") as error:
        write_json(tmp_path / "x", 1)
    assert error.value.filename == str(tmp_path / "x")


def test_whether_a_file_can_be_written_is_known_beforehand(tmp_path, special_file):
    assert writable_file(tmp_path / "folder" / "x.json") == tmp_path / "folder" / "x.json"
    assert (tmp_path / "folder").is_dir() and not list((tmp_path / "folder").iterdir())
    for refused, kind in ((special_file[0], "is a "), (tmp_path / "folder", "Is a directory")):
        with pytest.raises(OSError, match=kind):
            writable_file(refused)


def test_a_file_in_a_folder_without_write_permission_is_refused_beforehand(locked_folder):
    with pytest.raises(PermissionError):
        writable_file(locked_folder / "x.json")


# Runs that were killed

WRITES_FOR_EVER = """
import sys, time
from sact_det.base.files import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_bytes(bytes(1000))
    print("writing", flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def writing(path: Path):
    """Another process in the middle of writing `path`."""
    command = [sys.executable, "-c", WRITES_FOR_EVER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "writing\n"
            yield process
        finally:
            process.kill()


def unfinished(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir()}


def test_what_a_killed_run_left_is_removed_by_the_next_and_what_a_living_one_writes_is_not(tmp_path):
    with writing(tmp_path / "a.pth") as killed:
        left = unfinished(tmp_path)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert len(left) == 1 and unfinished(tmp_path) == left
    with writing(tmp_path / "b.pth") as living:
        of_living = unfinished(tmp_path)
        assert len(of_living) == 1 and not of_living & left
        write_json(tmp_path / "c.json", 1)
        assert unfinished(tmp_path) == of_living and living.poll() is None


def test_only_folders_of_this_kind_are_removed(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "x").touch()
    (tmp_path / ".sact_det-unfinished-file").touch()
    (tmp_path / ".sact_det-unfinished-link").symlink_to(kept)
    (tmp_path / ".sact_det-unfinished-shared").mkdir(mode=0o755)
    before = everything(tmp_path)
    write_json(tmp_path / "kept" / ".." / "c.json", 1)
    assert everything(tmp_path) == sorted([*before, "c.json"])
