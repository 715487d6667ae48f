"""TF-Slim's network, written down in its own layout, against ours with the converted weights.

Shape shorthand: N images; C channels; H, W feature map. TF-Slim's weights are [out, height, width, in].
"""

import math
import os
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sact_det.base.errors import InputError
from sact_det.classification.model import Classifier
from sact_det.network.resnet_v2 import ResNetV2Spec
from sact_det.weights.tf_slim import convert_tf_slim, read_npz

ROOT = Path(__file__).resolve().parents[2]
SHARED_DATA = Path(os.environ.get("SACT_SHARED_DATA", ROOT.parent / "shared" / "data"))
REAL_FILE = SHARED_DATA / "weights" / "tfslim_resnet_v2_50_blocks123_fp16.npz"

PREFIX = "resnet_v2_50_"
UNITS, WIDTH, CLASSES = (2, 2, 3, 2), 4, 5
IMAGE_SIZES = [(64, 96), (97, 131), (65, 66), (81, 64), (1, 1)]
ONE_UNIT_PER_BLOCK = (1, 1, 1, 1)
Variables = dict[str, np.ndarray]


def tf_slim_variables(units: tuple[int, ...] = UNITS, width: int = WIDTH, prefix: str = PREFIX) -> Variables:
    """Random variables of a whole network."""
    rng = np.random.default_rng(0)
    variables: Variables = {}

    def add(name: str, *shape: int, mean: float = 0.0) -> None:
        deviation = math.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.2
        variables[prefix + name] = rng.normal(mean, deviation, shape).astype(np.float16)

    def add_conv(name: str, out: int, side: int, channels: int) -> None:
        add(f"{name}_weights", out, side, side, channels)
        add(f"{name}_Conv2D_bias", out)

    def add_norm(name: str, channels: int) -> None:
        add(f"{name}_FusedBatchNorm_mul_0_param", channels, mean=1.0)
        add(f"{name}_FusedBatchNorm_add_param", channels)

    add_conv("conv1", 64, 7, 3)
    channels = 64
    for block, num_units in enumerate(units, 1):
        for unit in range(1, num_units + 1):
            name = f"block{block}_unit_{unit}_bottleneck_v2"
            add_norm(f"{name}_preact", channels)
            add_conv(f"{name}_conv1", width, 1, channels)
            add_conv(f"{name}_conv2", width, 3, width)
            add_conv(f"{name}_conv3", 4 * width, 1, width)
            if unit == 1:
                add_conv(f"{name}_shortcut", 4 * width, 1, channels)
            channels = 4 * width
        width *= 2
    add_norm("postnorm", channels)
    add_conv("logits", CLASSES, 1, channels)
    return variables


