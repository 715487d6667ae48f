"""Files appear whole or not at all; what can be read and what can be written is known beforehand."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any, Iterable, Iterator, Optional, Union

from sact_det.base.errors import InputError
from sact_det.base.unfinished import PREFIX, unfinished_folder

_KINDS = {stat.S_IFBLK: "a device", stat.S_IFCHR: "a device", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def why_not_regular(path: Union[str, Path]) -> Optional[str]:
    """What a path is instead of a regular file: "a folder", "a device", "a pipe", "a socket"; None if it is one.

    Links are followed. Nothing is opened, which might wait for ever.

    Raises:
        OSError: there is nothing, or it cannot be looked at.
    """
    mode = os.stat(path).st_mode
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "a folder")


def check_input(path: Union[str, Path], what: str = "file", missing: str = "") -> None:
    """Raises InputError, naming the file, if it is missing, no regular one or cannot be opened. A pipe may never end.

    Args:
        path: of a file to be read.
        what: to call it.
        missing: what to say of one that does not exist; "": that there is no such `what`.
    """
    try:
        found = why_not_regular(path)
        if found is None:
            with open(path, "rb"):
                return
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path}: {missing or f'no such {what}'}") from error
    except (OSError, ValueError) as error:  # ValueError: no name of a file
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    raise InputError(f"{path}: cannot be read (it is {found}); expected a regular {what}")


def read_bytes(path: Union[str, Path], what: str = "file", missing: str = "") -> bytes:
    """The content of a regular file. Arguments and errors are those of `check_input`."""
    check_input(path, what, missing)
    return Path(path).read_bytes()


def check_output(path: Union[str, Path]) -> None:
    """Raises OSError, naming `path`, if something else than a regular file is in the place of a file to be written."""
    try:
        found = why_not_regular(path)
    except (FileNotFoundError, NotADirectoryError):  # making its folder will say what is wrong
        return
    if found == "a folder":
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if found is not None:
        raise OSError(errno.EINVAL, f"is {found}; expected a regular file, or none yet", str(path))


@contextlib.contextmanager
def replacing(path: Union[str, Path]) -> Iterator[Path]:
    """Yields a temporary path beside `path`, renamed to `path` on success and removed on failure.

    Until the rename, what was at `path` stays as it was: on a full disk, without permission, after an interrupt.
    The temporary name keeps the suffix, so that writers that choose a format by it do. Where `path` is a link, it stays
    one, and the file that it leads to is replaced.

    Raises:
        OSError: it cannot be written, or is a folder, a device, a pipe or a socket; the error names `path`, not the
            temporary file.
    """
    path = Path(path)
    check_output(path)
    try:
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        target.parent.mkdir(parents=True, exist_ok=True)
        with unfinished_folder(target.parent) as folder:
            temporary = folder / target.name
            yield temporary
            os.replace(temporary, target)
    except OSError as error:
        # A full disk names no file; what names another one (which the caller reads, say) stays as it is.
        if error.errno is None or PREFIX not in str(error.filename or PREFIX):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextlib.contextmanager
def locked(path: Union[str, Path]) -> Iterator[None]:
    """One process at a time; the others wait. The file `path` is made if missing, and stays. Raises OSError."""
    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def writable_folder(path: Union[str, Path]) -> Path:
    """Makes the folder if it is missing, and finds out before any work whether it can be written.

    Raises:
        OSError: it cannot; the error names `path`.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def writable_file(path: Union[str, Path]) -> Path:
    """Finds out before any work whether a file can be written; makes its folder if it is missing.

    Raises:
        OSError: it cannot; the error names `path` or its folder.
    """
    check_output(path)
    writable_folder(Path(path).parent)
    return Path(path)


def write_text(path: Union[str, Path], text: str) -> None:
    """Writes a text as UTF-8. Raises OSError if `path` cannot be written."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_lines(path: Union[str, Path], lines: Iterable[str], before: str, between: str, behind: str) -> None:
    """Writes lines, of which there may be more than memory takes, as UTF-8, with something before, between and behind.

    Raises OSError if `path` cannot be written.
    """
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(before)
        for number, line in enumerate(lines):
            file.write(f"{between if number else ''}{line}")
        file.write(behind)


def write_json(path: Union[str, Path], value: Any) -> None:
    """Writes `value` as indented JSON, NaN and infinities as null.

    Raises:
        InputError: it is nested so deeply that Python cannot write it.
        OSError: `path` cannot be written.
    """
    try:
        value = json.loads(json.dumps(value), parse_constant=lambda constant: None)
        text = json.dumps(value, indent=1) + "\n"
    except RecursionError as error:
        raise InputError(f"{path}: what is to be written there is nested too deeply") from error
    write_text(path, text)


def write_torch(path: Union[str, Path], value: Any) -> None:
    """torch.save to `path`. Raises OSError if `path` cannot be written (torch itself says RuntimeError)."""
    import torch  # late: the other writers need none

    with replacing(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save(value, file)
        except RuntimeError as error:
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def file_sha256(path: Union[str, Path]) -> str:
    """SHA-256 of a file's content, in hexadecimal digits. Raises OSError if it cannot be read."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
