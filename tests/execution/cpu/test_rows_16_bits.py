"""The kernels for CPUs where PyTorch would compute in 16 bits: factors in bfloat16, everything else in float32."""

import copy
from contextlib import nullcontext
from typing import Callable

import pytest
import torch
import torch.nn.functional as F
from small_networks import images, randomize
from torch import Tensor

from sact_det.execution import set_execution
from sact_det.execution.cpu import calls, library
from sact_det.execution.cpu.packed import factor_type, pack_block
from sact_det.execution.cpu.run import RowsRun, why_not_rows
from sact_det.execution.folded import unit_matrices, unit_vectors
from sact_det.execution.release import release_weights
from sact_det.network.block import AdaptiveBlock
from sact_det.network.resnet_v2 import BottleneckUnit, ResNetV2Spec, Stem
from sact_det.rule.padding import valid_mask

UNITS = 5

pytestmark = [
    pytest.mark.skipif(library.why_unavailable() is not None, reason=str(library.why_unavailable())),
    pytest.mark.usefixtures("threads"),
]
needs_bfloat16 = pytest.mark.skipif(
    library.why_unavailable() is not None or not calls.kernels().has_bfloat16(),
    reason="this processor does not multiply bfloat16",
)


@pytest.fixture(autouse=True)
def pretend_that_pytorch_is_no_faster(monkeypatch):
    if library.why_unavailable() is None:
        for name in ("has_bfloat16_tiles", "has_float16"):
            monkeypatch.setattr(calls.kernels(), name, lambda: 0)


def block_of(halting: str = "sact", index: int = 2, base_channels: int = 16) -> AdaptiveBlock:
    block = ResNetV2Spec(units=(UNITS, UNITS), base_channels=base_channels, halting=halting).build_block(index)
    block = randomize(block, inputs(block, 4, 24, 24), halting_bias=-1.0).eval()
    set_execution(block, "perforated")
    return block


def inputs(block: AdaptiveBlock, number: int, height: int, width: int) -> Tensor:
    channels = block.units[0].conv1.in_channels
    return images(number, height, width, channels) + images(number, 1, 1, channels, seed=1)


def rounded(x: Tensor) -> Tensor:
    """To bfloat16, kept in double precision."""
    return x.bfloat16().double()


def plain_unit(unit: BottleneckUnit, x: Tensor, factor: Callable[[Tensor], Tensor]) -> Tensor:
    """A unit at every position, [1, C, H, W]: products of factor(.) by PyTorch's convolutions in double precision."""

    def affine(y: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return y * scale.float()[:, None, None] + bias.float()[:, None, None]

    (scale, shift, scale1, bias1, scale2, bias2, bias3), (conv1, conv2, conv3) = unit_vectors(unit), unit_matrices(unit)
    width, stride, dilation = len(bias1), unit.stride, unit.conv2.dilation
    pre = factor(F.relu(affine(x, scale, shift)))
    conv3, shortcut = factor(conv3).split([width, conv3.shape[1] - width], 1)
    inner = factor(F.relu(affine(F.conv2d(pre, factor(conv1)[..., None, None]), scale1, bias1)))
    conv2 = factor(conv2).view(width, 3, 3, width).permute(0, 3, 1, 2)
    middle = F.conv2d(inner, conv2, stride=stride, padding=dilation, dilation=dilation)
    residual = F.conv2d(factor(F.relu(affine(middle, scale2, bias2))), conv3[..., None, None])
    if unit.shortcut is not None:
        residual = residual + F.conv2d(pre[:, :, ::stride, ::stride], shortcut[..., None, None])
    return affine(residual, torch.ones_like(bias3), bias3) + (0 if unit.shortcut is not None else x)


def distance(x: Tensor, reference: Tensor) -> float:
    return float((x.double() - reference).norm() / reference.norm())


@needs_bfloat16
@torch.no_grad()
@pytest.mark.parametrize("base_channels", [4, 10, 16, 64])
@pytest.mark.parametrize("index", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (15, 22), (40, 36)])
def test_factors_are_rounded_and_nothing_else(index: int, base_channels: int, size: tuple[int, int]):
    """But for the block's output. Sums that differ in their last bits are sometimes rounded apart, hence 1e-3."""
    block = block_of("none", index, base_channels).bfloat16()
    x = inputs(block, 1, *size).bfloat16()
    run = block.plan.start(block, x, None, None)
    assert isinstance(run, RowsRun)
    before, (height, width) = x.double(), block.units[0](x).shape[2:]
    for unit in block.units:
        if unit is not block.units[0]:
            run.evaluate(unit, None)
        after = run._state.view(1, height, width, -1).permute(0, 3, 1, 2).double()
        identity = 0 if unit.shortcut is not None else before
        apart, exactly_apart = (
            distance(after - identity, plain_unit(unit, before, factor) - identity)
            for factor in (rounded, Tensor.double)
        )
        assert apart < 1e-3 and apart < exactly_apart / 3
        before = after
    assert torch.equal(run.result(), before.bfloat16())


