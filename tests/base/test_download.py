"""Files from a server on this machine: whole or not at all, gone on with where they broke off."""

import hashlib
import multiprocessing
import os
import re

import pytest
from file_server import serve

from sact_det.base.download import fetch
from sact_det.base.errors import InputError

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    with serve({"/weights.bin": CONTENT}) as server:
        yield server


def url(server):
    return f"{server.address}/weights.bin"


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_a_file_arrives_whole_and_is_fetched_once(server, tmp_path):
    path = tmp_path / "w.bin"
    for _ in range(2):
        assert fetch(url(server), path, len(CONTENT), SHA256) == path
    assert path.read_bytes() == CONTENT and names(tmp_path) == ["w.bin"] and len(server.requests) == 1


def test_what_broke_off_goes_on_where_it_was(server, tmp_path):
    server.breaks_after = 5000
    with pytest.raises(InputError, match=r"broke off after 5,000 of 10,240 bytes; the same command goes on"):
        fetch(url(server), tmp_path / "w.bin")
    assert not (tmp_path / "w.bin").exists()
    server.breaks_after = None
    assert fetch(url(server), tmp_path / "w.bin", sha256=SHA256).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, "bytes=5000-"] and names(tmp_path) == ["w.bin"]


@pytest.mark.parametrize("change", ["no ranges", "another file", "no validator", "all of it, and more"])
def test_what_broke_off_begins_anew_where_the_server_does_not_go_on_with_the_same_file(server, tmp_path, change):
    if change == "no validator":
        server.validator = None
    server.breaks_after = 5000
    with pytest.raises(InputError):
        fetch(url(server), tmp_path / "w.bin")
    server.breaks_after = None
    content = CONTENT
    if change == "no ranges":
        server.ranges = False
    elif change == "another file":
        server.validator, content = '"two"', CONTENT[::-1]
    elif change == "all of it, and more":
        content = CONTENT[:4000]
    server.files["/weights.bin"] = content
    assert fetch(url(server), tmp_path / "w.bin").read_bytes() == content


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"size": 7}, "it has 10,240 bytes, expected 7: it is damaged, or another file"),
        ({"sha256": "0" * 64}, f"its SHA-256 is {SHA256}, expected {'0' * 64}: it is damaged, or another file"),
    ],
)
def test_another_file_than_the_known_one_is_not_kept(server, tmp_path, known, message):
    with pytest.raises(InputError, match=re.escape(message)):
        fetch(url(server), tmp_path / "w.bin", **known)
    assert names(tmp_path) == []


def test_what_cannot_be_fetched_is_said_in_one_line(server, tmp_path):
    for address, message in (
        (f"{server.address}/other", "the server answers 404 Not Found"),
        ("http://127.0.0.1:9/w", "cannot be reached"),
        ("ftp://127.0.0.1/w", "expected an address that begins with http:// or https://"),
    ):
        with pytest.raises(InputError, match=message) as error:
            fetch(address, tmp_path / "w.bin")
        assert str(error.value).startswith(address) and "\n" not in str(error.value)
    assert "w.bin" not in names(tmp_path)


def _fetch(address, path):
    fetch(address, path, sha256=SHA256)
    os._exit(0)


def test_processes_that_want_the_same_file_fetch_it_once(server, tmp_path):
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_fetch, args=(url(server), tmp_path / "w.bin")) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0] and len(server.requests) == 1
    assert (tmp_path / "w.bin").read_bytes() == CONTENT
