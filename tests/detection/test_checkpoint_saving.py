"""Checkpoints that a training writes and goes on from: whole, or an error that costs nothing."""

from pathlib import Path

import pytest
import torch
from test_checkpoint import detector, load

import sact_det.detection  # noqa: F401
from sact_det.base.errors import InputError
from sact_det.detection.checkpoint import DetectorCheckpointer


def test_what_is_saved_is_what_is_loaded(tmp_path):
    model, optimizer = detector(seed=1), torch.optim.SGD(detector().parameters(), 0.25)
    DetectorCheckpointer(model, str(tmp_path), optimizer=optimizer).save("model_0000007", iteration=7)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000007.pth"

    other, other_optimizer = detector(), torch.optim.SGD(detector().parameters(), 0.5)
    checkpointer = DetectorCheckpointer(other, str(tmp_path), optimizer=other_optimizer)
    rest = checkpointer.resume_or_load("", resume=True)
    assert rest["iteration"] == 7 and other_optimizer.param_groups[0]["lr"] == 0.25
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["model_0000007", "model_0000008"], ids=["the same name", "another name"])
def test_a_full_disk_costs_neither_the_last_checkpoint_nor_its_mark(tmp_path, full_disk, name):
    checkpointer = DetectorCheckpointer(detector(seed=1), str(tmp_path))
    checkpointer.save("model_0000007")
    before = contents(tmp_path)
    with pytest.raises(OSError, match=rf"File too large: '.*{name}\.pth'"), full_disk(50_000):
        DetectorCheckpointer(detector(), str(tmp_path)).save(name)
    assert contents(tmp_path) == before
    load(tmp_path / "model_0000007.pth", evaluate=True)


def test_a_folder_without_write_permission_is_an_error_that_names_the_checkpoint(locked_folder):
    with pytest.raises(PermissionError) as error:
        DetectorCheckpointer(detector(), str(locked_folder)).save("model_final")
    assert error.value.filename == str(locked_folder / "model_final.pth")


@pytest.mark.parametrize(
    "damage",
    [Path.unlink, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(path.read_bytes()[:5000])],
    ids=["deleted", "emptied", "cut"],
)
def test_a_run_whose_last_checkpoint_is_damaged_does_not_start_anew(tmp_path, damage):
    DetectorCheckpointer(detector(seed=1), str(tmp_path)).save("model_0000007")
    damage(tmp_path / "model_0000007.pth")
    with pytest.raises(InputError, match=r"model_0000007\.pth: (damaged|no such weight file)"):
        DetectorCheckpointer(detector(), str(tmp_path)).resume_or_load("", resume=True)


@pytest.mark.parametrize(
    ("note", "message"),
    [(b"\xff\0", "last_checkpoint: not a readable text file"), (b" \n", "last_checkpoint: is empty")],
)
def test_a_mark_that_names_no_checkpoint_is_refused(tmp_path, note, message):
    (tmp_path / "last_checkpoint").write_bytes(note)
    with pytest.raises(InputError, match=message):
        DetectorCheckpointer(detector(), str(tmp_path)).resume_or_load("", resume=True)