@torch.no_grad()
@pytest.mark.parametrize("halting", ["none", "act", "sact"])
@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_outputs_are_as_near_to_float32_as_those_of_the_dense_run(halting: str, autocast: bool, dtype: torch.dtype):
    block = block_of(halting).eval()
    sizes = [(24, 26), (13, 26)]
    x = inputs(block, 2, 24, 26) * valid_mask(sizes, (24, 26), torch.device("cpu"))
    exact, ponder = block(x, sizes)
    half, x_half = (block, x) if autocast else (copy.deepcopy(block).to(dtype), x.to(dtype))
    with torch.autocast("cpu", dtype) if autocast else nullcontext():
        assert isinstance(half.plan.start(half, x_half, None, None), RowsRun)
        features, half_ponder = half(x_half, sizes)
        set_execution(half, "dense")
        dense, dense_ponder = half(x_half, sizes)
    assert features.dtype == dense.dtype == dtype
    assert half_ponder.ponder_cost.dtype == torch.float32
    error, dense_error = ((y.float() - exact).norm() / exact.norm() for y in (features, dense))
    assert error < 0.03 and error < 1.5 * dense_error
    differences, dense_differences = (
        (p.num_units != ponder.num_units).float().mean() for p in (half_ponder, dense_ponder)
    )
    assert differences <= max(2 * dense_differences, 0.02)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_without_16_bit_products_everything_but_input_and_output_is_float32(dtype: torch.dtype, monkeypatch):
    monkeypatch.setattr(calls.kernels(), "has_bfloat16", lambda: 0)
    block = block_of().to(dtype)
    x = inputs(block, 2, 20, 22).to(dtype)
    features, ponder = block(x)
    exact, same = block.float()(x.float())
    assert features.dtype == dtype and torch.equal(features, exact.to(dtype))
    assert torch.equal(ponder.ponder_cost, same.ponder_cost)


@torch.no_grad()
def test_an_odd_number_of_channels_is_multiplied_in_float32():
    block = block_of(index=1, base_channels=3).bfloat16()
    x = inputs(block, 2, 20, 22).bfloat16()
    assert not any(packed.struct.bfloat16 for packed in pack_block(block, torch.bfloat16).units.values())
    features, _ = block(x)
    assert torch.equal(features, block.float()(x.float())[0].bfloat16())


@torch.no_grad()
@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("pool", ["same", "symmetric"])
@pytest.mark.parametrize("size", [(1, 1), (67, 50), (64, 61)])
def test_the_stem_rounds_its_factors_and_its_output(size: tuple[int, int], pool: str, autocast: bool):
    stem, x = Stem(24, pool).eval(), images(2, *size)
    stem.conv.bias.normal_(generator=torch.Generator().manual_seed(0))
    exact = copy.deepcopy(stem).double()
    if autocast and factor_type(torch.bfloat16) != torch.bfloat16:  # products are float32, and so are their factors
        expected = exact(x.double())
    else:
        exact.conv.weight.copy_(rounded(exact.conv.weight))
        expected = exact(rounded(x))
    if not autocast:
        stem, x = stem.bfloat16(), x.bfloat16()
        expected += (stem.conv.bias.double() - exact.conv.bias)[:, None, None]
    set_execution(stem, "perforated")
    with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
        output = stem(x)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.double(), expected, rtol=2**-8, atol=2**-11)


@torch.no_grad()
@pytest.mark.parametrize("autocast", [True, False])
def test_released_weights_serve_in_the_type_in_which_they_were_released(autocast: bool):
    block = block_of()
    x = inputs(block, 1, 12, 12)
    if not autocast:
        block, x = block.bfloat16(), x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
        before = block(x)[0]
        release_weights(block)
        assert torch.equal(block(x)[0], before)
    if autocast and factor_type(torch.bfloat16) == torch.bfloat16:
        with pytest.raises(RuntimeError, match="are needed to pack them"):
            block(x)


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "name"), [(torch.bfloat16, "has_bfloat16_tiles"), (torch.float16, "has_float16")])
def test_what_pytorch_has_faster_instructions_for_is_left_to_it(dtype: torch.dtype, name: str, monkeypatch):
    block = block_of().to(dtype)
    x = inputs(block, 1, 12, 12).to(dtype)
    for has in (0, 1):
        monkeypatch.setattr(calls.kernels(), name, lambda has=has: has)
        assert ("on this processor" in (why_not_rows(block, x) or "")) == bool(has)
    assert why_not_rows(block.float(), x.float()) is None


@torch.no_grad()
def test_types_beyond_float32_and_training_are_left_to_pytorch():
    block = block_of()
    x = inputs(block, 1, 12, 12)
    assert "float32" in why_not_rows(block, x.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert why_not_rows(block, x) is None and why_not_rows(block, x.bfloat16()) is None
        assert "float32" in why_not_rows(block, x.double())
        assert "inference" in why_not_rows(block.train(), x)
