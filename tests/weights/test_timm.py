"""timm's own networks against ours with the converted weights."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from sact_det.base.errors import InputError
from sact_det.classification.model import Classifier
from sact_det.network.resnet_v2 import ResNetV2Spec
from sact_det.weights.timm import convert_timm

timm = pytest.importorskip("timm")
from timm.models.resnetv2 import ResNetV2  # noqa: E402

UNITS, WIDTH, CLASSES = (2, 2, 3, 2), 8, 7
UNIT = "stages.1.blocks.0"
GROUP_NORM = partial(timm.layers.GroupNormAct, num_groups=4)
SIZES = [(64, 64), (64, 98), (97, 131), (65, 66), (1, 1)]


def randomised(network: nn.Module) -> nn.Module:
    """Random weights everywhere, and norms with random statistics; in evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data.normal_(0, module.weight[0].numel() ** -0.5, generator=generator)
            if module.bias is not None:
                module.bias.data.normal_(0, 0.3, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.num_batches_tracked.zero_()
    return network.eval()


def timm_network(**kwargs: object) -> ResNetV2:
    """Of the family of resnetv2_50, small."""
    channels = tuple(4 * WIDTH * 2**stage for stage in range(4))
    conv_layer, norm_layer = timm.layers.create_conv2d, timm.layers.BatchNormAct2d
    options = {"num_classes": CLASSES, "conv_layer": conv_layer, "norm_layer": norm_layer, **kwargs}
    return randomised(ResNetV2(list(UNITS), channels, **options))


def our_network(state_dict: dict[str, Tensor]) -> Classifier:
    converted, metadata = convert_timm(state_dict)
    spec = ResNetV2Spec(
        metadata["units"],
        metadata["base_channels"],
        metadata["halting"],
        dilation=metadata["dilation"],
        stem_pool=metadata["stem_pool"],
    )
    with torch.device("meta"):
        network = Classifier(spec, metadata["num_classes"]).eval()
    network.load_state_dict(converted, assign=True)
    return network


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


@torch.no_grad()
def errors(theirs: nn.Module, ours: Classifier, size: tuple[int, int]) -> tuple[float, float]:
    """Of the features behind block 3 and of the logits."""
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    features = ours.stem(x)
    for name in ("block1", "block2", "block3"):
        features = ours.get_submodule(name)(features)[0]
    return (
        relative_error(features, theirs.stages[:3](theirs.stem(x))),
        relative_error(ours(x).logits, theirs(x)),
    )


@pytest.mark.parametrize("size", SIZES)
def test_features_and_logits_are_those_of_timm(size: tuple[int, int]):
    theirs = timm_network()
    assert max(errors(theirs, our_network(theirs.state_dict()), size)) < 1e-5


def test_the_real_resnetv2_50_computes_the_same():
    theirs = randomised(timm.create_model("resnetv2_50", pretrained=False, device="meta").to_empty(device="cpu"))
    ours = our_network(theirs.state_dict())
    assert max(errors(theirs, ours, (64, 95))) < 1e-5
    assert (ours.spec.units, ours.spec.base_channels) == ((3, 4, 6, 3), 64)


@pytest.mark.parametrize("name", ["resnetv2_101", "resnetv2_152"])
def test_the_deeper_networks_are_known_by_their_names(name: str):
    with torch.device("meta"):
        theirs = timm.create_model(name, pretrained=False)
    state_dict, metadata = convert_timm(theirs.state_dict())
    assert metadata["source"] == f"timm {name}" and metadata["num_classes"] == 1000
    with torch.device("meta"):
        ours = Classifier(ResNetV2Spec(metadata["units"], 64, "none", stem_pool="symmetric"), 1000)
    assert {k: v.shape for k, v in state_dict.items()} == {k: v.shape for k, v in ours.state_dict().items()}


def test_published_weights_are_normalised_as_the_default_says():
    for name in ("resnetv2_50.a1h_in1k", "resnetv2_101.a1h_in1k"):
        published = timm.get_pretrained_cfg(name)
        assert published.mean == published.std == (0.5, 0.5, 0.5)


def test_with_the_pooling_of_tensorflow_the_values_differ_on_maps_of_even_size_only():
    theirs = timm_network()
    converted, _ = convert_timm(theirs.state_dict())
    same = Classifier(ResNetV2Spec(UNITS, WIDTH, "none"), CLASSES).eval()
    same.load_state_dict(converted)
    assert max(errors(theirs, same, (97, 97))) < 1e-5
    assert min(errors(theirs, same, (95, 95))) > 1e-2


def test_the_metadata_describe_the_network():
    state_dict, metadata = convert_timm(timm_network().state_dict(), mean=(0.485, 0.456, 0.406), std=(0.2, 0.4, 0.6))
    assert metadata.pop("pixel_mean") == pytest.approx([123.675, 116.28, 103.53])
    assert metadata.pop("pixel_std") == pytest.approx([51, 102, 153])
    assert metadata == {
        "family": "imagenet",
        "units": UNITS,
        "base_channels": WIDTH,
        "halting": "none",
        "dilation": (1, 1, 1, 1),
        "stem_pool": "symmetric",
        "num_classes": CLASSES,
        "source": "timm resnetv2",
        "missing": [],
    }
    assert not state_dict["stem.conv.bias"].any() and not state_dict["block2.units.1.conv3.bias"].any()


def test_a_headless_network_lacks_the_logits():
    state_dict, metadata = convert_timm(timm_network(num_classes=0).state_dict())
    assert (metadata["num_classes"], metadata["missing"]) == (None, ["logits"])
    missing, unexpected = Classifier(ResNetV2Spec(UNITS, WIDTH, "none"), 3).load_state_dict(state_dict, strict=False)
    assert missing == ["logits.weight", "logits.bias"] and not unexpected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_precision_become_float32(dtype: torch.dtype):
    state_dict = {k: v.to(dtype) if v.is_floating_point() else v for k, v in timm_network().state_dict().items()}
    converted, _ = convert_timm(state_dict)
    assert {value.dtype for value in converted.values()} == {torch.float32, torch.int64}
    assert torch.equal(converted["stem.conv.weight"], state_dict["stem.conv.weight"].float())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"norm_layer": GROUP_NORM, "conv_layer": timm.layers.StdConv2d},
            r"stages.0.blocks.0.norm1.running_mean: not in the source; expected timm's resnetv2_50",
        ),
        ({"stem_type": "deep", "avg_down": True}, r"stem.conv.weight: not in the source"),
        ({"basic": True, "bottle_ratio": 1.0}, r"stages.0.blocks.0.conv1.weight: is \[32, 64, 3, 3\]"),
        ({"preact": False}, r"stages.0.blocks.0.norm1.weight: is float32 \[8\]; expected floats \[64\]"),
        ({"width_factor": 2}, r"stem.conv.weight: is float32 \[128, 3, 7, 7\]; expected floats \[64, 3, 7, 7\]"),
        ({"in_chans": 1}, r"stem.conv.weight: is float32 \[64, 1, 7, 7\]"),
    ],
    ids=["group norm", "deep stem", "basic blocks", "post-activation", "wide", "grey"],
)
def test_other_networks_of_timm_are_refused(options: dict, message: str):
    with pytest.raises(InputError, match=message):
        convert_timm(timm_network(**options).state_dict())


