"""What a block counts at once is what its units and halting branches count one by one."""

import pytest
import torch
from torch import Tensor

from sact_det.network.block_flops import BlockFlops
from sact_det.network.resnet_cifar import ResNetCifarSpec
from sact_det.network.resnet_v2 import ResNetV2Spec
from sact_det.rule.process import HaltingOutcome

IMAGES, UNITS = 6, 5
SPECS = {"imagenet": ResNetV2Spec, "cifar": ResNetCifarSpec}
RULES = ("none", "act", "sact")

each_block = pytest.mark.parametrize(
    "family, index, reads_products",
    [
        *((family, index, False) for family in SPECS for index in (1, 2)),
        *(("imagenet", index, True) for index in (1, 2)),
    ],
)


def units_of(family: str, index: int, halting: str):
    return SPECS[family](units=(UNITS, UNITS), base_channels=4, halting=halting).build_block(index).units


def numbers(*shape: int, most: int = 100) -> Tensor:
    return torch.randint(most, shape, generator=torch.Generator().manual_seed(sum(shape)))


def counts(halting: str) -> tuple[Tensor, Tensor, HaltingOutcome]:
    """Positions at input and output resolution, and what was active; some images, in the last units, not at all."""
    dense_in, dense_out = numbers(IMAGES, most=400) + 1, numbers(IMAGES) + 1
    dilated = torch.minimum(numbers(IMAGES, UNITS), dense_out[:, None])
    evaluated = dilated // 2
    if halting == "none":
        evaluated = dilated = dense_out[:, None].expand(-1, UNITS)
    else:
        evaluated[:3, 2:] = dilated[:3, 2:] = 0
    nothing = torch.empty(0)
    return dense_in, dense_out, HaltingOutcome(nothing, nothing, nothing, evaluated, dilated)


def first_flops(unit, dense_in: Tensor, dense_out: Tensor, reads_products: bool) -> Tensor:
    flops = unit.flops(dense_in, dense_out)
    return flops - unit.product_flops(dense_in, dense_out) if reads_products else flops


@each_block
@pytest.mark.parametrize("halting", RULES)
def test_all_of_a_block(family: str, index: int, reads_products: bool, halting: str):
    units, (dense_in, dense_out, outcome) = units_of(family, index, halting), counts(halting)
    expected = first_flops(units[0], dense_in, dense_out, reads_products)
    for unit, evaluated, dilated in zip(units, outcome.evaluated.T, outcome.dilated.T, strict=True):
        if unit is not units[0]:
            expected = expected + unit.flops(dense_out, dense_out, evaluated, dilated)
        if unit.halting is not None:
            expected = expected + unit.halting.flops(evaluated, evaluated > 0)
    found = BlockFlops(units).of(dense_in, dense_out, outcome, reads_products)
    assert found.dtype == torch.int64 and torch.equal(found, expected)


@each_block
@pytest.mark.parametrize("halting", RULES)
def test_the_bounds(family: str, index: int, reads_products: bool, halting: str):
    units, (dense_in, dense_out, _) = units_of(family, index, halting), counts(halting)
    least = most = first_flops(units[0], dense_in, dense_out, reads_products)
    none = torch.zeros_like(dense_out)
    for unit in units:
        if unit is not units[0]:
            least = least + unit.flops(dense_out, dense_out, none, none)
            most = most + unit.flops(dense_out, dense_out)
        if unit.halting is not None:
            evaluated = dense_out if unit is units[0] else none
            least = least + unit.halting.flops(evaluated, evaluated > 0)
    found = BlockFlops(units).bounds(dense_in, dense_out, reads_products)
    assert torch.equal(found[0], least) and torch.equal(found[1], most)


@pytest.mark.parametrize("family", SPECS)
@pytest.mark.parametrize("halting", RULES)
def test_one_unit_beyond_what_it_counts_idle(family: str, halting: str):
    units, (_, dense, outcome) = units_of(family, 2, halting), counts(halting)
    none = torch.zeros_like(dense)
    for index in range(1, UNITS):
        unit, evaluated, dilated = units[index], outcome.evaluated[:, index], outcome.dilated[:, index]
        expected = unit.flops(dense, dense, evaluated, dilated) - unit.flops(dense, dense, none, none)
        if unit.halting is not None:
            expected = expected + unit.halting.flops(evaluated, evaluated > 0) - unit.halting.flops(none, none > 0)
        assert torch.equal(BlockFlops(units).of_unit(index, evaluated, dilated), expected)
