import io
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from sact_det.errors import InputError
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