def changed(name: str, value: object) -> dict[str, Tensor]:
    state_dict = timm_network().state_dict()
    if value is None:
        del state_dict[name]
    else:
        state_dict[name] = value
    return state_dict


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (f"{UNIT}.conv2.weight", None, f"{UNIT}.conv2.weight: not in the source"),
        (f"{UNIT}.norm2.running_var", None, f"{UNIT}.norm2.running_var: not in the source"),
        ("head.fc.bias", None, "head.fc.bias: not in the source"),
        ("norm.weight", torch.zeros(3), r"norm.weight: is float32 \[3\]; expected floats \[256\]"),
        ("norm.weight", torch.zeros(256, dtype=torch.int8), r"norm.weight: is int8 \[256\]; expected floats"),
        (
            "norm.num_batches_tracked",
            torch.zeros(()),
            r"norm.\w+: is float32 \[\]; expected an integer \[\]",
        ),
        ("head.fc.weight", torch.zeros(()), r"head.fc.weight: is float32 \[\]; expected floats \[1, 256, 1, 1\]"),
        ("ema.decay", torch.zeros(1), r"ema.decay: not in the network of units \(2, 2, 3, 2\)"),
        (f"{UNIT}.conv4.weight", torch.zeros(1), f"{UNIT}.conv4.weight: not in the network"),
        ("norm.weight", torch.full((256,), math.nan), "norm.weight: 256 of 256 values are NaN"),
        ("norm.weight", torch.full((256,), 1e300, dtype=torch.float64), "norm.weight: 256 of 256 .* beyond float32"),
        ("norm.running_var", torch.full((256,), -1.0), "norm.running_var: 256 of 256 variances are negative"),
        ("norm.weight", torch.zeros(256, dtype=torch.complex64), r"norm.weight: is complex64 \[256\]; expected floats"),
        ("norm.weight", torch.zeros(256, dtype=torch.bool), r"norm.weight: is bool \[256\]; expected floats"),
        ("norm.num_batches_tracked", torch.tensor(True), r"norm.\w+: is bool \[\]; expected an integer"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_by_name(name: str, value: object, message: str):
    with pytest.raises(InputError, match=f"^{message}"):
        convert_timm(changed(name, value))


@pytest.mark.parametrize("names", [[], ["conv1.weight", "layer1.0.conv1.weight"], ["stages.0.blocks.0.conv1.weight"]])
def test_weights_of_something_else_are_refused(names: list[str]):
    with pytest.raises(InputError, match="not the weights of a network of this kind; expected timm's resnetv2_50"):
        convert_timm(dict.fromkeys(names, torch.zeros(8, 64, 1, 1)))


# Files
