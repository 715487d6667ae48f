"""Single files out of a compressed tar whose checksum has been compared."""

import tarfile
from pathlib import Path
from typing import Collection

from sact_det.base.files import check_input

_BLOCK = 2**20


def read_members(path: Path, names: Collection[str]) -> dict[str, bytes]:
    """The contents of the regular files of these names; those that are not there are left out.

    The archive is read to its very end, where gzip, bzip2 and xz have their checksums. In the order of the archive:
    stepping back means decompressing it again.

    Raises:
        InputError: the archive is missing or cannot be read.
        Exception: it is damaged: whatever tarfile and the decompressors raise.
    """
    check_input(path)
    with tarfile.open(path) as archive:
        contents = {
            member.name: archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive
            if member.name in names and member.isreg()
        }
        while archive.fileobj.read(_BLOCK):
            pass
    return contents
