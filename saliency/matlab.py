"""Matrices in MATLAB files: of versions 4 to 7, which scipy reads, and of 7.3, which is HDF5.

HDF5 counts rows first and MATLAB columns, so that what MATLAB wrote is transposed there. A cell array is one of
references; a sparse matrix is a group: its values (data), their rows (ir) and where columns begin among them (jc).
"""

from pathlib import Path
from typing import Any, Union

import h5py
import numpy as np
from scipy.io import loadmat, whosmat
from scipy.sparse import csc_matrix, issparse

from sact_det.base.errors import InputError, naming
from sact_det.pictures.contained_hdf5 import contained_dataset

MAT_SUFFIX = ".mat"
_DEEPEST = 16  # cells within each other: references may go in a ring


def read_matrix(path: Union[str, Path], variable: str) -> np.ndarray:
    """What a variable of a file holds as one array: a matrix, a sparse one, or a cell with one of them.

    Raises:
        InputError: the file cannot be read, it has no such variable, or that holds something else.
    """
    with naming(path, InputError):
        with naming("not a MATLAB file that can be read"):  # scipy raises whatever it stumbles over
            content = _of_hdf5(path, variable) if h5py.is_hdf5(path) else _of_scipy(path, variable)
        if variable not in content:
            raise InputError(f"has no variable {variable!r}; it holds: {', '.join(content) or 'none'}")
        with naming(variable, InputError):
            return _one_matrix(content[variable])


def _of_scipy(path: Union[str, Path], variable: str) -> dict[str, Any]:
    """The names of all variables; the value of the one that is asked for."""
    found = loadmat(path, variable_names=[variable])
    return {name: found.get(name) for name, _, _ in whosmat(path)}


def _of_hdf5(path: Union[str, Path], variable: str) -> dict[str, Any]:
    with h5py.File(path, "r") as file:
        names = [name for name in file if not name.startswith("#")]
        return {name: _value(file, name) if name == variable else None for name in names}


def _value(file: h5py.File, key: str, depth: int = _DEEPEST) -> Any:
    """What lies under a key, or in the only cell there, in the forms that scipy gives it."""
    stored = contained_dataset(file, key)
    if stored is None:
        return _sparse(file, key) if "MATLAB_sparse" in file[key].attrs else _struct(file[key])
    if stored.dtype == h5py.ref_dtype:
        if stored.size == 1 and depth:
            return _value(file, file[stored[()].item()].name.lstrip("/"), depth - 1)
        return np.empty(stored.shape, object)
    if stored.attrs.get("MATLAB_class") == b"char":
        return np.array("", str)
    if stored.dtype.names == ("real", "imag"):
        return stored["real"].T + 1j * stored["imag"].T
    return np.zeros((0, 0)) if stored.attrs.get("MATLAB_empty") else stored[()].T


def _sparse(file: h5py.File, key: str) -> csc_matrix:
    data, rows, starts = (contained_dataset(file, f"{key}/{name}") for name in ("data", "ir", "jc"))
    if starts is None:
        raise InputError(f"{key}: a sparse matrix without jc, which says where its columns begin")
    values, indices = (np.zeros(0) if part is None else part[()] for part in (data, rows))  # of zeros alone: neither
    shape = (int(file[key].attrs["MATLAB_sparse"]), starts.size - 1)
    matrix = csc_matrix((values, indices.astype(np.int64), starts[()].astype(np.int64)), shape)
    matrix.check_format(full_check=True)
    return matrix


def _struct(group: h5py.Group) -> np.ndarray:
    return np.zeros(1, [(name, object) for name in group])


def _one_matrix(found: Any) -> np.ndarray:
    """A matrix, a sparse one, or the only one within cells."""
    while isinstance(found, np.ndarray) and found.dtype == object and found.size == 1:
        found = found.item()
    if issparse(found):
        return found.toarray()
    if isinstance(found, np.ndarray) and found.dtype == object:
        raise InputError(f"a cell array of {found.size} cells; expected one fixation map")
    if isinstance(found, np.ndarray) and found.dtype.names:
        raise InputError(f"a struct with {', '.join(found.dtype.names)}; expected a fixation map")
    return np.asarray(found)
