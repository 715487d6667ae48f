import argparse
import io
import os
import pickle
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from sact_det.base.errors import InputError
from sact_det.weights.weight_file import load_torch, load_weights, save_weights

METADATA = {"units": (1, 2), "base_channels": 8, "num_classes": None, "source": "a test", "missing": ["logits"]}
STATE = {"conv.weight": torch.arange(6.0).reshape(3, 2), "norm.num_batches_tracked": torch.tensor(7)}


class RunsWhenUnpickled:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def test_a_weight_file_returns_what_was_saved(tmp_path: Path):
    save_weights(tmp_path / "new folder" / "w.pth", STATE, METADATA)
    state_dict, metadata = load_weights(tmp_path / "new folder" / "w.pth")
    assert metadata == METADATA
    assert state_dict.keys() == STATE.keys()
    assert all(torch.equal(state_dict[name], STATE[name]) for name in STATE)


def test_parameters_are_saved_as_plain_tensors(tmp_path: Path):
    save_weights(tmp_path / "w.pth", dict(nn.Linear(2, 3).named_parameters()), {})
    assert not any(value.requires_grad for value in load_weights(tmp_path / "w.pth").state_dict.values())


@pytest.mark.parametrize("content", [STATE, {"model": STATE}, {"model": STATE, "iteration": 5}])
def test_checkpoints_and_bare_state_dicts_load_without_metadata(tmp_path: Path, content: dict):
    torch.save(content, tmp_path / "w.pth")
    state_dict, metadata = load_weights(tmp_path / "w.pth")
    assert state_dict.keys() == STATE.keys()
    assert metadata == {}


def test_the_state_of_a_training_is_kept_beside_the_model(tmp_path: Path):
    torch.save({"model": STATE, "iteration": 5}, tmp_path / "w.pth")
    assert load_torch(tmp_path / "w.pth")["iteration"] == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such weight file"),
        (b"", "damaged, or not a weight file"),
        (b"hello world, this is no torch file", "damaged, or not a weight file"),
        (saved({"model": STATE})[:-300], "damaged, or not a weight file"),
        (saved(nn.Linear(2, 2)), "holds pickled objects"),
        (saved([1, 2]), "holds no weights"),
        (saved({}), "holds no weights"),
        (saved({"model": {}}), "holds no weights"),
        (saved({"model": {"conv.weight": 3}}), "holds no weights"),
        (saved({"model": {3: torch.zeros(1)}}), "holds no weights"),
        (saved({"model": STATE, "sact": 3}), "'sact' is a int"),
        (
            saved({"model": STATE, "sact": {"units": 3}}),
            "'sact' does not describe a network as our weight files do: units",
        ),
        (saved({"model": STATE, "sact": {"units": [1, 0]}}), "'sact' does not describe a network"),
        (saved({"model": STATE, "sact": {"base_channels": True}}), "'sact' does not describe a network"),
        (saved({"model": STATE, "sact": {"missing": "logits"}}), "'sact' does not describe a network"),
        (saved({"model": STATE, "sact": {"pixel_mean": [1.0, float("nan")]}}), "'sact' does not describe a network"),
    ],
)
def test_a_file_that_holds_no_weights_is_refused_in_one_line(tmp_path: Path, content: bytes | None, message: str):
    path = tmp_path / "w.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as error:
        load_weights(path)
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)


def test_a_folder_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be read"):
        load_weights(tmp_path)


@pytest.mark.parametrize(("special", "kind"), [(os.mkfifo, "a pipe"), (os.mkdir, "a folder")])
def test_what_is_no_regular_file_is_refused_without_waiting_for_it(tmp_path: Path, special, kind: str):
    special(tmp_path / "w.pth")
    with pytest.raises(InputError, match=f"w.pth: cannot be read \\(it is {kind}\\); expected a regular weight file"):
        load_weights(tmp_path / "w.pth")


@pytest.fixture
def unreadable_file():
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        os.chmod(file.name, 0)
        yield file.name


def test_a_file_without_read_permission_is_not_called_missing(unreadable_file: str, locked_folder: Path):
    with pytest.raises(InputError, match=rf"{unreadable_file}: cannot be read \(Permission denied\)"):
        load_weights(unreadable_file)


# Damage


def test_no_byte_can_change_a_value_without_a_word(tmp_path: Path):
    path, whole = tmp_path / "w.pth", saved({"model": {"a.weight": torch.arange(40.0), "a.running_var": torch.ones(9)}})
    refused = 0
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            state_dict, _ = load_weights(path)
        except InputError as error:
            assert str(error).startswith(f"{path}: ")
            refused += 1
        else:
            assert torch.equal(state_dict["a.weight"], torch.arange(40.0))
            assert torch.equal(state_dict["a.running_var"], torch.ones(9))
    assert refused > len(whole) // 9  # the rest is padding


