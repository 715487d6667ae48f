"""Files appear whole or not at all."""

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Iterator, Union

import torch


@contextlib.contextmanager
def replacing(path: Union[str, Path]) -> Iterator[Path]:
    """Yields a temporary path beside `path`, renamed to `path` on success and removed on failure.

    Until the rename, what was at `path` stays as it was: on a full disk, without permission, after an interrupt.
    The temporary name keeps the suffix, so that writers that choose a format by it do.

    Raises:
        OSError: the folder cannot be created or written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        yield temporary
        os.replace(temporary, path)


def write_json(path: Union[str, Path], value: Any) -> None:
    """Writes `value` as indented JSON. Raises OSError if `path` cannot be written."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def write_torch(path: Union[str, Path], value: Any) -> None:
    """torch.save to `path`. Raises OSError if `path` cannot be written (torch itself says RuntimeError)."""
    with replacing(path) as temporary:
        try:
            torch.save(value, temporary)
        except RuntimeError as error:
            raise OSError(f"{path}: could not be written ({str(error).splitlines()[0]})") from error
