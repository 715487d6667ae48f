"""TF-Slim's variables in an npz: a sound one is converted, anything else is refused in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_tf_slim import PREFIX, convert_weights, tf_slim_variables

from sact_det.base.errors import InputError
from sact_det.weights.tf_slim import convert_tf_slim, read_npz
from sact_det.weights.weight_file import load_weights


def write_npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def write_truncated(path: Path) -> None:
    np.savez(path, **tf_slim_variables())
    path.write_bytes(path.read_bytes()[:-1000])


def write_damaged(path: Path) -> None:
    np.savez(path, **tf_slim_variables())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def write_pickled(path: Path) -> None:
    np.savez(path, **{f"{PREFIX}conv1_weights": np.array([Path("an object")], object)})


@pytest.mark.parametrize(
    "write",
    [
        lambda path: None,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not an npz"),
        write_npy,
        write_truncated,
        write_damaged,
        write_pickled,
    ],
    ids=["missing", "empty", "text", "npy", "truncated", "damaged", "pickled"],
)
def test_a_file_that_is_no_sound_npz_is_refused_in_one_line(tmp_path: Path, write):
    path = tmp_path / "variables.npz"
    write(path)
    with pytest.raises(InputError) as error:
        read_npz(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_the_command_line_writes_a_weight_file_and_names_the_config_keys_and_missing_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source, output = tmp_path / "slim.npz", tmp_path / "ours.pth"
    variables = {name: value for name, value in tf_slim_variables().items() if "logits" not in name}
    np.savez(source, **variables)
    convert_weights("tf-slim", source, output)
    state_dict, metadata = load_weights(output)
    expected, _ = convert_tf_slim(variables)
    assert state_dict.keys() == expected.keys()
    assert all(torch.equal(state_dict[name], expected[name]) for name in expected)
    assert metadata["source"].startswith("TF-Slim resnet_v2_50, from slim.npz, sha256 ")
    printed = capsys.readouterr().out
    assert "missing, will start fresh: logits\n" in printed
    assert f"MODEL.WEIGHTS {output}\n" in printed
    assert "MODEL.SACT.DILATION '(1, 2, 2, 2)'\n" in printed
    convert_weights("inspect", output)
    assert capsys.readouterr().out == printed
    convert_weights("inspect", source)
    inspected = capsys.readouterr().out
    assert f"to be converted: python tools/convert_weights.py tf-slim {source} OUT.pth\n" in inspected
    assert printed.partition("  MODEL.SACT")[2] == inspected.partition("  MODEL.SACT")[2]


def test_the_command_line_ends_bad_input_with_one_line_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source, output = tmp_path / "slim.npz", tmp_path / "ours.pth"
    source.write_bytes(b"not an npz")
    output.write_bytes(b"precious")
    for arguments in (["tf-slim", source, output], ["inspect", source]):
        with pytest.raises(SystemExit, match="1"):
            convert_weights(*arguments)
        assert capsys.readouterr().err.startswith(f"error: {source}: ")
    assert output.read_bytes() == b"precious"
