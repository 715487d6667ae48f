"""Folders for files in the making, locked for as long as their process lives; those of killed processes are removed."""

import contextlib
import fcntl
import functools
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Iterator

PREFIX = ".sact_det-unfinished-"


@contextlib.contextmanager
def unfinished_folder(parent: Path) -> Iterator[Path]:
    """A temporary folder in `parent`, which exists.

    Before a process makes its first one there, it removes those that killed processes of the same user left.

    Raises:
        OSError: it cannot be made.
    """
    _remove_abandoned(os.path.realpath(parent))
    folder, descriptor = _make_locked(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _make_locked(parent: Path) -> tuple[Path, int]:
    while True:
        folder = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        except OSError:  # a file system that locks no folders (NFS): nobody will take it for an abandoned one
            return Path(folder), descriptor
        else:
            if os.path.exists(folder):
                return Path(folder), descriptor
        os.close(descriptor)  # another process took it for an abandoned one before it was locked


@functools.lru_cache(maxsize=None)
def _remove_abandoned(parent: str) -> None:
    """Once in a process: a folder may hold thousands of files."""
    with contextlib.suppress(OSError), os.scandir(parent) as entries:  # what can be written need not be readable
        for entry in entries:
            if entry.name.startswith(PREFIX):
                _remove_if_abandoned(entry.path)


def _remove_if_abandoned(folder: str) -> None:
    with contextlib.suppress(OSError):  # it is locked, gone, or no folder
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(descriptor)
            if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == 0o700:
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)
