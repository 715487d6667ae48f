"""Where what can be made again is kept, out of reach of other users of the machine."""

import errno
import os
import stat
from pathlib import Path
from typing import Union

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def cache_folder() -> Path:
    """$SACT_DET_CACHE, by default $XDG_CACHE_HOME/sact_det or ~/.cache/sact_det; an absolute path.

    Raises:
        OSError: this user has no home.
    """
    own = os.environ.get("SACT_DET_CACHE")
    if own:
        return Path(own).absolute()
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "sact_det"
    except RuntimeError as error:
        raise FileNotFoundError(errno.ENOENT, f"{error}; SACT_DET_CACHE may name a folder", "~/.cache") from error


def is_private(path: Union[str, Path]) -> bool:
    """Whether this user, or root, owns a file or folder, and nobody else may write to it. Raises OSError."""
    status = os.stat(path)
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & _WRITABLE_BY_OTHERS


def private_cache_folder() -> Path:
    """The cache folder, or, where others may write to it, this user's own folder in it; made if missing.

    Raises:
        OSError: it cannot be made, or is another user's.
    """
    folder = cache_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if is_private(folder):
        return folder
    own = folder / f"user-{os.geteuid()}"
    own.mkdir(mode=0o700, exist_ok=True)
    if is_private(own):
        return own
    raise PermissionError(errno.EPERM, "is another user's, or others may write to it", str(own))
