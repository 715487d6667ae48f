"""What the converter of the original's checkpoints refuses and leaves out; tests/parity has its numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sact_det import build_classifier
from sact_det.base.errors import InputError
from sact_det.weights import load_sact_tf
from sact_det.weights.sact_tf import convert_sact_tf
from sact_det.weights.tf_bundle import TensorBundle

ORACLE = Path(__file__).parents[1] / "fixtures" / "oracle"
SACT = ORACLE / "sact_small_even"
UNIT = "resnet_v2/block2/unit_1/bottleneck_v2"


@pytest.fixture
def variables() -> dict[str, np.ndarray]:
    return dict(TensorBundle(SACT / "ckpt"))


@pytest.mark.parametrize(
    ("case", "family", "units", "width", "halting", "classes"),
    [
        ("sact_small_even", "imagenet", (2, 3, 4, 2), 8, "sact", 17),
        ("act_small_even", "imagenet", (2, 3, 4, 2), 8, "act", 17),
        ("vanilla_small_odd", "imagenet", (2, 3, 4, 2), 8, "none", 17),
        ("cifar_sact", "cifar", (5, 5, 5), 16, "sact", 10),
    ],
)
def test_architecture_follows_from_names_and_shapes(case, family, units, width, halting, classes):
    state_dict, metadata = convert_sact_tf(TensorBundle(ORACLE / case / "ckpt"))
    assert (metadata["family"], metadata["units"], metadata["base_channels"]) == (family, units, width)
    assert (metadata["halting"], metadata["num_classes"]) == (halting, classes)
    assert metadata["missing"] == [] and metadata["unused"] == ["global_step"]
    model = build_classifier(units, None, halting, classes, width, family=family)
    model.load_state_dict(state_dict)  # strict: neither missing nor unexpected
    assert all(value.dtype in (torch.float32, torch.int64) for value in state_dict.values())


@pytest.mark.parametrize("path", ["ckpt", "ckpt/model-0", "ckpt/model-0.index"])
def test_folder_prefix_and_index_name_the_same_checkpoint(path: str):
    state_dict, expected = load_sact_tf(SACT / path), load_sact_tf(str(SACT / "ckpt"))
    assert state_dict.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in state_dict.items())


def test_slots_of_a_training_checkpoint_are_left_out_and_listed():
    state_dict, metadata = convert_sact_tf(TensorBundle(SACT / "ckpt_momentum"))
    plain = load_sact_tf(SACT / "ckpt")
    assert state_dict.keys() == plain.keys()
    unused = metadata["unused"]
    assert "global_step" in unused and len(unused) == 1 + sum(name.endswith("/Momentum") for name in unused)
    assert len(unused) > 100


def test_averages_are_left_out_and_listed(variables):
    variables[f"{UNIT}/conv1/weights/ExponentialMovingAverage"] = variables[f"{UNIT}/conv1/weights"]
    state_dict, metadata = convert_sact_tf(variables)
    assert state_dict.keys() == load_sact_tf(SACT / "ckpt").keys()
    assert f"{UNIT}/conv1/weights/ExponentialMovingAverage" in metadata["unused"]


def test_weights_are_transposed_from_hwio(variables):
    state_dict, _ = convert_sact_tf(variables)
    weight = state_dict["block2.units.0.conv2.weight"]
    assert weight.is_contiguous() and weight.shape == (16, 16, 3, 3)
    assert weight[3, 5, 2, 1] == variables[f"{UNIT}/conv2/weights"][2, 1, 5, 3]


def without(*names):
    return lambda v: {name: value for name, value in v.items() if name not in names}


def replaced(name, change):
    return lambda v: {**v, name: change(v[name])}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda v: {"vgg_16/conv1/weights": np.zeros(3, np.float32)}, r"no variable of the original.*has vgg_16/conv1"),
        (lambda v: {}, "the checkpoint has none at all"),
        (without(f"{UNIT}/conv2/weights"), f"{UNIT}/conv2/weights: not in the checkpoint"),
        (without("resnet_v2/logits/weights"), "resnet_v2/logits/weights: not in the checkpoint"),
        (
            lambda v: {name: value for name, value in v.items() if "block2/unit_2" not in name},
            "unit 2 of block 2 is not in the checkpoint",
        ),
        (
            lambda v: {name: value for name, value in v.items() if "block4" not in name},
            "unit 1 of block 4 is not in the checkpoint",
        ),
        (
            replaced(f"{UNIT}/conv2/weights", lambda w: w[..., :4]),
            rf"{UNIT}/conv2/weights: is float32 \[3, 3, 16, 4\]; expected floats \[3, 3, 16, 16\]",
        ),
        (
            replaced(f"{UNIT}/conv2/weights", lambda w: w.astype(np.int32)),
            r"is int32 \[3, 3, 16, 16\]; expected floats",
        ),
        (replaced("resnet_v2/logits/weights", lambda w: w[0, 0]), r"expected \[height, width, in, out\]"),
        (
            lambda v: {**v, f"{UNIT}/conv4/weights": np.zeros(3, np.float32)},
            f"{UNIT}/conv4/weights: not a variable of the original's imagenet network",
        ),
        (
            lambda v: {**v, "resnet_v2/block5/unit_1/bottleneck_v2/conv1/weights": np.zeros(3, np.float32)},
            "the original's imagenet networks have 4 blocks",
        ),
    ],
)
def test_variables_of_another_network_are_refused_by_name(variables, damage, message):
    with pytest.raises(InputError, match=message):
        convert_sact_tf(damage(variables))