def test_the_damaged_record_is_named(tmp_path: Path):
    whole = bytearray(saved({"model": {"a.weight": torch.full((40,), 1.5)}}))
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        (record,) = (name for name in archive.namelist() if name.endswith("data/0"))
    place = whole.index(torch.full((40,), 1.5).numpy().tobytes())
    whole[place] ^= 1
    (tmp_path / "w.pth").write_bytes(whole)
    with pytest.raises(InputError, match=f"damaged: the checksum or the header of its record '{record}' is wrong"):
        load_weights(tmp_path / "w.pth")


def test_a_record_that_a_bit_made_a_folder_is_not_left_unread(tmp_path: Path):
    whole = bytearray(saved({"model": {"a.weight": torch.ones(40)}}))
    whole[whole.rindex(b"archive/data/0") - 8] ^= 0x10  # in the central directory, the attributes of MS-DOS
    (tmp_path / "w.pth").write_bytes(whole)
    with pytest.raises(InputError, match="damaged: the checksum or the header of its record 'archive/data/0' is wrong"):
        load_weights(tmp_path / "w.pth")


def test_a_file_written_without_checksums_is_read(tmp_path: Path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, tmp_path / "w.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    assert torch.equal(load_weights(tmp_path / "w.pth").state_dict["conv.weight"], STATE["conv.weight"])


# Values

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("a.weight", torch.tensor([1.0, NAN, 2.0]), "1 of 3 values are NaN, infinite or beyond float32"),
        ("a.bias", torch.tensor([-INFINITY, INFINITY]).half(), "2 of 2 values"),
        ("a.weight", torch.tensor([1e300], dtype=torch.float64), "1 of 1 values"),
        ("a.weight", torch.tensor([NAN]).expand(1000, 1000, 1000, 1000), "1 of 1 values"),
        ("a.running_mean", torch.full((3,), NAN).bfloat16(), "3 of 3 values"),
        ("a.running_var", torch.tensor([1.0, -1e-3]), "1 of 2 variances are negative, down to -0.001"),
        ("a.weight", torch.zeros(3, 0, 2), r"is empty, float32 \[3, 0, 2\]"),
        ("a.weight", torch.zeros(3, device="meta"), "is a sparse, quantised or meta tensor"),
        ("a.weight", torch.eye(3).to_sparse(), "is a sparse, quantised or meta tensor"),
    ],
)
@pytest.mark.parametrize("key", [None, "model", "state_dict"])
def test_values_that_no_network_computes_with_are_named(tmp_path: Path, name: str, values, message: str, key):
    state_dict = {**STATE, name: values}
    torch.save(state_dict if key is None else {key: state_dict}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=f"^{tmp_path / 'w.pth'}: {name}: {message}"):
        load_weights(tmp_path / "w.pth")


# Names


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."]
)
def test_names_are_those_of_the_bare_model(tmp_path: Path, prefix: str):
    torch.save({"model": {prefix + name: value for name, value in STATE.items()}}, tmp_path / "w.pth")
    assert load_weights(tmp_path / "w.pth").state_dict.keys() == STATE.keys()


def test_compiled_parts_of_a_model_have_the_names_of_plain_ones(tmp_path: Path):
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    names = list(network.state_dict())
    network[1] = torch.compile(network[1])
    network = torch.compile(network)
    assert not set(names) & set(network.state_dict())
    torch.save(network.state_dict(), tmp_path / "w.pth")
    assert list(load_weights(tmp_path / "w.pth").state_dict) == names


def test_a_model_with_a_part_called_module_keeps_the_name(tmp_path: Path):
    names = ["module.weight", "head.weight"]
    torch.save(dict.fromkeys(names, torch.zeros(1)), tmp_path / "w.pth")
    assert list(load_weights(tmp_path / "w.pth").state_dict) == names


def test_one_name_for_two_tensors_is_refused(tmp_path: Path):
    torch.save({"a._orig_mod.weight": torch.zeros(1), "a.weight": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"a\.weight is there twice, with and without '_orig_mod'"):
        load_weights(tmp_path / "w.pth")


def test_the_arguments_of_a_training_script_are_no_obstacle(tmp_path: Path):
    torch.save({"state_dict": STATE, "args": argparse.Namespace(lr=0.1)}, tmp_path / "w.pth")
    assert load_weights(tmp_path / "w.pth").state_dict.keys() == STATE.keys()


@pytest.mark.parametrize("write", [saved, pickle.dumps])
def test_pickled_code_never_runs(tmp_path: Path, write):
    marker = tmp_path / "ran"
    (tmp_path / "w.pth").write_bytes(write({"model": RunsWhenUnpickled(marker)}))
    with pytest.raises(InputError):
        load_weights(tmp_path / "w.pth")
    assert not marker.exists()


def test_metadata_that_is_not_plain_data_is_refused_before_writing(tmp_path: Path):
    with pytest.raises(TypeError):
        save_weights(tmp_path / "w.pth", STATE, {"source": tmp_path})
    assert not any(tmp_path.iterdir())


def test_a_full_disk_keeps_the_existing_file(tmp_path: Path, full_disk):
    path = tmp_path / "w.pth"
    save_weights(path, STATE, METADATA)
    before = path.read_bytes()

    with pytest.raises(OSError, match=f"File too large: '{path}'"), full_disk(10_000):
        save_weights(path, {"w": torch.zeros(10_000)}, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
