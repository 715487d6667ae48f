import numpy as np
import pytest
import torch
from small_networks import images, randomize
from torch import Tensor

from sact_det import build_classifier
from sact_det.network.norm import BatchNorm2d
from sact_det.network.resnet_cifar import CifarUnit, ResNetCifarSpec
from sact_det.rule.flops import conv_flops, dilate

SIZES = [(1, 1), (2, 3), (7, 8), (8, 8)]
RULES = ("none", "act", "sact")


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.1 * x)


def same_conv_in_numpy(x: np.ndarray, weight: np.ndarray, stride: int) -> np.ndarray:
    """3x3 convolution, TensorFlow SAME as its documentation has it: [C, H, W] -> [K, ceil(H/s), ceil(W/s)]."""
    _, height, width = x.shape
    out = [-(-side // stride) for side in (height, width)]
    before = [max((o - 1) * stride + 3 - side, 0) // 2 for o, side in zip(out, (height, width))]
    y = np.zeros((len(weight), *out))
    for row in range(out[0]):
        for column in range(out[1]):
            for i in range(3):
                for j in range(3):
                    r, c = row * stride + i - before[0], column * stride + j - before[1]
                    if 0 <= r < height and 0 <= c < width:
                        y[:, row, column] += weight[:, :, i, j] @ x[:, r, c]
    return y


def mean_of_windows(x: np.ndarray) -> np.ndarray:
    """2x2 average pooling of stride 2 over what a window holds, [C, H, W]."""
    rows, columns = -(-x.shape[1] // 2), -(-x.shape[2] // 2)
    windows = [[x[:, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2].mean((1, 2)) for c in range(columns)] for r in range(rows)]
    return np.moveaxis(np.array(windows), 2, 0)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(("stride", "channels", "preact"), [(1, 4, True), (1, 4, False), (2, 8, False), (2, 7, False)])
def test_unit_is_what_its_definition_says(height: int, width: int, stride: int, channels: int, preact: bool):
    unit = randomize(CifarUnit(4, channels, stride, preact, BatchNorm2d), images(2, 8, 8, 4))
    x = images(1, height, width, 4)
    normalized = leaky(unit.preact(x))
    y = same_conv_in_numpy(normalized[0].numpy(), unit.conv1.weight.numpy(), stride)
    y = leaky(leaky(unit.norm1(torch.tensor(y, dtype=torch.float32)[None])))
    y = same_conv_in_numpy(y[0].numpy(), unit.conv2.weight.numpy(), 1) + unit.conv2.bias.numpy()[:, None, None]
    shortcut = (normalized if preact else x)[0].numpy()
    if stride == 2:
        shortcut = mean_of_windows(shortcut)
    before = (channels - 4) // 2
    y[before : before + 4] += shortcut
    np.testing.assert_allclose(unit(x)[0].numpy(), y, atol=1e-5)


def test_masked_positions_keep_their_state():
    unit = randomize(CifarUnit(4, 4, 1, False, BatchNorm2d), images(2, 8, 8, 4))
    x, active = images(2, 6, 5, 4), torch.rand(2, 1, 6, 5) < 0.5
    with torch.no_grad():
        y, everywhere = unit(x, active), unit(x)
    assert torch.equal(y, torch.where(active, everywhere, x))


@pytest.mark.parametrize("halting", RULES)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (32, 32), (33, 47)])
def test_any_image_size_will_do(halting: str, height: int, width: int):
    model = build_classifier((2, 3, 2), halting=halting, family="cifar", base_channels=4)
    for training in (True, False):
        output = model.train(training)(images(2, height, width))
        assert output.logits.shape == (2, 10)
        assert list(output.ponder.blocks) == ["block1", "block2", "block3"]
        assert output.ponder.map((height, width)).shape == (2, height, width)


def test_flops_of_sact_count_conv1_at_the_dilated_mask_and_conv2_at_the_mask():
    x = images(2, 16, 16)
    model = randomize(build_classifier((3, 1, 1), family="cifar", base_channels=4), x, halting_bias=-0.5)
    with torch.no_grad():
        block = model(x).ponder.blocks["block1"]
    units = model.block1.units
    expected = (conv_flops(units[0].conv1) + conv_flops(units[0].conv2)) * 256
    for index, unit in enumerate(units):
        active = block.num_units > index
        if index > 0:
            dilated = dilate(active).flatten(1).sum(1)
            expected = expected + conv_flops(unit.conv1) * dilated + conv_flops(unit.conv2) * active.flatten(1).sum(1)
        if unit.halting is not None:
            local, pooled = unit.halting.local_conv, unit.halting.global_conv
            expected = expected + conv_flops(local) * active.flatten(1).sum(1) + conv_flops(pooled)
    assert len(block.num_units.unique()) == 3
    assert torch.equal(block.flops, expected)


def test_norms_have_the_epsilon_and_decay_of_the_original():
    norms = [m for m in build_classifier(family="cifar").modules() if isinstance(m, BatchNorm2d)]
    assert {(norm.eps, round(norm.momentum, 6)) for norm in norms} == {(1e-3, 0.1)}
    assert len(norms) == 1 + 15 * 2 + 12 * 2


def test_padding_is_refused():
    valid = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="the CIFAR network takes batches of images of one size"):
        CifarUnit(4, 4, 1, False, BatchNorm2d)(images(1, 4, 4, 4), None, valid, valid)


def test_blocks_are_at_most_three():
    with pytest.raises(ValueError, match="`units` must list 1 to 3 positive integers, one per block"):
        ResNetCifarSpec((1, 1, 1, 1))
