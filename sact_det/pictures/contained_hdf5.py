"""Data sets that lie within an HDF5 file: one from elsewhere must not make us read other files of this machine."""

from typing import Optional

import h5py

from sact_det.base.errors import InputError


def contained_dataset(file: h5py.File, key: str) -> Optional[h5py.Dataset]:
    """The data set under `key`, names of groups and its own with slashes between them; None if there is none.

    Raises:
        InputError: a link leads there (to another file, or in a ring), or the values lie in other files (external
            storage) or data sets (virtual ones); the message begins with `key`.
    """
    node: object = file
    for name in key.split("/"):
        if not isinstance(node, h5py.Group) or name in ("", "."):
            return None
        link = node.get(name, getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise InputError(f"{key} is reached by a link; expected data in the file itself")
        node = node[name]
    if not isinstance(node, h5py.Dataset):
        return None
    if node.external or node.is_virtual:
        kind = "external storage" if node.external else "other data sets (a virtual data set)"
        raise InputError(f"{key} lies in {kind}; expected data in the file itself")
    return node
