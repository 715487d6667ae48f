"""Of an HDF5 file from elsewhere nothing outside the file is read."""

import h5py
import pytest
from test_ponder_file import write

from sact_det.base.errors import InputError
from sact_det.pictures.ponder_file import PonderFile


def move_out(path, key):
    """Takes a data set of the file away; returns its values."""
    with h5py.File(path, "r+") as file:
        values = file[key][()]
        del file[key]
    return values


def external_link(path, key):
    with h5py.File(path.with_name("other.h5"), "w") as other:
        other[key] = move_out(path, key)
    with h5py.File(path, "r+") as file:
        file[key] = h5py.ExternalLink("other.h5", key)


def external_storage(path, key):
    values = move_out(path, key)
    values.tofile(path.with_name("secret"))
    with h5py.File(path, "r+") as file:
        secret = [(str(path.with_name("secret")), 0, values.nbytes)]
        file.create_dataset(key, values.shape, values.dtype, external=secret)


def virtual(path, key):
    values = move_out(path, key)
    with h5py.File(path.with_name("other.h5"), "w") as other:
        other[key] = values
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[...] = h5py.VirtualSource(str(path.with_name("other.h5")), key, values.shape)
    with h5py.File(path, "r+") as file:
        file.create_virtual_dataset(key, layout)


def ring(path, key):
    move_out(path, key)
    with h5py.File(path, "r+") as file:
        file[key], file["other"] = h5py.SoftLink("/other"), h5py.SoftLink(f"/{key}")


@pytest.mark.parametrize("key", ["images", "block1/ponder_cost", "block2/num_units", "flops"])
@pytest.mark.parametrize(
    ("leads", "message"),
    [
        (external_link, "is reached by a link; expected data in the file itself"),
        (external_storage, "lies in external storage; expected data in the file itself"),
        (virtual, "lies in other data sets"),
        (ring, "is reached by a link"),
    ],
)
def test_nothing_outside_the_file_is_read(tmp_path, key, leads, message):
    path = tmp_path / "x.h5"
    write(path)
    leads(path, key)
    with pytest.raises(InputError) as error:
        PonderFile(path)
    assert str(error.value).startswith(f"{path}: {key} {message}")


@pytest.mark.parametrize("leads", [external_link, virtual, ring])  # strings have no external storage
def test_no_names_outside_the_file_are_read(tmp_path, leads):
    write(tmp_path / "x.h5")
    leads(tmp_path / "x.h5", "file_names")
    with pytest.raises(InputError, match=r"file_names .* in the file itself"):
        PonderFile(tmp_path / "x.h5")


def test_a_group_behind_a_link_is_not_followed(tmp_path):
    write(tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file.move("block1", "elsewhere")
        file["block1"] = h5py.SoftLink("/elsewhere")
    with pytest.raises(InputError, match="is reached by a link"):
        PonderFile(tmp_path / "x.h5")
