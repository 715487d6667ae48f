"""tools/convert_weights.py on the original's checkpoints and on weight files; tests/weights has the conversions."""

import hashlib
import os
import runpy
import shutil
from pathlib import Path

import pytest
import torch

from sact_det.weights import load_sact_tf
from sact_det.weights.weight_file import load_weights, save_weights

ROOT = Path(__file__).resolve().parents[2]
ORACLE = ROOT / "tests" / "fixtures" / "oracle"


def convert_weights(*arguments: object) -> None:
    runpy.run_path(str(ROOT / "tools" / "convert_weights.py"))["main"]([str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("case", "lines"),
    [
        (
            "sact_small_even/ckpt_momentum",
            [
                "family: imagenet",
                "missing, will start fresh: nothing",
                "  MODEL.SACT.UNITS '(2, 3, 4, 2)'",
                "  MODEL.SACT.BASE_CHANNELS 8",
                "  MODEL.SACT.HALTING sact",
                "  MODEL.SACT.DILATION '(1, 1, 1, 1)'",
                "  MODEL.SACT.STEM_POOL same",
                "  MODEL.CLASSIFIER.NUM_CLASSES 17",
                "  MODEL.PIXEL_MEAN '[127.5, 127.5, 127.5]'",
            ],
        ),
        (
            "cifar_sact/ckpt/model-0.index",
            [
                "family: cifar",
                "parameters: 471,014",
                "not used from the source: global_step",
                "  MODEL.SACT.UNITS '(5, 5, 5)'",
                "  MODEL.CLASSIFIER.FAMILY cifar",
            ],
        ),
    ],
)
def test_checkpoints_of_the_original_become_weight_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str, lines: list[str]
):
    output = tmp_path / "ours.pth"
    convert_weights("sact-tf", ORACLE / case, output)
    state_dict, metadata = load_weights(output)
    expected = load_sact_tf(ORACLE / case)
    assert state_dict.keys() == expected.keys()
    assert all(torch.equal(state_dict[name], expected[name]) for name in expected)
    folder = ORACLE / case if (ORACLE / case).is_dir() else (ORACLE / case).parent
    files = [file for file in folder.iterdir() if file.name != "checkpoint"]
    assert len(files) == 2
    for file in files:
        assert f"{file.name}, sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}" in metadata["source"]
    printed = capsys.readouterr().out
    assert set(lines) <= set(printed.splitlines())
    convert_weights("inspect", output)
    assert capsys.readouterr().out == printed


def test_a_damaged_checkpoint_ends_in_one_line_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = Path(shutil.copytree(ORACLE / "cifar_sact" / "ckpt", tmp_path / "ckpt"))
    shard = folder / "model-0.data-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(SystemExit, match="1"):
        convert_weights("sact-tf", folder, tmp_path / "ours.pth")
    error = capsys.readouterr().err
    assert error.startswith(f"error: {shard}: truncated: ") and error.count("\n") == 1
    assert not (tmp_path / "ours.pth").exists()


def test_a_file_without_a_description_is_inspected_as_far_as_it_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    torch.save({"conv.weight": torch.zeros(2, 3), "norm.running_mean": torch.zeros(9)}, tmp_path / "w.pth")
    convert_weights("inspect", tmp_path / "w.pth")
    digest = hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path / 'w.pth'}: sha256 {digest}",
        "parameters: 6",
        "The file does not describe its network.",
    ]


@pytest.mark.parametrize("change", [{"units": 3}, {"missing": 3}, {"unused": 3}, {"pixel_mean": 3}])
def test_a_nonsensical_description_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict):
    metadata = {"units": [1], "base_channels": 8, "dilation": [1], **change}
    save_weights(tmp_path / "w.pth", {"a": torch.zeros(1)}, metadata)
    with pytest.raises(SystemExit, match="1"):
        convert_weights("inspect", tmp_path / "w.pth")
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'w.pth'}: 'sact' does not describe a network")
    assert error.count("\n") == 1


def test_a_detectors_classes_are_those_of_its_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    metadata = {"family": "imagenet", "units": [1, 1, 1, 1], "base_channels": 8, "num_classes": 3}
    save_weights(tmp_path / "w.pth", {"roi_heads.box_predictor.cls_score.weight": torch.zeros(4, 8)}, metadata)
    convert_weights("inspect", tmp_path / "w.pth")
    printed = capsys.readouterr().out
    assert "network: a detector\n" in printed and "  MODEL.ROI_HEADS.NUM_CLASSES 3\n" in printed
    assert "CLASSIFIER" not in printed


@pytest.mark.parametrize("case", ["sact_small_even/ckpt_momentum", "cifar_sact/ckpt/model-0.index"])
def test_what_a_conversion_reads_is_inspected(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str):
    convert_weights("sact-tf", ORACLE / case, tmp_path / "ours.pth")
    config = capsys.readouterr().out.partition("  MODEL.SACT")[2]
    convert_weights("inspect", ORACLE / case)
    printed = capsys.readouterr().out
    assert f"to be converted: python tools/convert_weights.py sact-tf {ORACLE / case} OUT.pth\n" in printed
    assert printed.partition("  MODEL.SACT")[2] == config


def test_a_device_is_no_place_for_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SystemExit, match="1"):
        convert_weights("sact-tf", ORACLE / "cifar_sact" / "ckpt", tmp_path / "pipe")
    assert capsys.readouterr().err == (f"error: {tmp_path / 'pipe'}: is a pipe; expected a regular file, or none yet\n")
    assert (tmp_path / "pipe").is_fifo()
