"""Weights in a byte each: what a file holds, how far it is from the weights, and what is refused."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from sact_det.base.errors import InputError
from sact_det.network.classifier import ClassifierNetwork
from sact_det.network.resnet_v2 import ResNetV2Spec
from sact_det.weights.compact import load_compact, save_compact
from sact_det.weights.named import weights_named
from sact_det.weights.published import OWN, PUBLISHED
from sact_det.weights.weight_file import load_weights, save_weights

ROOT = Path(__file__).resolve().parents[2]
METADATA = {"family": "imagenet", "units": [1, 2, 1], "base_channels": 4, "halting": "sact", "num_classes": 3}
CONVERT = runpy.run_path(str(ROOT / "tools/convert_weights.py"))["main"]
OURS = [own for own in PUBLISHED.values() if Path(own.url).parent == OWN]


@pytest.fixture
def weights():
    torch.manual_seed(0)
    network = ClassifierNetwork(ResNetV2Spec((1, 2, 1), 4, halting="sact"), 3)
    state_dict = network.state_dict()
    state_dict["block1.units.0.conv1.weight"][1] = 0  # a channel that is nothing but zeros has no scale
    return state_dict


def test_every_weight_is_within_half_a_scale_and_what_is_small_is_exact(tmp_path, weights):
    path = tmp_path / "w.npz"
    save_compact(path, weights, METADATA)
    read, metadata = load_compact(path)
    assert metadata == METADATA and read.keys() == weights.keys()
    packed = 0
    for name, values in weights.items():
        assert read[name].dtype == values.dtype and read[name].shape == values.shape
        if values.dim() < 2 or values.shape[0] == 1:
            assert torch.equal(read[name], values), name
        else:
            largest = values.abs().flatten(1).amax(1).view(-1, *[1] * (values.dim() - 1))
            assert ((read[name] - values).abs() <= largest / 127 * (0.5 + 1e-5)).all(), name
            packed += 1
    assert packed and any("halting" in name and values.shape[:1] == (1,) for name, values in weights.items())
    assert path.stat().st_size < 0.5 * 4 * sum(values.numel() for values in weights.values())


def test_packing_twice_changes_nothing_more(tmp_path, weights):
    save_compact(tmp_path / "once.npz", weights, METADATA)
    once = load_compact(tmp_path / "once.npz").state_dict
    save_compact(tmp_path / "twice.npz", once, METADATA)
    twice = load_compact(tmp_path / "twice.npz").state_dict
    assert all(torch.allclose(twice[name], once[name], rtol=1e-6, atol=0) for name in once)


def test_the_command_packs_and_unpacks(tmp_path, weights, capsys):
    save_weights(tmp_path / "ours.pth", weights, METADATA)
    CONVERT(["compact", str(tmp_path / "ours.pth"), str(tmp_path / "w.npz")])
    CONVERT(["from-compact", str(tmp_path / "w.npz"), str(tmp_path / "back.pth")])
    back = load_weights(tmp_path / "back.pth")
    assert "w.npz, sha256 " in back.metadata["source"] and back.metadata["units"] == [1, 2, 1]
    expected = load_compact(tmp_path / "w.npz").state_dict
    assert all(torch.equal(back.state_dict[name], expected[name]) for name in expected)
    capsys.readouterr()
    for source, target, message in (
        ("ours.pth", "w.pth", "w.pth: is not named as weights in a byte each are; expected NAME.npz"),
        ("w.npz", "x.npz", "w.npz: expected a weight file of ours"),
    ):
        with pytest.raises(SystemExit):
            CONVERT(["compact", str(tmp_path / source), str(tmp_path / target)])
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        {"description": np.array("no json")},
        {"description": np.array("[]")},
        {"description": np.array(json.dumps({"packed": {}, "whole": {"w": ["x"]}, "sact": METADATA}))},
        {"description": np.array(json.dumps({"packed": {"w": []}, "whole": {}, "sact": METADATA}))},
        {"values": np.zeros(3, np.float32)},
        {"numbers": np.zeros(3, np.int8)},
        {"numbers": None},
    ],
)
def test_what_is_no_such_file_is_one_line(tmp_path, weights, change):
    path = tmp_path / "w.npz"
    save_compact(path, weights, METADATA)
    with np.load(path) as file:
        arrays = {**file, **change}
    np.savez(path, **{name: values for name, values in arrays.items() if values is not None})
    with pytest.raises(InputError, match=r"w\.npz: expected an npz of weights in a byte each") as error:
        load_compact(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("own", OURS, ids=lambda own: own.name)
def test_our_own_weights_are_the_files_that_the_table_says(own, own_cache):
    path = weights_named(own.name)
    assert own_cache in path.parents and own.sha256[:8] in path.name
    assert Path(own.url).stat().st_size == own.size
    metadata = load_weights(path).metadata
    assert f"{own.name}.npz, sha256 {own.sha256}" in metadata["source"] and metadata["halting"] == "sact"


def test_all_our_own_weights_are_small_and_in_the_table():
    assert {Path(own.url).name for own in OURS} == {path.name for path in OWN.glob("*")}
    assert OURS and sum(own.size for own in OURS) < 3_000_000
