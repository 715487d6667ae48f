import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_networks import images, randomize
from torch import Tensor, nn

from sact_det.network.branch import ImageHalting, SpatialHalting
from sact_det.network.convolution import init_conv
from sact_det.network.norm import BatchNorm2d, FrozenBatchNorm2d, MovingBatchNorm2d
from sact_det.network.resnet_v2 import STEM_POOLS, UNITS_BY_DEPTH, BottleneckUnit, ResNetV2Spec, Stem, same_max_pool

SIZES = [(1, 1), (2, 3), (5, 8), (7, 7), (8, 6)]


def bn(norm: nn.Module, x: Tensor) -> Tensor:
    """Batch normalization in evaluation, written out."""
    mean, var, gamma, beta = (
        value[:, None, None] for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / (var + 1e-5).sqrt() * gamma + beta


def same_max_pool_in_numpy(x: np.ndarray) -> np.ndarray:
    """TensorFlow's SAME: ceil(n / 2) outputs, so (out - 1) * 2 + 3 - n of padding in all, the smaller half before."""
    height, width = x.shape[-2:]
    out = -(-height // 2), -(-width // 2)
    before = [max((o - 1) * 2 + 3 - n, 0) // 2 for o, n in zip(out, (height, width))]
    y = np.empty((*x.shape[:-2], *out), x.dtype)
    for i in range(out[0]):
        for j in range(out[1]):
            top, left = 2 * i - before[0], 2 * j - before[1]
            window = x[..., max(top, 0) : top + 3, max(left, 0) : left + 3]
            y[..., i, j] = window.max((-2, -1))
    return y


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_max_pool_is_same_padded_as_in_tensorflow(height: int, width: int):
    x = images(2, height, width) - 5  # all negative: padding with zeros would show
    np.testing.assert_array_equal(same_max_pool(x).numpy(), same_max_pool_in_numpy(x.numpy()))


def test_stem_is_a_biased_convolution_and_a_max_pool():
    stem = randomize(Stem(), images(1, 9, 9))
    x = images(2, 13, 16)
    y = F.conv2d(F.pad(x, (3, 3, 3, 3)), stem.conv.weight, stem.conv.bias, stride=2)
    assert y.min() < 0  # no ReLU
    torch.testing.assert_close(stem(x), torch.from_numpy(same_max_pool_in_numpy(y.detach().numpy())))


@pytest.mark.parametrize(("height", "width"), [(7, 7), (5, 8), (8, 6), (12, 16), (13, 17)])
def test_a_symmetrically_padded_pool_is_another_function_on_even_sides_only(height: int, width: int):
    x = images(2, height, width) - 5
    windows = F.unfold(F.pad(x, (1, 1, 1, 1), value=-1e9), 3, stride=2).view(2, 3, 9, -1)
    expected = windows.amax(2).view(2, 3, -(-height // 2), -(-width // 2))
    assert torch.equal(STEM_POOLS["symmetric"](x), expected)
    assert torch.equal(same_max_pool(x), expected) == (height % 2 == 1 and width % 2 == 1)


def test_the_spec_chooses_the_pool_of_the_stem():
    x = images(1, 16, 16)
    for pool in STEM_POOLS:
        stem = ResNetV2Spec(stem_pool=pool).build_stem()
        assert torch.equal(stem(x), STEM_POOLS[pool](stem.conv(x)))


@pytest.mark.parametrize(
    ("in_channels", "stride", "dilation"), [(32, 1, 1), (32, 1, 2), (12, 1, 1), (32, 2, 1), (16, 2, 2)]
)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_unit_is_three_preactivated_convolutions(in_channels: int, stride: int, dilation: int, height: int, width: int):
    unit = randomize(BottleneckUnit(in_channels, 8, stride, dilation, BatchNorm2d), images(3, 6, 6, in_channels))
    x = images(2, height, width, in_channels, seed=1)
    preact = bn(unit.preact, x).relu()
    y = F.conv2d(preact, unit.conv1.weight)
    y = F.pad(bn(unit.norm1, y).relu(), (dilation,) * 4)
    y = F.conv2d(y, unit.conv2.weight, stride=stride, dilation=dilation)
    y = F.conv2d(bn(unit.norm2, y).relu(), unit.conv3.weight, unit.conv3.bias)
    if in_channels == 32 and stride == 1:
        shortcut = x
        assert unit.shortcut is None
    else:
        shortcut = F.conv2d(preact, unit.shortcut.weight, unit.shortcut.bias, stride=stride)
    torch.testing.assert_close(unit(x), shortcut + y)


def test_unit_adds_its_residual_at_active_positions_only():
    unit = randomize(BottleneckUnit(32, 8, 1, 1, BatchNorm2d), images(3, 6, 6, 32))
    x = images(2, 5, 7, 32)
    active = images(2, 5, 7, 1) > 0
    assert torch.equal(unit(x, active), torch.where(active, unit(x), x))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_stride_with_dilation_equals_striding_before_the_unit(height: int, width: int):
    """Slim's weights were trained with the stride at the end of the block before; this is where it goes."""
    x = images(2, height, width, 16)
    late = randomize(BottleneckUnit(16, 8, 2, 2, BatchNorm2d), images(3, 6, 6, 16))
    early = BottleneckUnit(16, 8, 1, 1, BatchNorm2d).eval()
    early.load_state_dict(late.state_dict())
    torch.testing.assert_close(late(x), early(x[:, :, ::2, ::2]))


@pytest.mark.parametrize("rule", ["none", "act", "sact"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (32, 33), (61, 95), (127, 130)])
def test_every_stride_halves_a_side_and_rounds_up(rule: str, height: int, width: int):
    spec = ResNetV2Spec((1, 2, 1, 2), base_channels=4, halting=rule)
    x = Stem().eval()(images(1, height, width))
    assert x.shape == (1, 64, -(-height // 4), -(-width // 4))
    for index in range(1, 5):
        x, ponder = spec.build_block(index).eval()(x)
        stride = 2 ** (index + 1)
        assert x.shape == (1, spec.out_channels(index), -(-height // stride), -(-width // stride))
        assert ponder.halting_distribution.shape[1] == spec.units[index - 1]


def test_spatial_halting_is_equation_14_with_norms():
    branch = randomize(SpatialHalting(12, BatchNorm2d), images(4, 6, 6, 12))
    x = images(2, 5, 7, 12, seed=1)
    local = F.conv2d(F.pad(bn(branch.local_norm, x), (1, 1, 1, 1)), branch.local_conv.weight, branch.local_conv.bias)
    pooled = bn(branch.global_norm, x.mean((2, 3), keepdim=True))
    h = 1 / (1 + torch.exp(-local - (branch.global_conv.weight * pooled).sum(1, keepdim=True)))
    assert branch(x).shape == (2, 5, 7)
    torch.testing.assert_close(branch(x), h[:, 0])
    assert branch.global_conv.bias is None


def test_image_halting_is_equation_6_with_a_norm():
    branch = randomize(ImageHalting(12, BatchNorm2d), images(4, 6, 6, 12))
    x = images(2, 5, 7, 12, seed=1)
    pooled = bn(branch.global_norm, x.mean((2, 3), keepdim=True))
    score = (branch.global_conv.weight * pooled).sum(1) + branch.global_conv.bias
    assert branch(x).shape == (2, 1, 1)
    torch.testing.assert_close(branch(x), 1 / (1 + torch.exp(-score)))


@pytest.mark.parametrize("conv", [nn.Conv2d(64, 64, 3), nn.Conv2d(512, 128, 1), nn.Conv2d(3, 64, 7)])
def test_weights_start_as_a_truncated_normal(conv: nn.Conv2d):
    torch.manual_seed(0)
    weight = init_conv(conv, bias=-3.0).weight
    std = (1.3 * 2 / weight[0].numel()) ** 0.5
    assert weight.abs().max() <= 2 * std
    assert weight.abs().max() > 1.9 * std
    assert weight.mean().item() == pytest.approx(0, abs=0.05 * std)
    assert weight.std().item() == pytest.approx(0.8796 * std, rel=0.03)  # a normal cut at two deviations
    assert (conv.bias == -3).all()


def test_biases_start_at_zero_and_those_of_halting_at_minus_three():
    for rule in ("act", "sact"):
        for name, parameter in ResNetV2Spec((3, 3), 8, rule).build_block(2).named_parameters():
            if name.endswith("conv.bias") and "halting" in name:
                assert (parameter == -3).all()
            elif name.endswith("bias"):
                assert not parameter.any()


def test_every_unit_but_the_last_has_a_halting_branch_with_norms_of_its_own():
    spec = ResNetV2Spec((3, 4), 8, "sact", norm="FrozenBN", halting_norm="MovingBN", norm_decay=0.9)
    units = spec.build_block(2).units
    assert [unit.halting is None for unit in units] == [False, False, False, True]
    assert isinstance(units[0].norm2, FrozenBatchNorm2d)
    assert isinstance(units[0].halting.local_norm, MovingBatchNorm2d)
    assert units[0].halting.local_norm.momentum == pytest.approx(0.1)
    assert all(unit.halting is None for unit in ResNetV2Spec((3, 4), 8, "none").build_block(2).units)


def test_a_block_may_have_another_stride():
    spec = ResNetV2Spec((2, 2, 2, 2), 8, "none", strides=(1, 2, 2, 1))
    first, second = spec.build_block(4).units
    assert first.stride == second.stride == 1 and first.shortcut is not None and second.shortcut is None
    assert first.conv2.stride == first.shortcut.stride == (1, 1)
    wide = ResNetV2Spec((2, 2, 2, 2), 8, "none").build_block(4).units[0]
    assert {name: p.shape for name, p in first.named_parameters()} == {n: p.shape for n, p in wide.named_parameters()}


def test_stride_and_dilation_sit_in_the_first_unit_of_blocks_2_to_4():
    spec = ResNetV2Spec((2, 2, 2, 2), 8, "none", dilation=(1, 2, 1, 4))
    for index, dilation in enumerate(spec.dilation, 1):
        first, second = spec.build_block(index).units
        stride = 1 if index == 1 else 2
        assert (first.conv1.stride, first.conv2.stride, first.shortcut.stride) == ((1, 1), (stride,) * 2, (stride,) * 2)
        assert (first.conv2.dilation, first.conv2.padding) == ((dilation,) * 2, (dilation,) * 2)
        assert (second.conv2.stride, second.conv2.dilation, second.shortcut) == ((1, 1), (1, 1), None)


def test_first_shortcut_is_the_identity_where_block_1_keeps_the_channels():
    shortcuts = [ResNetV2Spec((1,), width, "none").build_block(1).units[0].shortcut for width in (8, 16, 64)]
    assert [shortcut is None for shortcut in shortcuts] == [False, True, False]


def test_depths_count_the_convolutions():
    for depth, units in UNITS_BY_DEPTH.items():
        assert depth == 3 * sum(units) + 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"halting": "SACT"}, "`halting` must be one of 'none', 'act', 'sact'; got 'SACT'"),
        ({"units": ()}, "`units` must list 1 to 4 positive integers"),
        ({"units": (3, 0)}, "`units` must list 1 to 4 positive integers"),
        ({"units": (1,) * 5}, "`units` must list 1 to 4 positive integers"),
        ({"units": (3, 4), "dilation": (1,)}, r"`dilation` must list a positive integer per block \(2\)"),
        ({"units": (3, 4), "dilation": (1, 0)}, "`dilation` must list a positive integer per block"),
        ({"units": (3, 4), "strides": (1,)}, r"`strides` must list a positive integer per block \(2\); got \(1,\)"),
        ({"strides": (1, 2, 2, 0)}, "`strides` must list a positive integer per block"),
        ({"base_channels": 0}, "`base_channels` must be positive; got 0"),
        ({"stem_pool": "valid"}, "`stem_pool` must be one of 'same', 'symmetric'; got 'valid'"),
    ],
)
def test_spec_names_the_argument_that_is_wrong(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        ResNetV2Spec(**arguments)


@pytest.mark.parametrize("name", ["norm", "halting_norm"])
def test_spec_refuses_unknown_norms(name: str):
    with pytest.raises(ValueError, match=rf"`{name}` must be one of .BN., .SyncBN., .MovingBN., .FrozenBN.; got 'LN'"):
        ResNetV2Spec(**{name: "LN"}).build_block(1)
