"""Where files lie in tars: found by reading the tars once, and known from then on until a tar changes."""

import os

import numpy as np
import pytest
from tar_files import tar_of

from sact_det.data import tar_index as module
from sact_det.data.tar_index import tar_index


@pytest.fixture
def tars(tmp_path):
    """Of files, and of tars of files."""
    flat, nested = tmp_path / "flat.tar", tmp_path / "nested.tar"
    flat.write_bytes(tar_of([("b", b"bb"), ("folder/a", b"")]))
    nested.write_bytes(
        tar_of([("y.tar", tar_of([("c", b"c" * 1000)])), ("x.tar", tar_of([("d", b"d"), ("e", b"ee")]))])
    )
    return [flat, nested]


CONTENTS = [
    ("flat", "b", b"bb"),
    ("flat", "folder/a", b""),
    ("y", "c", b"c" * 1000),
    ("x", "d", b"d"),
    ("x", "e", b"ee"),
]


def contents(tars, index):
    files = []
    for archive, name, (offset, size) in zip(index.archive, index.names, index.ranges, strict=True):
        content = tars[index.tar[archive]].read_bytes()[offset : offset + size]
        files.append((str(index.archives[archive]), os.fsdecode(name), content))
    return files


@pytest.fixture
def searches(monkeypatch):
    """Grows by a list of tars whenever they are looked through."""
    log, find = [], module._find
    monkeypatch.setattr(module, "_find", lambda tars: (log.append(tars), find(tars))[1])
    return log


def test_the_index_tells_archive_name_and_bytes_of_every_file(tars, own_cache):
    assert contents(tars, tar_index(tars)) == CONTENTS


def test_a_second_index_is_read_from_the_cache_and_the_same(tars, own_cache, searches):
    first, second = tar_index(tars), tar_index(tars)
    assert searches == [tars] and contents(tars, second) == CONTENTS
    for name, value in vars(first).items():
        assert vars(second)[name].dtype == value.dtype
        np.testing.assert_array_equal(vars(second)[name], value)


def test_another_spelling_of_a_path_finds_the_same_index(tars, own_cache, searches, monkeypatch):
    tar_index(tars)
    monkeypatch.chdir(tars[0].parent)
    tar_index([tars[0].relative_to(tars[0].parent), tars[1]])
    assert len(searches) == 1


def rewrite(path):
    path.write_bytes(tar_of([("b", b"bb"), ("folder/a", b"more")]))


def touch(path):
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("change", [rewrite, touch])
def test_a_changed_tar_is_looked_through_again(tars, own_cache, searches, change):
    tar_index(tars)
    change(tars[0])
    assert contents(tars, tar_index(tars))[2:] == CONTENTS[2:]
    assert len(searches) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no index"),
        lambda path: path.write_bytes(path.read_bytes()[:400]),
        lambda path: np.savez(path, archives=np.array(["flat"])),
        lambda path: np.savez(path, archives=np.array([{}], object)),
    ],
    ids=["empty", "foreign", "cut", "incomplete", "pickled"],
)
def test_a_damaged_cache_is_replaced(tars, own_cache, searches, damage):
    tar_index(tars)
    (kept,) = own_cache.iterdir()
    whole = kept.read_bytes()
    damage(kept)
    assert contents(tars, tar_index(tars)) == CONTENTS
    assert len(searches) == 2 and kept.read_bytes() == whole


def test_without_a_writable_cache_the_tars_are_looked_through_every_time(tars, searches, monkeypatch):
    monkeypatch.setenv("SACT_DET_CACHE", "/proc/nowhere")
    for _ in range(2):
        assert contents(tars, tar_index(tars)) == CONTENTS
    assert len(searches) == 2