class TFSlimNetwork:
    """The forward pass that TF-Slim defines; blocks 1-3 have stride 2 in their last unit."""

    def __init__(self, variables: Variables):
        self.tensors = {name.split("_", 3)[3]: torch.from_numpy(v.astype(np.float32)) for name, v in variables.items()}

    def conv(self, name: str, x: Tensor, stride: int = 1, pad: int = 0) -> Tensor:
        weights = self.tensors[f"{name}_weights"].permute(0, 3, 1, 2)
        return F.conv2d(F.pad(x, (pad, pad, pad, pad)), weights, self.tensors[f"{name}_Conv2D_bias"], stride)

    def norm_relu(self, name: str, x: Tensor) -> Tensor:
        scale, shift = (self.tensors[f"{name}_FusedBatchNorm_{kind}_param"] for kind in ("mul_0", "add"))
        return F.relu(x * scale[:, None, None] + shift[:, None, None])

    def root(self, x: Tensor) -> Tensor:
        x = self.conv("conv1", x, stride=2, pad=3)
        padding = []
        for side in (x.shape[3], x.shape[2]):  # "SAME" for 3x3/2
            total = max((math.ceil(side / 2) - 1) * 2 + 3 - side, 0)
            padding += [total // 2, total - total // 2]
        return F.max_pool2d(F.pad(x, padding, value=-math.inf), 3, 2)

    def unit(self, name: str, x: Tensor, stride: int) -> Tensor:
        preact = self.norm_relu(f"{name}_preact", x)
        has_conv = f"{name}_shortcut_weights" in self.tensors
        shortcut = self.conv(f"{name}_shortcut", preact) if has_conv else x
        y = F.relu(self.conv(f"{name}_conv1", preact))
        y = F.relu(self.conv(f"{name}_conv2", y, stride, pad=1))
        return shortcut[:, :, ::stride, ::stride] + self.conv(f"{name}_conv3", y)

    def block(self, index: int, num_units: int, x: Tensor) -> Tensor:
        for unit in range(1, num_units + 1):
            x = self.unit(f"block{index}_unit_{unit}_bottleneck_v2", x, 2 if index < 4 and unit == num_units else 1)
        return x

    def logits(self, x: Tensor) -> Tensor:
        return self.conv("logits", self.norm_relu("postnorm", x).mean((2, 3), keepdim=True))[:, :, 0, 0]


def our_network(variables: Variables) -> Classifier:
    state_dict, metadata = convert_tf_slim(variables)
    spec = ResNetV2Spec(metadata["units"], metadata["base_channels"], "none", dilation=metadata["dilation"])
    network = Classifier(spec, metadata["num_classes"] or 1).eval()
    _, unexpected = network.load_state_dict(state_dict, strict=False)
    assert not unexpected
    return network


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def image(size: tuple[int, int], batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1


@torch.no_grad()
def assert_extractors_agree(variables: Variables, x: Tensor) -> tuple[Tensor, Tensor]:
    """At the even positions behind each of blocks 1-3. Returns what block 3 yields, ours and TF-Slim's."""
    ours, theirs = our_network(variables), TFSlimNetwork(variables)
    y, z = ours.stem(x), theirs.root(x)
    assert_close(y, z)
    for index in (1, 2, 3):
        y, z = ours.get_submodule(f"block{index}")(y)[0], theirs.block(index, ours.spec.units[index - 1], z)
        assert_close(y[:, :, ::2, ::2], z)
    return y, z


@pytest.mark.parametrize("size", IMAGE_SIZES)
def test_blocks_1_to_3_compute_what_tf_slim_computes_at_the_even_positions(size: tuple[int, int]):
    assert_extractors_agree(tf_slim_variables(), image(size))


@torch.no_grad()
@pytest.mark.parametrize("size", IMAGE_SIZES)
def test_a_whole_network_computes_the_logits_of_tf_slim(size: tuple[int, int]):
    variables = tf_slim_variables()
    ours, theirs = our_network(variables), TFSlimNetwork(variables)
    x = theirs.root(image(size))
    for index in (1, 2, 3, 4):
        x = theirs.block(index, UNITS[index - 1], x)
    assert_close(ours(image(size)).logits, theirs.logits(x))


@torch.no_grad()
def test_without_the_dilation_the_values_differ():
    variables = tf_slim_variables()
    network = our_network(variables)
    plain = Classifier(ResNetV2Spec(UNITS, WIDTH, "none"), CLASSES).eval()
    plain.load_state_dict(network.state_dict())
    with pytest.raises(AssertionError):
        assert_close(plain(image((64, 96))).logits, network(image((64, 96))).logits)


def test_a_whole_source_gives_every_value_of_the_classifier():
    state_dict, metadata = convert_tf_slim(tf_slim_variables())
    classifier = Classifier(ResNetV2Spec(UNITS, WIDTH, "none"), CLASSES)
    classifier.load_state_dict(state_dict)
    assert {k: v.dtype for k, v in state_dict.items()} == {k: v.dtype for k, v in classifier.state_dict().items()}
    assert metadata == {
        "family": "imagenet",
        "units": UNITS,
        "base_channels": WIDTH,
        "halting": "none",
        "dilation": (1, 2, 2, 2),
        "stem_pool": "same",
        "num_classes": CLASSES,
        "source": "TF-Slim resnet_v2_50",
        "missing": [],
    }


def test_converted_norms_have_exactly_the_weights_of_the_source():
    state_dict, _ = convert_tf_slim(tf_slim_variables())
    variables = tf_slim_variables()
    x = image((4, 4))[:, :1].expand(-1, WIDTH, -1, -1)
    network = our_network(variables)
    folded = variables[f"{PREFIX}block1_unit_1_bottleneck_v2_conv1_Conv2D_bias"].astype(np.float32)
    assert torch.equal(network.block1.units[0].norm1(x), x + torch.from_numpy(folded)[:, None, None])
    scale = variables[f"{PREFIX}block1_unit_1_bottleneck_v2_preact_FusedBatchNorm_mul_0_param"].astype(np.float32)
    assert torch.equal(state_dict["block1.units.0.preact.weight"], torch.from_numpy(scale))


@pytest.mark.parametrize(("depth", "units"), [(50, (2, 2, 3, 3)), (101, (2, 2, 23, 3)), (152, (2, 8, 36, 3))])
def test_blocks_that_the_source_lacks_have_the_units_of_the_depth_in_its_names(depth: int, units: tuple[int, ...]):
    present = [index for index, (a, b) in enumerate(zip(units, UNITS), 1) if a == b]
    variables = {
        name: value
        for name, value in tf_slim_variables(prefix=f"resnet_v2_{depth}_").items()
        if "_block" not in name or any(f"_block{index}_" in name for index in present)
    }
    state_dict, metadata = convert_tf_slim(variables)
    assert metadata["units"] == units
    assert metadata["dilation"] == tuple(2 if index > 1 and index in present else 1 for index in (1, 2, 3, 4))
    assert metadata["source"] == f"TF-Slim resnet_v2_{depth}"
    assert metadata["missing"][-1] == "block4.units.2.conv3"
    classifier = Classifier(ResNetV2Spec(units, WIDTH, "none"), CLASSES)
    missing, _ = classifier.load_state_dict(state_dict, strict=False)
    assert list(dict.fromkeys(name.rpartition(".")[0] for name in missing)) == metadata["missing"]


def test_an_unknown_variable_is_refused_by_name():
    for name in (
        "global_step",
        "resnet_v2_101_conv1_weights",
        f"{PREFIX}conv1_weights_Momentum",
        f"{PREFIX}block1_unit_9_bottleneck_v2_conv3_weights",
        f"{PREFIX}block5_unit_1_bottleneck_v2_conv1_weights",
        f"{PREFIX}block1_unit_2_bottleneck_v2_shortcut_weights",
    ):
        with pytest.raises(InputError, match=f"^{name}: not a variable of "):
            convert_tf_slim({**tf_slim_variables(), name: np.zeros((4, 1, 1, 16), np.float16)})


@pytest.mark.parametrize("name", list(tf_slim_variables(ONE_UNIT_PER_BLOCK)))
@pytest.mark.parametrize("wrong", [np.zeros((3, 1, 1, 3)), np.zeros(3), np.zeros(()), np.zeros((0, 1))])
def test_a_wrong_shape_is_refused_by_name(name: str, wrong: np.ndarray):
    with pytest.raises(InputError, match=rf"^{PREFIX}.*: is float64 .*; expected floats") as error:
        convert_tf_slim({**tf_slim_variables(ONE_UNIT_PER_BLOCK), name: wrong})
    layer, *_ = name.rpartition("_weights")
    assert str(error.value).startswith(layer or name)


def test_values_that_are_no_floats_are_refused_by_name():
    name = f"{PREFIX}postnorm_FusedBatchNorm_add_param"
    variables = tf_slim_variables()
    with pytest.raises(InputError, match=f"^{name}: is int64"):
        convert_tf_slim({**variables, name: np.zeros(variables[name].shape, np.int64)})


@pytest.mark.parametrize("name", list(tf_slim_variables(ONE_UNIT_PER_BLOCK)))
def test_half_a_layer_is_refused_by_name(name: str):
    variables = tf_slim_variables(ONE_UNIT_PER_BLOCK)
    del variables[name]
    with pytest.raises(InputError, match=f"^{name}: "):
        convert_tf_slim(variables)


@pytest.mark.parametrize("variables", [{}, {f"{PREFIX}conv1_weights": np.zeros((64, 7, 7, 3), np.float16)}])
def test_a_source_without_units_is_refused(variables: Variables):
    with pytest.raises(InputError, match="no residual unit"):
        convert_tf_slim(variables)


def convert_weights(*arguments: object) -> None:
    """The command line of tools/convert_weights.py."""
    runpy.run_path(str(ROOT / "tools" / "convert_weights.py"))["main"]([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def real_variables() -> Variables:
    if not REAL_FILE.is_file():
        pytest.skip(f"{REAL_FILE} is absent (SACT_SHARED_DATA names the folder that holds weights/)")
    return read_npz(REAL_FILE)


def test_the_imagenet_weights_lack_block_4_but_for_its_first_norm(real_variables: Variables):
    state_dict, metadata = convert_tf_slim(real_variables)
    assert (metadata["units"], metadata["base_channels"]) == ((3, 4, 6, 3), 64)
    assert (metadata["dilation"], metadata["num_classes"]) == ((1, 2, 2, 1), None)
    assert {name.rpartition(".")[0] for name in state_dict if name.startswith("block4")} == {"block4.units.0.preact"}
    missing = metadata["missing"]
    assert (missing[0], missing[-2:], len(missing)) == ("block4.units.0.conv1", ["postnorm", "logits"], 20)


@pytest.mark.parametrize("size", IMAGE_SIZES[1:3])
def test_the_imagenet_weights_compute_what_tf_slim_computes(real_variables: Variables, size: tuple[int, int]):
    y, _ = assert_extractors_agree(real_variables, image(size, batch=1))
    assert y.isfinite().all()
