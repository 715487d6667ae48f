"""Config files: yaml that may build on other files, read as data alone."""

import os
from typing import Any, Iterator

from detectron2.utils.file_io import PathManager
from fvcore.common.config import BASE_KEY

from sact_det.base.errors import InputError, one_line
from sact_det.base.text_files import read_yaml

_MOST_FILES = 100  # a config builds on two or three; lists of bases that have lists of bases need not end


def read_config_files(path: str) -> list[tuple[str, dict[str, Any]]]:
    """The files that make a config, as (name, keys and values), each to be merged over those before it.

    The bases of a file, which its key `_BASE_` names, come before it: files, relative to the one that names them, or
    URLs. Nothing in a file is executed, whatever its tags ask for.

    Raises:
        InputError: a file is missing, no yaml or holds something else than keys and values, or builds on itself.
    """
    files = []
    for file in _with_bases(str(path), ()):
        files.append(file)
        _check_number(path, len(files))
    return files


def _check_number(path: str, files: int) -> None:
    if files > _MOST_FILES:
        raise InputError(f"{path}: builds on more than {_MOST_FILES} files ({BASE_KEY})")


def _with_bases(path: str, above: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The bases of `path`, and it; `above` are the files that build on it."""
    _check_number((*above, path)[0], len(above))
    tree = _read(path, above)
    bases = tree.pop(BASE_KEY, [])
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str) or not base:
            raise InputError(f"{path}: {BASE_KEY} must name a config file or list some; got {base!r}")
        beside = os.path.join(os.path.dirname(path), os.path.expanduser(base))
        yield from _with_bases(base if "://" in base else beside, (*above, path))
    yield path, tree


def _read(path: str, above: tuple[str, ...]) -> dict[str, Any]:
    blame = f"{above[-1]}: {BASE_KEY} " if above else ""
    identities = [file if "://" in file else os.path.realpath(file) for file in (*above, path)]
    if identities[-1] in identities[:-1]:
        ring = (*above[identities.index(identities[-1]) :], path)
        raise InputError(f"{ring[0]}: builds on itself ({BASE_KEY}): {' -> '.join(ring)}")
    try:
        tree = read_yaml(_local(path), missing="no such config file")
    except InputError as error:
        raise InputError(f"{blame}{error}") from error
    if not isinstance(tree, dict):
        found = "it is empty" if tree is None else f"it holds a {type(tree).__name__}"
        raise InputError(f"{blame}{path}: not a config; expected keys and values in yaml, {found}")
    _check_keys(path, tree, "")
    return tree


def _local(path: str) -> str:
    if "://" not in path:
        return path
    try:
        return PathManager.get_local_path(path)
    except Exception as error:  # a server answers, or does not, in many ways
        raise InputError(f"{path}: cannot be fetched ({one_line(error)})") from error


def _check_keys(path: str, tree: dict[str, Any], prefix: str) -> None:
    for key, value in tree.items():
        if not isinstance(key, str):
            raise InputError(f"{path}: keys are words; got {prefix}{key!r}")
        if isinstance(value, dict):
            _check_keys(path, value, f"{prefix}{key}.")
