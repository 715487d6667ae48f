"""The shift of a block is a number in every halting logit, whatever computes, and no more than that."""

import copy
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
from sact_det.network.branch import SpatialHalting
from sact_det.network.norm import freeze_norms

SHIFTS = (-6.0, 0.0, 3.0, -math.inf, math.inf)
SIZES = [(13, 9), (8, 12)]


@pytest.fixture(autouse=True)
def every_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """`set_execution` knows two more: PyTorch at positions, and Triton's kernels whatever is there."""
    monkeypatch.setitem(PLANS, "positions", PositionsPlan)
    monkeypatch.setitem(PLANS, "triton", TritonPlan)
    monkeypatch.setattr("sact_det.execution.plan.EXECUTIONS", tuple(PLANS))


def x_of(family: str) -> Tensor:
    return inputs(2, 13, 12, {"imagenet": 16, "cifar": 4}[family])


def biased(block: AdaptiveBlock, shift: float) -> AdaptiveBlock:
    """A copy without a shift, whose biases are larger by `shift`."""
    copied = copy.deepcopy(block)
    copied.shift = 0.0
    with torch.no_grad():
        for unit in copied.units[:-1]:
            conv = unit.halting.local_conv if isinstance(unit.halting, SpatialHalting) else unit.halting.global_conv
            conv.bias += shift
    return copied


def executions(family: str) -> list[str]:
    pytest.importorskip("triton", reason="Triton is not installed: there is none for this platform")
    return ["positions", "perforated", "auto", "export"] + (["triton"] if family == "imagenet" else [])


@torch.no_grad()
@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize(("family", "halting"), [("imagenet", "sact"), ("imagenet", "act"), ("cifar", "sact")])
def test_every_execution_adds_it(family: str, halting: str, shift: float):
    block, x = block_of(family, halting).eval(), x_of(family)
    sizes = SIZES if family == "imagenet" else None
    set_execution(block, "dense")
    block.shift = shift
    expected, spent = block(x, sizes)
    for execution in executions(family):
        set_execution(block, execution)
        output, ponder = block(x, sizes)
        torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(ponder.num_units, spent.num_units) and torch.equal(ponder.flops, spent.flops), execution
        torch.testing.assert_close(ponder.ponder_cost, spent.ponder_cost, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("halting", ["sact", "act"])
def test_it_is_that_number_in_the_biases_and_moves_what_halts(halting: str):
    block, x = block_of("imagenet", halting).eval(), x_of("imagenet")
    units = []
    for shift in (-6.0, -1.0, 0.0, 3.0):
        expected, spent = biased(block, shift)(x)
        block.shift = shift
        output, ponder = block(x)
        torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(ponder.num_units, spent.num_units)
        units.append(int(ponder.num_units.sum()))
    assert units == sorted(units, reverse=True) and len(set(units)) > 2


@torch.no_grad()
@pytest.mark.parametrize("execution", ["dense", "positions", "auto", "triton"])
@pytest.mark.parametrize("halting", ["sact", "act"])
def test_at_minus_infinity_a_block_is_the_plain_one_and_at_infinity_its_first_unit(halting: str, execution: str):
    pytest.importorskip("triton", reason="Triton is not installed: there is none for this platform")
    block, x = block_of("imagenet", halting).eval(), x_of("imagenet")
    set_execution(block, execution)
    state = x
    outputs = [state := unit(state) for unit in block.units]
    for shift, unit in ((-math.inf, -1), (math.inf, 0)):
        block.shift = shift
        torch.testing.assert_close(block(x)[0], outputs[unit], atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("execution", ["dense", "positions", "auto", "triton"])
def test_a_change_between_two_calls_is_seen_and_what_was_packed_stays(execution: str):
    pytest.importorskip("triton", reason="Triton is not installed: there is none for this platform")
    block, x = block_of("imagenet").eval(), x_of("imagenet")
    set_execution(block, execution)
    first, spent = block(x)
    block.shift = 3.0
    assert not torch.equal(block(x)[1].num_units, spent.num_units)
    block.shift = 0.0
    again, ponder = block(x)
    assert torch.equal(again, first) and torch.equal(ponder.ponder_cost, spent.ponder_cost)


@torch.no_grad()
@pytest.mark.skipif(library.why_unavailable() is not None, reason=str(library.why_unavailable()))
def test_released_weights_take_another_shift():
    model, x = build_classifier((2, 3, 2, 2), base_channels=8, num_classes=5), images(2, 70, 90)
    randomize(model, images(4, 64, 64), halting_bias=-1.0).set_execution("auto")
    model.block2.shift = 2.0
    expected = model(x)
    model.block2.shift = 0.0
    release_weights(model)
    released = model(x)
    model.block2.shift = 2.0
    output = model(x)
    assert torch.equal(output.logits, expected.logits) and torch.equal(output.ponder.flops, expected.ponder.flops)
    assert not torch.equal(released.ponder.flops, expected.ponder.flops)


@pytest.mark.parametrize("execution", ["positions", "perforated"])
@pytest.mark.parametrize("shift", [-6.0, 3.0])
def test_training_learns_the_same_with_it_as_with_larger_biases(execution: str, shift: float):
    block, x = block_of("imagenet"), x_of("imagenet")
    freeze_norms(block)
    others, gradients = (biased(block, shift), block.train()), []
    block.shift = shift
    for part, how in zip(others, ("dense", execution)):
        set_execution(part.train(), how)
        output, ponder = part(x)
        (output.square().mean() + 0.1 * ponder.mean_cost().mean()).backward()
        gradients.append([p.grad for p in part.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 20
    for expected, found in zip(*gradients):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)


def test_it_is_copied_and_no_part_of_a_state():
    block = block_of("imagenet")
    names = set(block.state_dict())
    block.shift = 2
    assert set(block.state_dict()) == names and copy.deepcopy(block).shift == 2.0
    assert {unit.halting.shift for unit in block.units[:-1]} == {2.0}
    other = block_of("imagenet")
    other.load_state_dict(block.state_dict())
    assert other.shift == 0


def test_what_nothing_halts_by_itself_has_none_and_nan_is_refused():
    plain = block_of("imagenet", "none")
    plain.shift = 3.0
    assert plain.shift == 0
    with pytest.raises(ValueError, match="`shift` must be a number; got nan"):
        block_of("imagenet").shift = math.nan
