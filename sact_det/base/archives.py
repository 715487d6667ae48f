"""Archives from elsewhere: unpacked into a folder of their own, and nowhere else."""

import gzip
import lzma
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any, Union

from sact_det.base.errors import InputError, naming
from sact_det.base.files import check_input

MOST_BYTES = 2**32  # several times what any weights take that this package reads
_MOST_FILES = 10_000
_BLOCK = 2**20
_DAMAGED = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


def is_tar(path: Union[str, Path]) -> bool:
    """Whether a file is a tar, compressed or not, by its content. Raises InputError if it cannot be read."""
    check_input(path, "archive")
    return tarfile.is_tarfile(path)


def unpack_tar(path: Path, folder: Path, most: int = MOST_BYTES) -> None:
    """Writes the files of a tar into a folder.

    The archive is read to its very end, where gzip, bzip2 and xz have their checksums.

    Args:
        path: of the tar, perhaps compressed.
        folder: that exists.
        most: bytes that all files may take together.

    Raises:
        InputError: the archive is missing or damaged, holds a link, a device or a name that leads out of the folder, or
            more than `most` bytes.
        OSError: a file cannot be written.
    """
    check_input(path, "archive")
    left = most
    with naming(f"{path}: damaged, or no tar", *_DAMAGED), tarfile.open(path) as archive:
        for number, member in enumerate(archive):
            _check(path, member, number)
            if not member.isreg():
                continue
            target = folder.joinpath(*_parts(member))
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "wb") as file:
                left = _write(path, archive.extractfile(member), file, left, most)
        while archive.fileobj.read(_BLOCK):
            pass


def _parts(member: tarfile.TarInfo) -> tuple[str, ...]:
    return tuple(part for part in PurePosixPath(member.name).parts if part != ".")


def _check(path: Path, member: tarfile.TarInfo, number: int) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\\" in member.name:
        raise InputError(f"{path}: {member.name!r} would lie outside the folder; nothing of this archive is kept")
    if not (member.isreg() or member.isdir()):
        raise InputError(f"{path}: {member.name!r} is neither a file nor a folder; nothing of this archive is kept")
    if number >= _MOST_FILES:
        raise InputError(f"{path}: holds more than {_MOST_FILES:,} files; expected weights")


def _write(path: Path, source: Any, file: Any, left: int, most: int) -> int:
    """Copies a member; returns how many bytes others may still take."""
    while block := source.read(_BLOCK):
        left -= len(block)
        if left < 0:
            raise InputError(f"{path}: holds more than {most:,} bytes; expected weights")
        file.write(block)
    return left
