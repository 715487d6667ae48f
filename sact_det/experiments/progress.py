"""What a long measurement has finished so far: lines of JSON that a later run of it goes on from."""

import json
from pathlib import Path
from typing import Any, Iterator

from sact_det.base.errors import InputError
from sact_det.base.files import write_text
from sact_det.base.text_files import parse_json, read_text


class Progress:
    """A file to which a value is added, as a line, whenever one is finished; a kill costs the line in the making.

    Args:
        path: of the file. One of another key is begun anew.
        key: tells measurements apart that may give other values.

    Attributes:
        known: the values of earlier runs.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, key: str):
        self._path = path
        first, *values = [*_lines(path)] or [None]
        self.known: list[Any] = values if first == {"key": key} else []
        write_text(path, "".join(f"{json.dumps(value)}\n" for value in [{"key": key}, *self.known]))

    def add(self, value: Any) -> None:
        """Adds a plain value. Raises OSError if the file cannot be written."""
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(f"{json.dumps(value)}\n")


def _lines(path: Path) -> Iterator[Any]:
    """The values of a file's lines, up to the first that is none; nothing of a file that cannot be read."""
    try:
        for line in read_text(path).splitlines():
            yield parse_json(line, path)
    except InputError:
        return
