"""TF-Slim's network with its norms' statistics, itself and written down, against ours with converted weights.

TF-Slim's weights are [height, width, in, out].
"""

import math
from pathlib import Path
from typing import Mapping

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_tf_slim import TFSlimNetwork, assert_close, convert_weights, image
from tf_writers import write_bundle, write_v1
from torch import Tensor

from sact_det.base.errors import InputError
from sact_det.classification.model import Classifier
from sact_det.network.resnet_v2 import ResNetV2Spec
from sact_det.weights.tf_checkpoint import open_checkpoint
from sact_det.weights.tf_slim_checkpoint import convert_tf_slim_checkpoint
from sact_det.weights.weight_file import load_weights

SCOPE = "resnet_v2_101/"
UNITS, WIDTH, CLASSES = (2, 2, 3, 2), 4, 5
UNIT = f"{SCOPE}block2/unit_1/bottleneck_v2"
Variables = Mapping[str, np.ndarray]


def slim_checkpoint(units: tuple[int, ...] = UNITS, width: int = WIDTH) -> Variables:
    """Random variables of a training checkpoint: weights, norms with statistics, slots, counter."""
    rng = np.random.default_rng(0)
    variables: dict[str, np.ndarray] = {}

    def add(name: str, *shape: int, mean: float = 0.0, scale: float = 0.2) -> None:
        variables[SCOPE + name] = rng.normal(mean, scale, shape).astype(np.float32)

    def add_norm(name: str, channels: int) -> None:
        add(f"{name}/beta", channels)
        add(f"{name}/gamma", channels, mean=1.0)
        add(f"{name}/moving_mean", channels)
        add(f"{name}/moving_variance", channels, mean=2.0)

    def add_conv(name: str, side: int, channels: int, out: int, norm: bool = False) -> None:
        add(f"{name}/weights", side, side, channels, out, scale=(side * side * channels) ** -0.5)
        if norm:
            add_norm(f"{name}/BatchNorm", out)
        else:
            add(f"{name}/biases", out)

    add_conv("conv1", 7, 3, 64)
    channels = 64
    for block, num_units in enumerate(units, 1):
        for unit in range(1, num_units + 1):
            name = f"block{block}/unit_{unit}/bottleneck_v2"
            add_norm(f"{name}/preact", channels)
            if unit == 1:
                add_conv(f"{name}/shortcut", 1, channels, 4 * width)
            add_conv(f"{name}/conv1", 1, channels, width, norm=True)
            add_conv(f"{name}/conv2", 3, width, width, norm=True)
            add_conv(f"{name}/conv3", 1, width, 4 * width)
            channels = 4 * width
        width *= 2
    add_norm("postnorm", channels)
    add_conv("logits", 1, channels, CLASSES)
    trained = [name for name in variables if "moving_" not in name]
    variables.update({f"{name}/Momentum": np.ones_like(variables[name]) for name in trained})
    variables["global_step"] = np.array(1000, np.int64)
    return variables


class TFSlimTrained(TFSlimNetwork):
    """TF-Slim's forward pass with norms that normalise by their moving statistics."""

    def __init__(self, variables: Variables):
        self.tensors = {
            name.removeprefix(SCOPE).replace("/", "_"): torch.from_numpy(value.astype(np.float64))
            for name, value in variables.items()
        }

    def conv(self, name: str, x: Tensor, stride: int = 1, pad: int = 0) -> Tensor:
        weights = self.tensors[f"{name}_weights"].permute(3, 2, 0, 1)
        y = F.conv2d(F.pad(x, (pad, pad, pad, pad)), weights, self.tensors.get(f"{name}_biases"), stride)
        return self.norm(f"{name}_BatchNorm", y) if f"{name}_BatchNorm_gamma" in self.tensors else y

    def norm(self, name: str, x: Tensor) -> Tensor:
        kinds = ("gamma", "beta", "moving_mean", "moving_variance")
        gamma, beta, mean, variance = (self.tensors[f"{name}_{kind}"][:, None, None] for kind in kinds)
        return gamma * (x - mean) / torch.sqrt(variance + 1e-5) + beta

    def norm_relu(self, name: str, x: Tensor) -> Tensor:
        return F.relu(self.norm(name, x))


def our_network(variables: Variables) -> Classifier:
    state_dict, metadata = convert_tf_slim_checkpoint(variables)
    spec = ResNetV2Spec(metadata["units"], metadata["base_channels"], "none", dilation=metadata["dilation"])
    network = Classifier(spec, metadata["num_classes"]).eval()
    network.load_state_dict(state_dict)
    return network


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 96), (97, 131), (65, 66), (81, 64)])
def test_every_block_and_the_logits_are_those_of_tf_slim(size: tuple[int, int]):
    variables = slim_checkpoint()
    ours, theirs = our_network(variables), TFSlimTrained(variables)
    y, z = ours.stem(image(size)), theirs.root(image(size).double())
    for index in (1, 2, 3, 4):
        y, z = ours.get_submodule(f"block{index}")(y)[0], theirs.block(index, UNITS[index - 1], z)
        assert_close(y if index == 4 else y[:, :, ::2, ::2], z)
    assert_close(ours(image(size)).logits, theirs.logits(z))


