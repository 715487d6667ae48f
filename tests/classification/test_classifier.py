import pytest
import torch
import torch.nn.functional as F
from small_networks import images, randomize

from sact_det import build_classifier
from sact_det.classification.model import Classifier
from sact_det.network.norm import BatchNorm2d, FrozenBatchNorm2d
from sact_det.network.resnet_v2 import ResNetV2Spec
from sact_det.rule.flops import conv_flops

UNITS = (1, 2, 3, 2)
RULES = ("none", "act", "sact")


@pytest.mark.parametrize("halting", RULES)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 5), (33, 47), (64, 64), (95, 32)])
def test_any_image_size_will_do(halting: str, height: int, width: int):
    model = build_classifier(UNITS, halting=halting, num_classes=7, base_channels=4)
    for training in (False, True):
        output = model.train(training)(images(2, height, width))
        assert output.logits.shape == (2, 7)
        assert output.logits.isfinite().all()
        assert output.ponder.map((height, width)).shape == (2, height, width)
        assert output.ponder.map((height, width)).min() >= 2 * len(UNITS)


@pytest.mark.parametrize("halting", RULES)
def test_logits_are_a_convolution_of_the_mean_of_the_last_block(halting: str):
    x = images(3, 61, 90)
    model = randomize(build_classifier(UNITS, halting=halting, num_classes=7, base_channels=4), x)
    features = model.stem(x)
    for name in model.block_names:
        features, _ = model.get_submodule(name)(features)
    pooled = F.relu(model.postnorm(features)).mean((2, 3))
    torch.testing.assert_close(model(x).logits, pooled @ model.logits.weight[:, :, 0, 0].T + model.logits.bias)


@pytest.mark.parametrize("halting", RULES)
def test_images_of_a_batch_do_not_see_each_other_in_evaluation(halting: str):
    x = images(3, 61, 90)
    model = randomize(build_classifier(UNITS, halting=halting, num_classes=7, base_channels=4), x)
    alone = torch.cat([model(image[None]).logits for image in x])
    torch.testing.assert_close(model(x).logits, alone, atol=1e-4, rtol=1e-4)


def test_logits_are_float32_under_autocast():
    model = build_classifier(UNITS, num_classes=7, base_channels=4).eval()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(images(1, 33, 47))
    assert output.logits.dtype == torch.float32
    assert output.ponder.mean_cost().dtype == torch.float32


@pytest.mark.parametrize("halting", RULES)
def test_flops_are_those_of_root_blocks_and_logits(halting: str):
    model = build_classifier(UNITS, halting=halting, num_classes=7, base_channels=4).eval()
    record = model(images(2, 33, 47)).ponder
    assert list(record.blocks) == ["block1", "block2", "block3", "block4"]
    dense = conv_flops(model.stem.conv) * 17 * 24 + conv_flops(model.logits)
    assert record.dense_flops.tolist() == [dense] * 2
    assert torch.equal(record.flops, dense + sum(block.flops for block in record.blocks.values()))


@pytest.mark.parametrize("halting", RULES)
def test_every_parameter_gets_a_gradient(halting: str):
    model = build_classifier(UNITS, halting=halting, num_classes=7, base_channels=4)
    for batch in (1, 3):
        model.zero_grad()
        output = model(images(batch, 33, 47))
        (output.logits.square().sum() + output.ponder.mean_cost().sum()).backward()
        assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_plain_and_adaptive_networks_share_the_names_of_their_weights():
    plain, adaptive = (
        build_classifier(UNITS, halting=halting, base_channels=4, num_classes=7).state_dict()
        for halting in ("none", "sact")
    )
    assert set(plain) == {name for name in adaptive if ".halting." not in name}


def test_fresh_classifiers_are_in_training_mode_with_the_layout_asked_for():
    model = build_classifier(depth=50, base_channels=1, halting="act")
    assert model.training
    assert model.spec.units == (3, 4, 6, 3)
    assert build_classifier(base_channels=1, num_classes=2).spec.units == (3, 4, 23, 3)
    assert model.logits.out_channels == 1001
    cifar = build_classifier(depth=32, family="cifar")
    assert cifar.spec.units == build_classifier(family="cifar").spec.units == (5, 5, 5)
    assert cifar.spec.base_channels == 16 and cifar.logits.out_channels == 10


def test_the_norm_of_the_last_block_and_postnorm_can_be_another():
    model = Classifier(ResNetV2Spec((1, 1), 4, norm="FrozenBN"), 7, head_norm="BN")
    assert isinstance(model.block1.units[0].preact, FrozenBatchNorm2d)
    assert isinstance(model.block2.units[0].preact, BatchNorm2d) and isinstance(model.postnorm, BatchNorm2d)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"units": (1, 1, 1, 1), "depth": 50}, "give `units` or `depth`, not both"),
        ({"depth": 34}, "`depth` must be one of 50, 101, 152, 200; got 34"),
        ({"units": (1, 1, 1, -1)}, "`units` must list 1 to 4 positive integers"),
        ({"halting": "ACT"}, "`halting` must be one of 'none', 'act', 'sact'; got 'ACT'"),
        ({"depth": 33, "family": "cifar"}, r"`depth` must be 6n \+ 2 \(8, 14, 20, 26, 32, ...\); got 33"),
        ({"family": "mnist"}, "`family` must be one of 'imagenet', 'cifar'; got 'mnist'"),
        ({"num_classes": 0}, "`num_classes` must be positive; got 0"),
        ({"base_channels": 0}, "`base_channels` must be positive; got 0"),
        ({"units": (1,), "tile": 0}, "`tile` must be 1, or more with halting 'sact'; got 0"),
        (
            {"units": (1,), "tile": 2, "halting": "act"},
            "`tile` must be 1, or more with halting 'sact'; got 2 with 'act'",
        ),
    ],
)
def test_arguments_that_are_wrong_are_named(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build_classifier(**arguments)


def test_unknown_executions_are_refused():
    model = build_classifier((1,), base_channels=4)
    model.set_execution("dense")
    with pytest.raises(ValueError, match=r"`execution` must be one of 'dense'.*; got 'lazy'"):
        model.set_execution("lazy")
