"""Convolutions of pyramids and heads in C++, beside PyTorch's in float64."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d
from torch import Tensor, nn

from sact_det.execution.cpu import library
from sact_det.execution.cpu.convolution import convolve, why_not_convolved
from sact_det.execution.packing import WeightCache

pytestmark = [
    pytest.mark.skipif(library.why_unavailable() is not None, reason=str(library.why_unavailable())),
    pytest.mark.usefixtures("threads"),
]


def layer(channels: int, out: int, kernel: int = 3, **kwargs: Any) -> Conv2d:
    torch.manual_seed(0)
    return Conv2d(channels, out, kernel, **{"padding": kernel // 2, "activation": nn.ReLU(), **kwargs})


def features(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("shape", "out"),
    [((1, 64, 12, 16), 64), ((2, 20, 5, 9), 7), ((3, 16, 1, 1), 33), ((1, 3, 13, 2), 40), ((1, 8, 40, 31), 1)],
)
def test_it_is_the_convolution_rectified(shape: tuple[int, ...], out: int, memory_format: torch.memory_format):
    conv, x = layer(shape[1], out), features(*shape).contiguous(memory_format=memory_format)
    assert why_not_convolved(conv, x) is None
    y = convolve(conv, WeightCache(), x)
    torch.testing.assert_close(y, conv.double()(x.double()).float(), rtol=1e-5, atol=1e-5)
    assert y.shape == (shape[0], out, *shape[2:]) and y.permute(0, 2, 3, 1).is_contiguous() and y.min() == 0


@torch.no_grad()
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", [None, F.relu, nn.ReLU()])
@pytest.mark.parametrize(("shape", "out"), [((1, 64, 11, 16), 70), ((2, 20, 5, 9), 3), ((3, 17, 1, 1), 33)])
def test_it_has_a_bias_and_rectifies_where_the_layer_does(
    shape: tuple[int, ...], out: int, activation: Any, bias: bool, kernel: int
):
    conv, x = layer(shape[1], out, kernel, bias=bias, activation=activation), features(*shape)
    assert why_not_convolved(conv, x) is None
    y = convolve(conv, WeightCache(), x)
    torch.testing.assert_close(y, conv.double()(x.double()).float(), rtol=1e-5, atol=1e-5)
    assert (y.min() < 0) == (activation is None)


@torch.no_grad()
def test_no_images_have_no_maps():
    conv = layer(8, 4)
    assert convolve(conv, WeightCache(), features(0, 8, 5, 5)).shape == (0, 4, 5, 5)


@torch.no_grad()
def test_weights_that_change_are_packed_anew():
    conv, x, cache = layer(8, 4), features(1, 8, 5, 5), WeightCache()
    before = convolve(conv, cache, x)
    conv.weight.mul_(2)
    conv.bias.mul_(2)
    torch.testing.assert_close(convolve(conv, cache, x), 2 * before)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"stride": 2}, "stride 1"),
        ({"padding": 0}, "padded by 1"),
        ({"kernel": 1, "padding": 1}, "padded by 1"),
        ({"kernel": 5}, "1x1 convolutions and 3x3 convolutions"),
        ({"dilation": 2}, "3x3 convolutions"),
        ({"groups": 2}, "3x3 convolutions"),
        ({"norm": nn.BatchNorm2d(8)}, "without a norm"),
        ({"activation": F.silu}, "they rectify"),
        ({"activation": nn.ReLU6()}, "they rectify"),
    ],
)
def test_other_convolutions_are_left_to_pytorch(change: dict[str, Any], reason: str):
    with torch.no_grad():
        assert reason in str(why_not_convolved(layer(8, 8, **change), features(1, 8, 5, 5)))


def test_gradients_and_16_bits_are_left_to_pytorch():
    conv, x = layer(8, 8), features(1, 8, 5, 5)
    assert "no gradients" in str(why_not_convolved(conv, x))
    with torch.no_grad():
        assert why_not_convolved(conv, x) is None
        assert "float32" in str(why_not_convolved(conv.bfloat16(), x.bfloat16()))
        with torch.autocast("cpu", torch.bfloat16):
            assert "float32" in str(why_not_convolved(conv, x))


@torch.no_grad()
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize(("shape", "out"), [((2, 20, 15, 29), 7), ((1, 3, 13, 2), 40), ((3, 16, 1, 1), 33)])
def test_listed_positions_have_what_they_have_in_the_whole_map_and_no_other_is_written(
    shape: tuple[int, ...], out: int, share: float, monkeypatch: pytest.MonkeyPatch
):
    conv, x = layer(shape[1], out), features(*shape)
    active = torch.rand(shape[0], *shape[2:], generator=torch.Generator().manual_seed(2)) < share
    lent = torch.full((shape[0], *shape[2:], out), -1.0).permute(0, 3, 1, 2)
    monkeypatch.setattr("sact_det.execution.cpu.convolution.lend_rows", lambda *_: lent)
    y = convolve(conv, WeightCache(), x, active)
    assert torch.equal(y, torch.where(active[:, None], y, -1)) and y[active[:, None].expand_as(y)].ge(0).all()
    monkeypatch.undo()
    torch.testing.assert_close(y, torch.where(active[:, None], convolve(conv, WeightCache(), x), -1))
