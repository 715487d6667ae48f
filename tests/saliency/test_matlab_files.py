"""Files of MATLAB's version 7.3 are HDF5, columns first: they are read as those of the versions before."""

import h5py
import numpy as np
import pytest
from cat2000_folder import SHAPE, cells, write_cat2000_folder, write_locations
from scipy.sparse import csc_matrix, issparse

from sact_det.base.errors import InputError
from saliency.cat2000 import read_cat2000
from saliency.fixations import read_fixations
from saliency.matlab import read_matrix

LOCATIONS = np.zeros(SHAPE)
LOCATIONS[::7, ::11] = 1
COMPLEX = np.dtype([("real", float), ("imag", float)])
SQUARE = np.triu(np.ones((9, 9)))  # another transposed, of the same shape


def write_version_7_3(path, **variables):
    """As MATLAB's `save -v7.3`: a header of 512 bytes, then HDF5."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            put(file, name, value)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM")


def put(file, name, value):
    if issparse(value):
        made = file.create_group(name)
        made.attrs.update(MATLAB_class=np.bytes_("double"), MATLAB_sparse=np.uint64(value.shape[0]))
        made["jc"] = value.indptr.astype(np.uint64)
        if value.nnz:
            made["data"], made["ir"] = value.data, value.indices.astype(np.uint64)
    elif isinstance(value, dict):
        made = file.create_group(name)
        made.attrs["MATLAB_class"] = np.bytes_("struct")
        for key, part in value.items():
            put(made, key, part)
    elif isinstance(value, str):
        file[name] = np.frombuffer(value.encode("utf-16-le"), np.uint16)[:, None]
        file[name].attrs["MATLAB_class"] = np.bytes_("char")
    elif value.size == 0:
        file[name] = np.array(value.shape, np.uint64)
        file[name].attrs.update(MATLAB_class=np.bytes_("double"), MATLAB_empty=np.uint8(1))
    elif value.dtype == object:
        parts = file.require_group("#refs#")
        keys = [f"{name.strip('#/').replace('/', '_')}_{number}" for number in range(value.size)]
        for key, part in zip(keys, value.reshape(-1)):
            put(file, f"#refs#/{key}", part)
        references = np.array([parts[key].ref for key in keys], h5py.ref_dtype).reshape(value.shape[::-1])
        file.create_dataset(name, data=references, dtype=h5py.ref_dtype)
        file[name].attrs["MATLAB_class"] = np.bytes_("cell")
    else:
        file[name] = value.T
        file[name].attrs["MATLAB_class"] = np.bytes_("logical" if value.dtype == np.uint8 else "double")


@pytest.mark.parametrize(
    "content",
    [
        LOCATIONS,
        LOCATIONS.astype(np.uint8),
        SQUARE,
        csc_matrix(LOCATIONS),
        csc_matrix((9, 9)),
        cells(LOCATIONS),
        cells(cells(csc_matrix(SQUARE))),
    ],
    ids=["double", "logical", "square", "sparse", "sparse, zeros alone", "cell", "cells with a sparse one"],
)
def test_both_versions_hold_the_same_matrix(tmp_path, content):
    write_locations(tmp_path / "before.mat", content)
    write_version_7_3(tmp_path / "a.mat", fixLocs=content, other=SQUARE)
    expected = read_matrix(tmp_path / "before.mat", "fixLocs")
    found = read_matrix(tmp_path / "a.mat", "fixLocs")
    assert found.shape == expected.shape and (found == expected).all()


def test_a_data_set_of_them_is_read(tmp_path):
    root = write_cat2000_folder(tmp_path)
    for path in (root / "FIXATIONLOCS").rglob("*.mat"):
        write_version_7_3(path, fixLocs=LOCATIONS)
    assert all((image.fixations.counts() == LOCATIONS).all() for image in read_cat2000(root))


BAD = {
    "another variable": ({"fixations": SQUARE, "more": SQUARE}, "has no variable 'fixLocs'; it holds: fixations, more"),
    "nothing": ({}, "has no variable 'fixLocs'; it holds: none"),
    "struct": ({"fixLocs": {"a": SQUARE, "b": SQUARE}}, "fixLocs: a struct with a, b; expected a fixation map"),
    "cells": ({"fixLocs": cells(SQUARE, SQUARE)}, "fixLocs: a cell array of 2 cells; expected one fixation map"),
    "text": ({"fixLocs": "hello"}, "fixLocs: a fixation map must be numbers"),
    "empty": ({"fixLocs": np.zeros((0, 0))}, "fixLocs: a fixation map must be numbers"),
    "three sides": ({"fixLocs": np.ones((2, 3, 4))}, "must be numbers .*got float64 .2, 3, 4.$"),
    "complex": ({"fixLocs": SQUARE.astype(COMPLEX)}, "fixLocs: a fixation map must be numbers .*complex128 .9, 9.$"),
    "NaN": ({"fixLocs": np.full(SHAPE, np.nan)}, "fixLocs: a fixation map must be finite"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_what_is_no_map_is_named_in_one_line(tmp_path, content, message):
    path = tmp_path / "a.mat"
    write_version_7_3(path, **content)
    with pytest.raises(InputError, match=message) as error:
        read_fixations(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def damaged_rows(file):
    file["fixLocs/ir"][0] = 1 << 40


def ring(file):
    del file["fixLocs"]
    made = file.create_dataset("fixLocs", (1, 1), h5py.ref_dtype)
    made[0, 0] = made.ref


def link(file):
    del file["fixLocs"]
    file["fixLocs"] = h5py.ExternalLink("other.mat", "fixLocs")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damaged_rows, "not a MATLAB file that can be read: .*ind"),
        (lambda file: file.pop("fixLocs/jc"), "fixLocs: a sparse matrix without jc"),
        (ring, "fixLocs: a fixation map must be numbers|a cell array of 1"),
        (link, "fixLocs is reached by a link; expected data in the file itself"),
    ],
    ids=["rows outside", "no columns", "a ring of cells", "another file's"],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, damage, message):
    path = tmp_path / "a.mat"
    write_version_7_3(path, fixLocs=csc_matrix(LOCATIONS))
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(InputError, match=message) as error:
        read_fixations(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
