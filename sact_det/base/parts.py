"""A long list of work in parts, each a file that appears whole: a killed run goes on, and processes share them."""

import json
import shutil
from pathlib import Path
from typing import Any, Callable, Iterator, Union

from sact_det.base.errors import InputError
from sact_det.base.files import locked, write_json, write_text
from sact_det.base.text_files import read_json

_NOTE = "run.json"


class Parts:
    """What has been done of `count` items, in a folder with a file for every `size` of them.

    Which items a part has depends on nothing else, neither on the number of processes nor on what was killed when.
    Processes need the folder in common, and nothing more: whoever finishes last joins the parts.

    Args:
        folder: made unless all is done; once the parts are joined it is removed.
        run: tells this work from other work, whose parts are not taken for its own.
        count: of items.
        size: of a part, in items.
        is_joined: whether what `join` writes is there, and of this `run`; then nothing is left to do.

    Raises:
        InputError: the folder holds something else.
        OSError: it cannot be written.
    """

    def __init__(self, folder: Union[str, Path], run: str, count: int, size: int, is_joined: Callable[[], bool]):
        self._folder, self._count, self._size, self._is_joined = Path(folder), count, size, is_joined
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        self._lock = self._folder.parent / f".{self._folder.name}.lock"
        with locked(self._lock):
            if is_joined():
                self._lock.unlink(missing_ok=True)
            else:
                self._open(run)

    def _open(self, run: str) -> None:
        note = self._folder / _NOTE
        if self._folder.is_dir() and any(self._folder.iterdir()) and not note.exists():
            raise InputError(
                f"{self._folder}: holds other files than parts of a run; remove it, or choose another output"
            )
        if not note.exists():
            write_json(note, {"run": run})
        if read_json(note) != {"run": run}:
            raise InputError(
                f"{self._folder}: holds parts of another run (other weights, config, images or version); remove it, or "
                "choose another output"
            )

    def _file(self, part: int) -> Path:
        return self._folder / f"{part:07d}.json"

    def __len__(self) -> int:
        """How many parts there are."""
        return -(-self._count // self._size)

    def items(self, part: int) -> range:
        """The items of a part."""
        return range(part * self._size, min((part + 1) * self._size, self._count))

    def missing(self, rank: int = 0, world_size: int = 1) -> list[int]:
        """The parts that one of several processes has to do: every world_size-th, but for those that are there."""
        if self._is_joined():
            return []
        return [part for part in range(rank, len(self), world_size) if not self._file(part).exists()]

    def write(self, part: int, value: Any) -> None:
        """Keeps what json knows of a part's items. Raises OSError."""
        write_text(self._file(part), json.dumps(value))

    def read(self) -> Iterator[Any]:
        """What was kept, part by part, in their order. Raises InputError if a file is missing or broken."""
        return (read_json(self._file(part)) for part in range(len(self)))

    def join(self, write: Callable[[], None]) -> bool:
        """Once all parts are there, calls `write`, which may `read` them, and removes the folder.

        Several processes may call it at any time: one of them does it, and those that come later find it done.

        Returns:
            Whether this process has done it.
        """
        with locked(self._lock):
            ours = not self._is_joined() and not self.missing()
            if ours:
                write()
                shutil.rmtree(self._folder)
            if self._is_joined():
                self._lock.unlink(missing_ok=True)
        return ours
