"""Files appear whole or not at all; where those lie that nobody asked for."""

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Iterator, Union


@contextlib.contextmanager
def replacing(path: Union[str, Path]) -> Iterator[Path]:
    """Yields a temporary path beside `path`, renamed to `path` on success and removed on failure.

    Until the rename, what was at `path` stays as it was: on a full disk, without permission, after an interrupt.
    The temporary name keeps the suffix, so that writers that choose a format by it do.

    Raises:
        OSError: it cannot be written; the error names `path`, not the temporary file.
    """
    path = Path(path)
    prefix = f".{path.name}."
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=prefix, dir=path.parent) as folder:
            temporary = Path(folder) / path.name
            yield temporary
            os.replace(temporary, path)
    except OSError as error:
        # A full disk names no file; what names another one (which the caller reads, say) stays as it is.
        if error.errno is None or prefix not in str(error.filename or prefix):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def cache_folder() -> Path:
    """For what can be made again: $SACT_DET_CACHE, by default $XDG_CACHE_HOME/sact_det or ~/.cache/sact_det."""
    own = os.environ.get("SACT_DET_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sact_det"


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


def write_json(path: Union[str, Path], value: Any) -> None:
    """Writes `value` as indented JSON, NaN and infinities as null. Raises OSError if `path` cannot be written."""
    value = json.loads(json.dumps(value), parse_constant=lambda constant: None)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


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
