"""The library of kernels in the cache folder: used when it is whole and one's own, made again when it is not."""

import logging
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from numpy.random import mtrand

from sact_det.execution.cpu import compiler, library

NOBODY = 65534

pytestmark = pytest.mark.skipif(library.why_unavailable() is not None, reason=str(library.why_unavailable()))

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The real library as a file, so that no test has to compile."""
    path = tmp_path_factory.mktemp("compiled") / "rows.so"
    real = Path(library.load_library.__wrapped__()._name)
    shutil.copyfile(real, path)
    return path


@pytest.fixture
def compilations(tmp_path, compiled, monkeypatch):
    """Stands for every compiler; a file to which each compilation adds a line."""
    log = tmp_path / "compilations"
    log.touch()
    return make_compiler(tmp_path, monkeypatch, f'echo once >> {log}\nfor last; do true; done\ncp {compiled} "$last"\n')


def make_compiler(folder, monkeypatch, script, version="echo 1.0"):
    """A compiler in $CXX, and none elsewhere; returns the log that it may write."""
    path = folder / "bin" / "c++"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then {version}; exit; fi\n{script}')
    path.chmod(0o755)
    monkeypatch.setenv("CXX", str(path))
    monkeypatch.setattr(compiler, "NAMES", ())
    return folder / "compilations"


def count(compilations):
    return len(compilations.read_text().splitlines())


def load():
    """What a new process would load; calls a function of it."""
    loaded = library.load_library.__wrapped__()
    assert loaded.lanes() in (1, 4, 8, 16)
    return loaded


def kept(folder):
    (path,) = folder.rglob("rows-*.so")
    return path


def test_a_library_is_compiled_once_and_kept_with_its_checksum(own_cache, compilations):
    for _ in range(3):
        load()
    assert count(compilations) == 1
    assert sorted(path.name for path in own_cache.iterdir()) == [kept(own_cache).name, f"{kept(own_cache).name}.sha256"]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # a process that changes a file which it has mapped crashes, at its end at the latest
    path.write_bytes(content)


DAMAGES = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "a bit": flip,
    "another library": lambda path: shutil.copyfile(mtrand.__file__, path),
    "no checksum": lambda path: Path(f"{path}.sha256").unlink(),
    "empty checksum": lambda path: os.truncate(f"{path}.sha256", 0),
    "binary checksum": lambda path: Path(f"{path}.sha256").write_bytes(b"\xff" * 64),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_library_is_made_again(own_cache, compilations, damage):
    load()
    path = kept(own_cache)
    damaged = path.with_name("damaged")  # the file that this process has mapped must not change
    shutil.copyfile(path, damaged)
    os.replace(damaged, path)
    path.chmod(0o755)
    damage(path)
    load()
    assert count(compilations) == 2
    if path.is_file():
        load()
        assert count(compilations) == 2


@as_root
@pytest.mark.parametrize("which", ["file", "folder"])
@pytest.mark.parametrize("change", [lambda path: os.chown(path, NOBODY, -1), lambda path: os.chmod(path, 0o777)])
def test_a_library_that_others_may_have_written_is_not_loaded(own_cache, compilations, caplog, which, change):
    caplog.set_level(logging.INFO)
    load()
    path = kept(own_cache)
    change(path if which == "file" else own_cache)
    before = path.read_bytes()
    load()
    assert count(compilations) == 2
    load()
    assert count(compilations) == 2  # the new one is kept, too
    if which == "file":
        assert f"{path} is not used: another user owns it, or may write to it" in caplog.text
    else:
        assert path.read_bytes() == before and list(own_cache.glob("user-*/rows-*.so"))


@as_root
def test_the_folder_that_another_user_made_for_one_is_not_used(own_cache, compilations):
    own_cache.chmod(0o777)
    planted = own_cache / f"user-{os.geteuid()}"
    planted.mkdir()
    os.chown(planted, NOBODY, -1)
    load()
    assert count(compilations) == 1 and not list(planted.iterdir())


def test_a_kept_library_serves_without_a_compiler(own_cache, compilations, monkeypatch, tmp_path):
    load()
    monkeypatch.setenv("CXX", "no-such-compiler")
    load()
    make_compiler(tmp_path, monkeypatch, "exit 1\n", version="echo 2.0")
    load()
    assert count(compilations) == 1
    flip(kept(own_cache))
    with pytest.raises(library.LibraryUnavailable, match="failed: no message"):
        load()


def test_another_compiler_makes_a_library_of_its_own(own_cache, compiled, compilations, monkeypatch, tmp_path):
    load()
    make_compiler(tmp_path, monkeypatch, f'for last; do true; done\ncp {compiled} "$last"\n', version="echo 2.0")
    load()
    assert len(list(own_cache.glob("rows-*.so"))) == 2


def test_a_full_cache_disk_costs_a_compilation_in_every_process(own_cache, compilations, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(library.shutil, "copyfile", full)
        for _ in range(2):
            load()
    assert count(compilations) == 2 and not list(own_cache.iterdir())


@pytest.mark.parametrize("cache", ["/proc/nowhere", "/dev/null", "/dev/null/below"])
def test_a_cache_folder_that_cannot_be_made_costs_a_compilation(compilations, monkeypatch, cache):
    monkeypatch.setenv("SACT_DET_CACHE", cache)
    load()
    assert count(compilations) == 1


def test_a_relative_cache_folder_is_no_name_of_a_system_library(tmp_path, compilations, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SACT_DET_CACHE", ".")
    for _ in range(2):
        load()
    assert count(compilations) == 1


PROGRAM = "from sact_det.execution.cpu import library; print(library.load_library().lanes())"


def test_processes_that_start_together_all_have_a_whole_library(own_cache, compilations):
    changes = "from sact_det.execution.cpu import compiler; compiler.NAMES = (); "
    command = [sys.executable, "-c", changes + PROGRAM]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = {process.communicate()[0] for process in started}
    assert len(outputs) == 1 and outputs.pop().strip().isdigit()
    before = count(compilations)
    load()
    assert count(compilations) == before


# Compilers

BROKEN = {
    "exits": ("exit 3\n", "c++ failed: no message (exit status 3)"),
    "says why": ("echo first >&2; echo 'rows.cpp:1: no' >&2; exit 1\n", "c++ failed: rows.cpp:1: no"),
    "crashes": ("kill -SEGV $$\n", "c++ failed: no message (exit status -11)"),
    "writes nothing": ("exit 0\n", "c++ failed: no message (exit status 0)"),
    "writes no library": ("for last; do true; done; echo text > $last\n", "made cannot be loaded: "),
    "writes bytes": ("printf '\\377\\n' >&2; exit 1\n", "c++ failed: \ufffd"),
}


@pytest.mark.parametrize(("script", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_compiler_is_a_reason_and_leaves_nothing(own_cache, tmp_path, monkeypatch, script, message):
    make_compiler(tmp_path, monkeypatch, script)
    with pytest.raises(library.LibraryUnavailable) as error:
        library.load_library.__wrapped__()
    assert message in str(error.value)
    assert not list(own_cache.iterdir())


@pytest.mark.parametrize("content", [b"#!/no/such/interpreter\n", b"\x7fELF, but no program", b""])
def test_a_compiler_that_cannot_be_run_is_a_reason(own_cache, tmp_path, monkeypatch, content):
    make_compiler(tmp_path, monkeypatch, "")
    path = Path(os.environ["CXX"])
    path.write_bytes(content)
    with pytest.raises(library.LibraryUnavailable, match=f"no C.. compiler .*; {re.escape(str(path))} cannot be run"):
        library.load_library.__wrapped__()


def test_the_next_compiler_is_taken_where_one_cannot_be_run(own_cache, compilations, tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "NAMES", (os.environ["CXX"],))
    broken = tmp_path / "broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o755)
    for chosen in (str(broken), "no-such-compiler", "'unbalanced", str(tmp_path), " "):
        monkeypatch.setenv("CXX", chosen)
        load()
    assert count(compilations) == 1


def test_words_behind_the_name_of_a_compiler_are_its_arguments(own_cache, compilations, monkeypatch):
    monkeypatch.setenv("CXX", f"env {os.environ['CXX']}")
    load()
    assert count(compilations) == 1


@pytest.mark.parametrize("when", ["version", "compilation"])
def test_a_compiler_that_hangs_is_ended_with_all_that_it_started(own_cache, tmp_path, monkeypatch, when):
    hangs = f"sleep 600 & echo $! > {tmp_path}/child; wait"
    make_compiler(tmp_path, monkeypatch, hangs + "\n", hangs if when == "version" else "echo 1.0")
    monkeypatch.setattr(compiler, "ANSWER_S", 1)
    monkeypatch.setattr(compiler, "COMPILATION_S", 1)
    start = time.monotonic()
    with pytest.raises(library.LibraryUnavailable, match=r"c\+\+ does not end \(within 1 s\)"):
        library.load_library.__wrapped__()
    assert time.monotonic() - start < 30
    with pytest.raises(ProcessLookupError):
        for _ in range(100):  # the system reaps it
            os.kill(int((tmp_path / "child").read_text()), 0)
            time.sleep(0.05)
