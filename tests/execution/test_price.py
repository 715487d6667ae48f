"""A block whose branches read a price, and one whose images have shifts of their own, whatever computes."""

import math

import pytest
import torch
from perforated_blocks import block_of, inputs
from small_networks import images, randomize
from torch import Tensor

from sact_det import build_classifier
from sact_det.execution import set_execution
from sact_det.execution.cpu import library
from sact_det.execution.perforated import TritonPlan
from sact_det.execution.plan import PLANS
from sact_det.execution.positions.plan import PositionsPlan
from sact_det.execution.release import release_weights
from sact_det.network.block import AdaptiveBlock
from sact_det.network.norm import freeze_norms

RANGE = (-2.0, 3.0)
PRICES = (0.5 * math.exp(-2), 0.5, 0.5 * math.exp(3))
WEIGHTS = (0.5, 1.5, 0.8, 2.0)  # of the branches, in order


@pytest.fixture(autouse=True)
def every_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """`set_execution` knows two more: PyTorch at positions, and Triton's kernels whatever is there."""
    monkeypatch.setitem(PLANS, "positions", PositionsPlan)
    monkeypatch.setitem(PLANS, "triton", TritonPlan)
    monkeypatch.setattr("sact_det.execution.plan.EXECUTIONS", tuple(PLANS))


def priced(family: str = "imagenet", halting: str = "sact") -> AdaptiveBlock:
    """A block whose branches read a price, each in its own way."""
    block = block_of(family, halting, prices=PRICES)
    with torch.no_grad():
        for unit, weight in zip(block.units, WEIGHTS):
            unit.halting.price_weight.fill_(weight)
    return block


def without_price(family: str, halting: str, shift: float) -> AdaptiveBlock:
    """The same block with that in its biases."""
    block, source = block_of(family, halting), priced(family, halting).state_dict()
    block.load_state_dict({name: value for name, value in source.items() if "price_weight" not in name})
    inside = min(max(shift, RANGE[0]), RANGE[1])
    with torch.no_grad():
        for unit, weight in zip(block.units, WEIGHTS):
            conv = unit.halting.local_conv if halting == "sact" else unit.halting.global_conv
            conv.bias += weight * inside + (shift - inside)
    return block


def x_of(family: str = "imagenet") -> Tensor:
    return inputs(3, 13, 12, {"imagenet": 16, "cifar": 4}[family])


@torch.no_grad()
@pytest.mark.parametrize("shift", [-6.0, -1.5, 0.0, 2.0, 5.0, math.inf, -math.inf])
@pytest.mark.parametrize(("family", "halting"), [("imagenet", "sact"), ("imagenet", "act"), ("cifar", "sact")])
def test_within_its_range_a_shift_is_weighted_and_what_lies_beyond_is_added(family: str, halting: str, shift: float):
    pytest.importorskip("triton", reason="Triton is not installed: there is none for this platform")
    block, x = priced(family, halting).eval(), x_of(family)
    expected, spent = without_price(family, halting, shift).eval()(x)
    block.shift = shift
    for execution in ["dense", "positions", "auto", "export"] + ["triton"] * (family == "imagenet"):
        set_execution(block, execution)
        output, ponder = block(x)
        torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(ponder.num_units, spent.num_units) and torch.equal(ponder.flops, spent.flops), execution


def gradients_of(block: AdaptiveBlock, x: Tensor, execution: str) -> list[Tensor]:
    """Of a loss that reads features and costs, sums over images."""
    set_execution(block.train(), execution)
    output, ponder = block(x)
    (output.square().mean((1, 2, 3)).sum() + 0.1 * ponder.mean_cost().sum()).backward()
    found = [p.grad.clone() for p in block.parameters() if p.grad is not None]
    block.zero_grad(set_to_none=True)
    return [output.detach(), ponder.ponder_cost.detach(), *found]


@pytest.mark.parametrize("reads_price", [False, True])
@pytest.mark.parametrize("halting", ["sact", "act"])
@pytest.mark.parametrize("execution", ["dense", "positions", "perforated"])
def test_images_with_shifts_of_their_own_learn_as_if_each_was_alone(execution: str, halting: str, reads_price: bool):
    block, x, shifts = (
        priced(halting=halting) if reads_price else block_of("imagenet", halting),
        x_of(),
        (-4.0, 1.0, 3.5),
    )
    freeze_norms(block)
    alone = []
    for image, shift in zip(x, shifts):
        block.shift = shift
        alone.append(gradients_of(block, image[None], "dense"))
    block.shift = torch.tensor(shifts)
    output, cost, *gradients = gradients_of(block, x, execution)
    torch.testing.assert_close(output, torch.cat([own[0] for own in alone]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(cost, torch.cat([own[1] for own in alone]), atol=1e-5, rtol=1e-4)
    assert len(gradients) == len(alone[0]) - 2 > 20
    for number, found in enumerate(gradients, 2):
        torch.testing.assert_close(found, sum(own[number] for own in alone), atol=1e-4, rtol=1e-3)
    if reads_price:
        weights = [unit.halting.price_weight for unit in block.units[:-1]]
        gradients_of_weights = [g for g, p in zip(gradients, block.parameters()) if any(p is w for w in weights)]
        assert len(gradients_of_weights) == len(WEIGHTS) and all(bool(g.abs() > 0) for g in gradients_of_weights)


@torch.no_grad()
def test_regions_have_the_shift_of_their_image():
    block, x = priced().train(), x_of()
    freeze_norms(block)
    block.shift = torch.tensor([-4.0, 3.5])
    output, ponder = block(x, regions=[1, 2])
    block.shift = torch.tensor([-4.0, 3.5, 3.5])
    expected, spent = block(x)
    assert torch.equal(output, expected) and torch.equal(ponder.ponder_cost, spent.ponder_cost)


@torch.no_grad()
@pytest.mark.skipif(library.why_unavailable() is not None, reason=str(library.why_unavailable()))
def test_released_weights_read_another_price():
    model, x = build_classifier((2, 3, 2, 2), base_channels=8, num_classes=5), images(2, 70, 90)
    for name in model.block_names:
        for unit in model.get_submodule(name).units[:-1]:
            unit.halting.read_price(*RANGE)
            unit.halting.price_weight += 0.7
    randomize(model, images(4, 64, 64), halting_bias=-1.0).set_execution("auto")
    model.block2.shift = 2.0
    expected = model(x)
    model.block2.shift = 0.0
    release_weights(model)
    at_zero = model(x)
    model.block2.shift = 2.0
    output = model(x)
    assert torch.equal(output.logits, expected.logits) and torch.equal(output.ponder.flops, expected.ponder.flops)
    assert not torch.equal(at_zero.ponder.flops, expected.ponder.flops)


def test_only_those_that_are_told_to_have_a_parameter_for_it_and_it_starts_without_effect():
    names, other = set(priced().state_dict()), set(block_of("imagenet").state_dict())
    assert names - other == {f"units.{index}.halting.price_weight" for index in range(len(WEIGHTS))} and other < names
    fresh = block_of("imagenet", prices=PRICES)
    assert all(not unit.halting.price_weight.any() for unit in fresh.units[:-1])