@torch.no_grad()
@pytest.mark.parametrize("file", ["v1/resnet_v2_50.ckpt", "v2"])
def test_a_checkpoint_of_tf_slim_itself_computes_what_tf_slim_computed(file: str):
    folder = Path(__file__).resolve().parents[1] / "fixtures" / "tensorflow" / "resnet_v2"
    network, expected = our_network(open_checkpoint(folder / file)), np.load(folder / "expected.npz")
    assert (network.spec.units, network.spec.base_channels) == ((2, 1, 2, 1), 2)
    for size in ("40x33", "31x34", "64x64"):
        x, block3 = (torch.from_numpy(expected[f"{size}/{key}"]).permute(0, 3, 1, 2) for key in ("image", "block3"))
        y = network.stem(x)
        for name in ("block1", "block2", "block3"):
            y = network.get_submodule(name)(y)[0]
        assert_close(y[:, :, ::2, ::2], block3)
        assert_close(network(x).logits, torch.from_numpy(expected[f"{size}/logits"]))


def test_norms_keep_the_statistics_of_the_source():
    state_dict, _ = convert_tf_slim_checkpoint(slim_checkpoint())
    for ours, theirs in {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    }.items():
        value = slim_checkpoint()[f"{UNIT}/conv2/BatchNorm/{theirs}"]
        assert np.array_equal(state_dict[f"block2.units.0.norm2.{ours}"].numpy(), value)


def test_the_metadata_describe_the_network_and_list_what_is_left_out():
    _, metadata = convert_tf_slim_checkpoint(slim_checkpoint())
    unused = metadata.pop("unused")
    assert metadata == {
        "family": "imagenet",
        "units": UNITS,
        "base_channels": WIDTH,
        "halting": "none",
        "dilation": (1, 2, 2, 2),
        "stem_pool": "same",
        "num_classes": CLASSES,
        "source": "TF-Slim resnet_v2_101",
        "missing": [],
    }
    assert unused == [name for name in slim_checkpoint() if name.endswith("Momentum") or name == "global_step"]


def without(name: str) -> Variables:
    return {key: value for key, value in slim_checkpoint().items() if not key.startswith(name)}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "no variable of TF-Slim's networks .*; the checkpoint has none at all"),
        ({"vgg_16/conv1/weights": np.zeros(1)}, "the checkpoint has vgg_16/conv1/weights"),
        (without(f"{UNIT}/conv2/BatchNorm/moving_mean"), f"^{UNIT}/conv2/BatchNorm/moving_mean: not in the checkpoint"),
        (without(f"{SCOPE}logits"), f"^{SCOPE}logits/weights: not in the checkpoint"),
        (without(f"{SCOPE}block3/unit_2/"), "^unit 2 of block 3 is not in the checkpoint"),
        (without(f"{SCOPE}block4/"), "^unit 1 of block 4 is not in the checkpoint"),
        (
            {**slim_checkpoint(), f"{SCOPE}block5/unit_1/bottleneck_v2/conv1/weights": np.zeros(1)},
            "TF-Slim's networks have 4 blocks",
        ),
        (
            {**slim_checkpoint(), f"{UNIT}/conv1/biases": np.zeros(4)},
            f"^{UNIT}/conv1/biases: not a variable of TF-Slim's resnet_v2_101, units ",
        ),
        (
            {**slim_checkpoint(), f"{UNIT}/conv3/biases": np.zeros(3, np.float32)},
            rf"^{UNIT}/conv3/biases: is float32 \[3\]; expected floats \[32\]",
        ),
        (
            {**slim_checkpoint(), f"{UNIT}/conv3/biases": np.zeros(32, np.int64)},
            rf"^{UNIT}/conv3/biases: is int64 \[32\]; expected floats",
        ),
        (
            {**slim_checkpoint(), f"{SCOPE}logits/weights": np.zeros((1, 1))},
            rf"^{SCOPE}logits/weights: has shape \[1, 1\]; expected \[height, width, in, out\]",
        ),
    ],
)
def test_variables_of_another_network_are_refused_by_name(variables: Variables, message: str):
    with pytest.raises(InputError, match=message):
        convert_tf_slim_checkpoint(variables)


@pytest.mark.parametrize("form", ["V2", "V1"])
def test_the_command_line_converts_both_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str):
    variables = slim_checkpoint((1, 1, 1, 1))
    (write_bundle if form == "V2" else write_v1)(tmp_path / "slim.ckpt", variables)
    convert_weights("tf-slim", tmp_path / "slim.ckpt", tmp_path / "ours.pth")
    state_dict, metadata = load_weights(tmp_path / "ours.pth")
    expected, _ = convert_tf_slim_checkpoint(variables)
    assert state_dict.keys() == expected.keys()
    assert all(torch.equal(state_dict[name], expected[name]) for name in expected)
    assert sum(value.numel() for value in expected.values()) > math.prod((7, 7, 3, 64))
    files = ["slim.ckpt"] if form == "V1" else ["slim.ckpt.index", "slim.ckpt.data-00000-of-00001"]
    assert metadata["source"].startswith(f"TF-Slim resnet_v2_101, from {files[0]}, sha256 ")
    assert all(f"{file}, sha256 " in metadata["source"] for file in files)
    printed = capsys.readouterr().out
    assert "MODEL.SACT.DILATION '(1, 2, 2, 2)'\n" in printed
    assert "not used from the source: " in printed and " more\n" in printed
    convert_weights("inspect", tmp_path / "slim.ckpt")
    inspected = capsys.readouterr().out
    assert f"to be converted: python tools/convert_weights.py tf-slim {tmp_path / 'slim.ckpt'} OUT.pth\n" in inspected
    assert printed.partition("  MODEL.SACT")[2] == inspected.partition("  MODEL.SACT")[2]
