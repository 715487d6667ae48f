"""Maps that a model made, kept on disk: an interrupted extraction goes on where it was, and is never done twice.

    FOLDER/<digest of the fingerprint>/fingerprint.json
    FOLDER/<digest of the fingerprint>/<name>.npz          float32 [h, w], or of every block [B, h, w], under "map"

The fingerprint is whatever the maps depend on: the weights' checksum, the config, the size of the model's input. Maps
of another fingerprint lie in another folder and are not seen.
"""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any, Callable, Iterable, Mapping, Optional, Sequence, Union
from urllib.parse import quote

import numpy as np
from tqdm import tqdm

from sact_det.base.errors import InputError, naming
from sact_det.base.files import replacing, writable_folder, write_json
from sact_det.base.npz_file import read_arrays

logger = logging.getLogger(__name__)

_LONGEST = 200  # characters of a name that become part of a file's


def fingerprint_digest(fingerprint: Mapping[str, Any]) -> str:
    """A name for a fingerprint, of values that JSON knows (and tuples); independent of the order of its keys."""
    with naming("a fingerprint must be made of what JSON knows", TypeError):
        text = json.dumps(fingerprint, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


class MapCache:
    """The maps of one fingerprint. Called with a name, returns the map; can be sent to other processes.

    Args:
        folder: of all fingerprints; made if missing.
        fingerprint: what the maps depend on.
        shapes: (height, width) of the maps, by name; one of another shape is broken.
        by_block: maps are [B, h, w], one for each block of a network.

    Raises:
        InputError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: Union[str, Path],
        fingerprint: Mapping[str, Any],
        shapes: Optional[Mapping[str, tuple[int, int]]] = None,
        *,
        by_block: bool = False,
    ):
        self._shapes = dict(shapes or {})
        self._dimensions = 3 if by_block else 2
        self._folder = Path(folder) / fingerprint_digest(fingerprint)
        try:
            writable_folder(self._folder)
            if not (self._folder / "fingerprint.json").exists():
                write_json(self._folder / "fingerprint.json", fingerprint)
        except OSError as error:
            raise InputError(f"{folder}: not a cache folder that can be written ({error.strerror})") from error

    def _path(self, name: str) -> Path:
        stem = quote(name, safe="")
        if len(stem) > _LONGEST:
            stem = f"{stem[:_LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:20]}"
        return self._folder / f"{stem}.npz"

    def _problem(self, name: str, values: np.ndarray) -> Optional[str]:
        """Why this is no map of that name; None if it is one."""
        is_map = values.ndim == self._dimensions and values.size and values.dtype.kind in "biuf"
        if not is_map or not np.isfinite(values).all():
            expected = "[H, W]" if self._dimensions == 2 else "[B, H, W]"
            return f"must be finite numbers {expected}; got {values.dtype} {list(values.shape)}"
        size = self._shapes.get(name, values.shape[-2:])
        return None if values.shape[-2:] == size else f"must be {list(size)}; got {list(values.shape[-2:])}"

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __call__(self, name: str) -> np.ndarray:
        """The map, float32. Raises InputError if it is not here."""
        found = self.get(name)
        if found is None:
            raise InputError(f"{self._path(name)}: the map of {name!r} is not in the cache")
        return found

    def get(self, name: str) -> Optional[np.ndarray]:
        """The map, float32, or None if it is not here or its file is broken (which is said in the log)."""
        path = self._path(name)
        if not path.exists():
            return None
        try:
            found = read_arrays(path)["map"]
        except (InputError, KeyError) as error:
            logger.warning("%s: broken, will be made again (%s)", path, error.__cause__ or error)
            return None
        problem = "must be float32" if found.dtype != np.float32 else self._problem(name, found)
        if problem:
            logger.warning("%s: holds no map, will be made again (it %s)", path, problem)
            return None
        return found

    def put(self, name: str, values: np.ndarray) -> None:
        """Keeps a map, finite numbers [h, w] or by block, as float32.

        Raises:
            InputError: it is no such map, or cannot be written.
        """
        values = np.asarray(values)
        problem = self._problem(name, values)
        if problem:
            raise InputError(f"the map of {name!r} {problem}")
        path = self._path(name)
        try:
            with replacing(path) as temporary:
                np.savez_compressed(temporary, map=values.astype(np.float32))
        except OSError as error:
            raise InputError(f"{path}: the map cannot be written ({error.strerror or error})") from error

    def missing(self, names: Iterable[str]) -> list[str]:
        """The names whose maps are not here, in their order."""
        return [name for name in names if name not in self]

    def fill(self, names: Sequence[str], extract: Callable[[str], np.ndarray], progress: bool = True) -> int:
        """Makes the maps that are missing; each is kept as soon as it is made. Returns how many were made.

        Args:
            names: of the maps that are wanted.
            extract: makes the map of a name.
            progress: shows a bar where stderr is a terminal.
        """
        missing = self.missing(names)
        for name in tqdm(missing, desc="maps", unit="image", disable=None if progress else True):
            self.put(name, extract(name))
        return len(missing)
