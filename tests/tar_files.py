"""Uncompressed tars in memory."""

import io
import tarfile
from typing import Iterable


def tar_of(files: Iterable[tuple[str, bytes]]) -> bytes:
    """The tar of files given by name and content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
