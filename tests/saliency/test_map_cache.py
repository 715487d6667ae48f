"""Maps are made once for each fingerprint; what is broken is made again; what cannot be kept is said."""

import json
import logging
import re

import numpy as np
import pytest

from sact_det.base.errors import InputError
from saliency.cache import MapCache

NAMES = ["Action/001", "Action/002", "../up", "a b", "x" * 60]


def extract(name):
    return np.full((3, 4), len(name), np.float64)


def test_maps_come_back_as_they_were_put(tmp_path):
    cache = MapCache(tmp_path, {"weights": "abc"})
    values = np.random.default_rng(0).random((3, 4)).astype(np.float32)
    for name in NAMES:
        cache.put(name, values)
        assert (cache(name) == values).all()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == len(NAMES) + 1 and not (tmp_path.parent / "up.npz").exists()


def test_an_interrupted_extraction_goes_on_where_it_was(tmp_path):
    made = []

    def interrupted(name):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(name)
        return extract(name)

    with pytest.raises(KeyboardInterrupt):
        MapCache(tmp_path, {"model": 1}).fill(NAMES, interrupted)
    cache = MapCache(tmp_path, {"model": 1})
    assert cache.missing(NAMES) == NAMES[2:]
    assert cache.fill(NAMES, extract) == 3 and cache.fill(NAMES, extract) == 0 and cache.missing(NAMES) == []


def test_another_fingerprint_sees_none_of_the_maps(tmp_path):
    first = MapCache(tmp_path, {"weights": "abc", "input": (180, 320)})
    first.put("a", extract("a"))
    assert "a" in MapCache(tmp_path, {"input": [180, 320], "weights": "abc"})
    assert "a" not in MapCache(tmp_path, {"weights": "abd", "input": (180, 320)})
    with pytest.raises(InputError, match="the map of 'b' is not in the cache"):
        first("b")
    described = [json.loads(path.read_text()) for path in tmp_path.glob("*/fingerprint.json")]
    assert {"weights": "abc", "input": [180, 320]} in described and len(described) == 2


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut"])
def test_a_broken_file_is_made_again(tmp_path, content, caplog):
    cache = MapCache(tmp_path, {})
    cache.put("a", extract("a"))
    (file,) = tmp_path.glob("*/a.npz")
    file.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert cache.fill(["a"], extract) == 1
    assert "a.npz: broken, will be made again" in caplog.text and (cache("a") == 1).all()


def test_pickles_are_not_opened(tmp_path, caplog):
    cache = MapCache(tmp_path, {})
    cache.put("a", extract("a"))
    (file,) = tmp_path.glob("*/a.npz")
    np.savez(file, map=np.array([[{}]], object))
    assert cache.get("a") is None and "allow_pickle=False" in caplog.text
    np.savez(file, map=np.zeros(3))
    assert cache.get("a") is None and "holds no map" in caplog.text


@pytest.mark.parametrize("values", [np.full((3, 4), np.nan), np.zeros(3), np.zeros((0, 3)), np.array([["a"]])])
def test_what_is_no_map_is_not_kept(tmp_path, values):
    cache = MapCache(tmp_path, {})
    with pytest.raises(InputError, match="the map of 'a' must be finite numbers"):
        cache.put("a", values)
    assert "a" not in cache


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (np.full((3, 4), np.nan), r"must be finite numbers \[H, W\]"),
        (np.zeros((4, 3)), r"must be \[3, 4\]; got \[4, 3\]"),
        (np.zeros((3, 4, 1)), "must be finite numbers"),
        (np.zeros((0, 0)), "must be finite numbers"),
    ],
)
def test_a_map_that_is_another_than_expected_is_made_again(tmp_path, caplog, values, problem):
    cache = MapCache(tmp_path, {}, {"a": (3, 4)})
    with pytest.raises(InputError, match=f"the map of 'a' {problem}"):
        cache.put("a", values)
    cache.put("a", extract("a"))
    (file,) = tmp_path.glob("*/a.npz")
    np.savez(file, map=values.astype(np.float32))
    assert cache.fill(["a"], extract) == 1 and (cache("a") == 1).all()
    assert re.search(f"holds no map, will be made again .it {problem}", caplog.text)


def test_names_of_any_length_have_files_of_their_own(tmp_path):
    cache, names = MapCache(tmp_path, {}), [f"{'a/' * 200}{number}" for number in range(3)]
    for number, name in enumerate(names):
        cache.put(name, np.full((1, 1), number))
    assert [cache(name).item() for name in names] == [0, 1, 2]


def test_a_folder_that_cannot_be_written_is_named(locked_folder):
    with pytest.raises(InputError, match="locked: not a cache folder that can be written"):
        MapCache(locked_folder, {})


def test_a_file_is_no_cache_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: not a cache folder"):
        MapCache(tmp_path / "file", {})


def test_a_full_disk_leaves_no_half_a_map(tmp_path, full_disk):
    cache = MapCache(tmp_path, {})
    with full_disk(200), pytest.raises(InputError, match=r"a\.npz: the map cannot be written"):
        cache.put("a", np.zeros((100, 100)))
    assert "a" not in cache and not list(tmp_path.glob("*/a.npz")) and not list(tmp_path.glob("*/.a*"))


def test_a_fingerprint_must_be_something_that_can_be_written_down(tmp_path):
    with pytest.raises(InputError, match="a fingerprint must be made of what JSON knows"):
        MapCache(tmp_path, {"model": object()})
