"""Ponder files that cannot be used, for pictures and for scores."""

import shutil

import h5py
import numpy as np

from sweep.harness import SALIENCY, Case, file, output


def ponder_file(change):
    """The word for a copy of the good ponder file, changed."""

    def write(place):
        path = shutil.copy(place.good.ponder_file, place.folder / "ponder.h5")
        with h5py.File(path, "r+") as stored:
            change(stored)
        return str(path)

    return write


def put(key, value):
    """Sets a number of the first image."""

    def change(stored):
        values = stored[key][()].astype(np.float64)
        values.flat[0] = value
        del stored[key]
        stored[key] = values

    return change


def replaced(key, **options):
    """Makes something else of a data set."""

    def change(stored):
        shape = stored[key].shape
        del stored[key]
        if "link" in options:
            stored[key] = options["link"]
        elif "values" in options:
            stored[key] = options["values"]
        else:
            stored.create_dataset(key, shape, "f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])

    return change


def virtual(stored):
    shape = stored["images"].shape
    del stored["images"]
    layout = h5py.VirtualLayout(shape, "f4")
    layout[...] = h5py.VirtualSource("/etc/other.h5", "images", shape)
    stored.create_virtual_dataset("images", layout)


def scopes(value):
    return lambda stored: stored.attrs.__setitem__("block_scopes", value)


PONDER = [
    ("nowhere.h5", r"nowhere\.h5: no such HDF5 file"),
    (file("a.h5", b""), r"a\.h5: not an HDF5 file"),
    (file("a.h5", "text"), r"a\.h5: not an HDF5 file"),
    (file("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(100)), r"a\.h5: not an HDF5 file"),
    (ponder_file(lambda stored: stored.attrs.clear()), r"it has no attribute block_scopes"),
    (ponder_file(scopes([])), r"it has no attribute block_scopes"),
    (ponder_file(scopes(["block1", "block1"])), r"block_scopes names a block twice"),
    (ponder_file(scopes(["block1", "block9"])), r"it has no numbers under block9/"),
    (ponder_file(scopes([3.5])), r"it has no numbers under|plain network"),
    (ponder_file(scopes(["../block1"])), r"it has no numbers under|plain network"),
    (ponder_file(put("flops", np.nan)), r"nan among flops of image 0 \(.*\); expected numbers from 0"),
    (ponder_file(put("block1/ponder_cost", np.nan)), r"nan among block1/ponder_cost of image 0"),
    (ponder_file(put("block1/ponder_cost", -1)), r"-1 among block1/ponder_cost of image 0"),
    (ponder_file(put("block2/num_units", -3)), r"-3 among block2/num_units of image 0"),
    (ponder_file(put("block2/halting_distribution", np.inf)), r"inf among block2/halting_distribution"),
    (ponder_file(put("block3/flops", 1e300)), r"1e\+300 among block3/flops"),
    (ponder_file(replaced("images")), r"images lies in external storage; expected data in the file itself"),
    (ponder_file(replaced("flops", link=h5py.ExternalLink("/etc/x.h5", "a"))), r"flops is reached by a link"),
    (ponder_file(replaced("flops", link=h5py.SoftLink("/flops"))), r"flops is reached by a link"),
    (ponder_file(virtual), r"images lies in other data sets"),
    (ponder_file(replaced("images", values=np.zeros((6, 4, 4)))), r"images has shape \(6, 4, 4\)"),
    (ponder_file(replaced("images", values=np.zeros((6, 4, 4, 4)))), r"images has shape \(6, 4, 4, 4\)"),
    (ponder_file(replaced("flops", values=np.zeros(3))), r"flops has shape \(3,\)"),
    (ponder_file(replaced("flops", values=[b"many"] * 6)), r"it has no numbers under flops"),
    (ponder_file(replaced("flops", values=np.ones(6) * 1j)), r"it has no numbers under flops"),
    (ponder_file(replaced("block1/num_units", values=np.zeros((6, 2, 2)))), r"block1/num_units has shape"),
]

CASES = [
    *(Case("visualize", says, "--output", output, "--from-hdf5", word) for word, says in PONDER),
    *(
        Case("evaluate_saliency", says, *SALIENCY, "--no-sheet", "--hdf5", "ours", word)
        for word, says in (*PONDER[:4], (ponder_file(lambda stored: None), r"no map of the image 'Action/001'"))
    ),
]
