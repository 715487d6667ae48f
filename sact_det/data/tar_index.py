"""Where the files of uncompressed tars lie, those of tars inside tars included. Found once and kept.

Finding them takes a header from every 100 kB or so of ImageNet's 138 GB. The index lies in the cache folder
(sact_det/base/cache_folder.py); it is used for as long as no tar changes its size or its time of modification.
"""

import hashlib
import logging
import os
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Iterator, NamedTuple, Optional, Sequence

import numpy as np
from tqdm import tqdm

from sact_det.base.cache_folder import is_private, private_cache_folder
from sact_det.base.errors import InputError, naming
from sact_det.base.files import replacing
from sact_det.base.npz_file import read_arrays
from sact_det.data.image_files import is_visible

logger = logging.getLogger(__name__)

_NOT_KEPT = "The tars will have to be looked through again next time: %s"

_FORMAT = "2"  # of the kept file


@dataclass(frozen=True, eq=False)
class TarIndex:
    """A: archives, which hold the files themselves, be they tars or tars inside tars; F: files, archive by archive.

    Attributes:
        archives: str [A], names without suffix.
        tar: int64 [A], number of the outermost tar.
        archive: int64 [F], number of the archive.
        names: bytes [F].
        ranges: int64 [F, 2], first byte in the outermost tar, and how many.
    """

    archives: np.ndarray
    tar: np.ndarray
    archive: np.ndarray
    names: np.ndarray
    ranges: np.ndarray


def tar_index(tars: Sequence[Path]) -> TarIndex:
    """The index of these tars, kept or made anew. Raises InputError if one is missing or broken."""
    for path in tars:
        if not path.is_file():
            raise InputError(f"{path}: no such file")
    kept = _place(tars)
    index = _read(kept) if kept else None
    if index is None:
        index = _find(tars)
        if kept is not None:
            _keep(index, kept)
    return index


def _place(tars: Sequence[Path]) -> Optional[Path]:
    """Where the index is kept, or None if nothing can be kept."""
    try:
        return private_cache_folder() / f"tars-{_identity(tars)}.npz"
    except OSError as error:
        logger.info(_NOT_KEPT, error)
        return None


def _keep(index: TarIndex, kept: Path) -> None:
    try:
        with replacing(kept) as temporary:
            np.savez(temporary, **asdict(index))
    except OSError as error:
        logger.info(_NOT_KEPT, error)


def _read(kept: Path) -> Optional[TarIndex]:
    """An index that was kept; None if it is not there, is damaged, or somebody else may have written it."""
    try:
        return TarIndex(**read_arrays(kept)) if kept.exists() and is_private(kept) else None
    except (InputError, TypeError):
        return None


def _identity(tars: Sequence[Path]) -> str:
    files = [(os.fsencode(path.resolve()), path.stat()) for path in tars]
    texts = (b"%b %d %d" % (name, status.st_size, status.st_mtime_ns) for name, status in files)
    return hashlib.sha256(b"\0".join((_FORMAT.encode(), *texts))).hexdigest()[:16]


class _Member(NamedTuple):
    """A file in a tar: its bytes are `size` many from `offset` on, in the outermost tar."""

    name: str
    offset: int
    size: int


def _members(path: Path, start: int = 0) -> Iterator[_Member]:
    """The files of the uncompressed tar that starts at byte `start` of `path`. Raises InputError."""
    damaged = naming(f"{path}: not a readable, uncompressed tar", tarfile.TarError, EOFError, ValueError)
    with damaged, open(path, "rb") as file:
        file.seek(start)
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                if member.isfile():
                    yield _Member(member.name, member.offset_data, member.size)


def _find(tars: Sequence[Path]) -> TarIndex:
    archives: list[tuple[str, int]] = []
    found: list[tuple[int, _Member]] = []
    size = sum(path.stat().st_size for path in tars)
    with tqdm(desc="looking through tars", total=size, unit="B", unit_scale=True, disable=None) as progress:

        def add(name: str, number: int, members: Iterator[_Member]) -> None:
            archives.append((name, number))
            for member in members:
                found.append((len(archives) - 1, member))
                progress.update(member.size)

        for number, path in enumerate(tars):
            inner = [member for member in _members(path) if member.name.endswith(".tar") and is_visible(member.name)]
            for member in inner:
                add(Path(member.name).stem, number, _members(path, member.offset))
            if not inner:
                add(path.stem, number, _members(path))
    return TarIndex(
        archives=np.array([name for name, _ in archives]),
        tar=np.array([number for _, number in archives], np.int64),
        archive=np.array([archive for archive, _ in found], np.int64),
        names=np.array([os.fsencode(member.name) for _, member in found], np.bytes_),
        ranges=np.array([(member.offset, member.size) for _, member in found], np.int64).reshape(-1, 2),
    )
