"""The files of timm: which of them are read, which weights are taken, what the command line makes of them."""

import argparse
import io
from pathlib import Path

import pytest
import safetensors.torch
import torch
from test_tf_slim import convert_weights
from test_timm import GROUP_NORM, timm_network

from sact_det.base.errors import InputError
from sact_det.weights.timm import convert_timm, read_timm_file
from sact_det.weights.weight_file import load_weights

timm = pytest.importorskip("timm")


def torch_bytes(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["safetensors", "bare", "model", "state_dict", "module.", "_orig_mod.module."])
def test_state_dicts_are_read_from_every_usual_file(tmp_path: Path, form: str):
    state_dict = timm_network().state_dict()
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        safetensors.torch.save_file(state_dict, path)
    elif form.endswith("."):
        torch.save({f"{form}{name}": value for name, value in state_dict.items()}, path)
    else:
        torch.save(state_dict if form == "bare" else {form: state_dict, "epoch": 3}, path)
    read = read_timm_file(path).state_dict
    assert read.keys() == state_dict.keys()
    assert all(torch.equal(read[name], state_dict[name]) for name in read)


@pytest.mark.parametrize("averages", ["state_dict_ema", "model_ema"])
def test_moving_averages_are_taken_unless_they_are_not_wanted(tmp_path: Path, averages: str):
    path = tmp_path / "checkpoint.pth.tar"
    content = {"epoch": 3, "args": argparse.Namespace(model="resnetv2_50"), "state_dict": {"a": torch.zeros(1)}}
    torch.save({**content, averages: {"module.a": torch.ones(1)}}, path)
    assert read_timm_file(path) == read_timm_file(path, ema=True)
    assert read_timm_file(path) == ({"a": torch.ones(1)}, averages, "state_dict")
    assert read_timm_file(path, ema=False) == ({"a": torch.zeros(1)}, "state_dict", averages)
    assert read_timm_file(path).state_dict == {"a": torch.ones(1)}
    assert (
        timm.models.load_state_dict(str(path), weights_only=False) == read_timm_file(path).state_dict
    )  # timm's own choice
    torch.save(content, path)
    assert read_timm_file(path) == ({"a": torch.zeros(1)}, "state_dict", None)
    with pytest.raises(InputError, match="holds no moving averages"):
        read_timm_file(path, ema=True)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    "content",
    [None, b"", b"hello, this is text", bytes(100), b"\xff" * 100, safetensors.torch.save({"a": torch.zeros(99)})[:-9]],
    ids=["missing", "empty", "text", "zeros", "ones", "truncated"],
)
def test_a_file_that_is_no_state_dict_is_refused_in_one_line(tmp_path: Path, content: bytes | None, suffix: str):
    path = tmp_path / f"w{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_timm_file(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_a_folder_is_refused(tmp_path: Path):
    (tmp_path / "w.safetensors").mkdir()
    with pytest.raises(InputError, match=r"w\.safetensors: "):
        read_timm_file(tmp_path / "w.safetensors")


def test_the_command_line_writes_a_weight_file_with_the_pooling_and_the_pixels_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source, output = tmp_path / "w.safetensors", tmp_path / "ours.pth"
    state_dict = timm_network().state_dict()
    safetensors.torch.save_file(state_dict, source)
    convert_weights("timm", source, output, "--mean", 0.1, 0.2, 0.3)
    saved, metadata = load_weights(output)
    expected, _ = convert_timm(state_dict)
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], expected[name]) for name in expected)
    assert metadata["source"].startswith("timm resnetv2, from w.safetensors, sha256 ")
    printed = capsys.readouterr().out
    assert "MODEL.SACT.STEM_POOL symmetric\n" in printed
    assert "MODEL.CLASSIFIER.NUM_CLASSES 7\n" in printed
    assert "MODEL.PIXEL_MEAN '[25.5, 51.0, 76.5]'\n" in printed
    assert "MODEL.PIXEL_STD '[127.5, 127.5, 127.5]'\n" in printed


def test_the_command_line_ends_bad_input_with_one_line_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source, output = tmp_path / "w.pth", tmp_path / "ours.pth"
    source.write_bytes(torch_bytes(timm_network(norm_layer=GROUP_NORM).state_dict()))
    with pytest.raises(SystemExit, match="1"):
        convert_weights("timm", source, output)
    captured = capsys.readouterr()
    assert captured.err.startswith("error: stages.0.blocks.0.norm1.running_mean: ") and captured.err.count("\n") == 1
    assert not output.exists() and not captured.out


def test_the_command_line_says_which_weights_of_a_training_it_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source, output = tmp_path / "checkpoint.pth.tar", tmp_path / "ours.pth"
    state_dict = timm_network().state_dict()
    averages = {name: value + value if value.is_floating_point() else value for name, value in state_dict.items()}
    torch.save({"state_dict": state_dict, "state_dict_ema": averages, "args": argparse.Namespace()}, source)
    for option, taken, other in (
        ([], "state_dict_ema", "--no-ema takes state_dict"),
        (["--ema"], "state_dict_ema", "--no-ema takes state_dict"),
        (["--no-ema"], "state_dict", "--ema takes state_dict_ema"),
    ):
        convert_weights("timm", source, output, *option)
        assert f"{source}: {taken} is taken; {other}\n" in capsys.readouterr().out
        saved, metadata = load_weights(output)
        factor = 2 if taken == "state_dict_ema" else 1
        assert torch.equal(saved["stem.conv.weight"], factor * state_dict["stem.conv.weight"])
        assert f"({taken}), from checkpoint.pth.tar, sha256 " in metadata["source"]
    convert_weights("inspect", source)
    printed = capsys.readouterr().out
    assert f"to be converted: python tools/convert_weights.py timm {source} OUT.pth\n" in printed
    assert "state_dict_ema is taken; --no-ema takes state_dict\n" in printed
    assert "MODEL.SACT.STEM_POOL symmetric\n" in printed


def test_the_command_line_does_not_replace_its_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = tmp_path / "w.pth"
    source.write_bytes(torch_bytes(timm_network().state_dict()))
    (tmp_path / "link.pth").symlink_to(source)
    before = source.read_bytes()
    for output in (source, tmp_path / "link.pth", tmp_path / ".." / tmp_path.name / "w.pth"):
        with pytest.raises(SystemExit, match="1"):
            convert_weights("timm", source, output)
        assert "would replace what it is made from" in capsys.readouterr().err
    assert source.read_bytes() == before
