import copy
from typing import Iterator, Optional

import pytest
import torch
import torch.nn.functional as F
from literal_algorithms import algorithm_1, algorithm_2
from small_networks import images, randomize
from torch import Tensor, nn

from sact_det.execution import EXECUTIONS, set_execution
from sact_det.network.block import AdaptiveBlock
from sact_det.network.branch import SpatialHalting
from sact_det.network.norm import freeze_norms
from sact_det.network.resnet_v2 import ResNetV2Spec
from sact_det.rule.halting import halting_step, share_in_tiles, start_halting
from sact_det.rule.ponder import BlockPonder

UNITS = 5
IN_CHANNELS = 64
SEEDS = range(3)


def build(halting: str, seed: int = 0, halting_bias: float = 0.0, num_units: int = UNITS, **spec) -> AdaptiveBlock:
    """Block 2 (64 -> 128 channels, stride 2) of a small network, in evaluation mode."""
    block = ResNetV2Spec((1, num_units), base_channels=16, halting=halting, **spec).build_block(2)
    return randomize(block, images(4, 11, 14, IN_CHANNELS, seed), seed, halting_bias)


@pytest.fixture
def x() -> Tensor:
    return images(3, 11, 14, IN_CHANNELS)


def outputs_of(block: AdaptiveBlock, x: Tensor) -> list[Tensor]:
    """The outputs of the units that a forward pass computes."""
    states: list[Tensor] = []
    hooks = [unit.register_forward_hook(lambda unit, inputs, y: states.append(y.detach())) for unit in block.units]
    block(x)
    for hook in hooks:
        hook.remove()
    return states


def per_image(block: AdaptiveBlock, x: Tensor) -> Iterator[tuple[Tensor, Tensor, BlockPonder]]:
    """Every image [1, C, H, W] with its part of what the block makes of the whole batch."""
    output, ponder = block(x)
    for n in range(len(x)):
        yield x[n : n + 1], output[n : n + 1], ponder.image(n)


@torch.no_grad()
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("tile", "eps"), [(1, 0.01), (1, 0.3), (2, 0.01), (3, 0.01)])
def test_sact_is_algorithm_2(x: Tensor, seed: int, tile: int, eps: float):
    block = build("sact", seed, eps=eps, tile=tile)
    scores = [lambda x, unit=unit: share_in_tiles(unit.halting(x), tile) for unit in block.units[:-1]]
    seen = set()
    for image, output, ponder in per_image(block, x):
        expected, rho, N = algorithm_2(image, block.units, scores, eps)
        torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(ponder.ponder_cost[0], rho, atol=1e-4, rtol=1e-4)
        assert torch.equal(ponder.num_units[0], N)
        seen |= set(N.flatten().tolist())
    assert len(seen) >= 3  # the positions did halt at different units


@torch.no_grad()
@pytest.mark.parametrize("seed", SEEDS)
def test_act_is_algorithm_1(x: Tensor, seed: int):
    block = build("act", seed)
    scores = [unit.halting for unit in block.units[:-1]]
    for image, output, ponder in per_image(block, x):
        expected, rho, N = algorithm_1(image, block.units, scores, block.eps)
        torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)
        assert ponder.ponder_cost.item() == pytest.approx(rho, abs=1e-4)
        assert ponder.num_units.item() == N


def double_score(branch: nn.Module, x: Tensor) -> Tensor:
    """h^l in float64 by its definition (eq. 6, 14), from float64 parameters."""

    def normalized(x: Tensor, norm: nn.Module) -> Tensor:
        scale, shift = (
            value[:, None, None] for value in (norm.weight / (norm.running_var + norm.eps).sqrt(), norm.bias)
        )
        return (x - norm.running_mean[:, None, None]) * scale + shift

    pooled = normalized(x.mean((2, 3), keepdim=True), branch.global_norm)
    logits = F.conv2d(pooled, branch.global_conv.weight, branch.global_conv.bias)
    if isinstance(branch, SpatialHalting):
        local = branch.local_conv
        logits = logits + F.conv2d(normalized(x, branch.local_norm), local.weight, local.bias, padding=1)
    return 1 / (1 + (-logits[:, 0]).exp())


@torch.no_grad()
@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("halting", ["act", "sact"])
def test_doubles_are_computed_in_double_precision(x: Tensor, halting: str, execution: str):
    block, x = build(halting).double(), x.double()
    set_execution(block, execution)
    scores = [lambda x, unit=unit: double_score(unit.halting, x) for unit in block.units[:-1]]
    algorithm = {"act": algorithm_1, "sact": algorithm_2}[halting]
    for image, output, ponder in per_image(block, x):
        expected, rho, N = algorithm(image, block.units, scores, block.eps)
        torch.testing.assert_close(output, expected, atol=1e-12, rtol=1e-12)
        rho = torch.as_tensor(rho, dtype=torch.float64).expand_as(ponder.ponder_cost[0])
        torch.testing.assert_close(ponder.ponder_cost[0], rho, atol=1e-12, rtol=1e-12)
        assert torch.equal(ponder.num_units[0], torch.as_tensor(N).expand_as(ponder.num_units[0]))
        assert (ponder.halting_distribution.sum(1) - 1).abs().max() < 1e-12


@pytest.mark.parametrize("halting", ["none", "act", "sact"])
@pytest.mark.parametrize("norms", ["BN, BN", "MovingBN, MovingBN", "FrozenBN, MovingBN", "FrozenBN, BN"])
@pytest.mark.parametrize("sizes", [None, [(11, 14), (5, 14), (11, 3)]])
def test_training_in_doubles_is_training(x: Tensor, halting: str, norms: str, sizes: Optional[list]):
    """Against float32, and between the executions, which agree to the last bits of float64."""
    norm, halting_norm = norms.split(", ")
    block = ResNetV2Spec((1, 4), 16, halting, norm, halting_norm).build_block(2)
    randomize(block, x)
    found = {}
    for execution, dtype in (("dense", torch.float32), *((execution, torch.float64) for execution in EXECUTIONS)):
        twin = copy.deepcopy(block).to(dtype).train()
        set_execution(twin, execution)
        features, ponder = twin(x.to(dtype), sizes)
        (features.square().mean() + ponder.mean_cost().sum()).backward()
        assert features.dtype == ponder.ponder_cost.dtype == ponder.halting_distribution.dtype == dtype
        statistics = [value for value in twin.buffers() if value.is_floating_point()]
        found[execution, dtype] = [features.detach(), *(p.grad for p in twin.parameters()), *statistics]
    reference = found["dense", torch.float64]
    assert {value.dtype for value in reference} == {torch.float64}
    for execution in EXECUTIONS:
        for actual, expected in zip(found[execution, torch.float64], reference):
            assert (actual - expected).norm() < 1e-11 * expected.norm() + 1e-13
    for actual, expected in zip(found["dense", torch.float32], reference):
        assert (actual - expected).norm() < 2e-2 * expected.norm() + 1e-5  # a unit of a ReLU may be on its other side


@torch.no_grad()
@pytest.mark.parametrize("halting", ["none", "act", "sact"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_block_may_be_cast_back_and_forth(x: Tensor, halting: str, dtype: torch.dtype):
    block = build(halting)
    expected = block.to(dtype)(x.to(dtype))[1].ponder_cost
    features, ponder = block.double().to(dtype)(x.to(dtype))
    assert features.dtype == dtype and torch.equal(ponder.ponder_cost, expected)
    for unit in block.units[:-1]:
        assert unit.halting is None or {p.dtype for p in unit.halting.parameters()} == {torch.float32}


@torch.no_grad()
def test_without_halting_a_block_is_its_units_one_after_the_other(x: Tensor):
    block = build("none")
    output, ponder = block(x)
    assert torch.equal(output, nn.Sequential(*block.units)(x))
    assert torch.equal(ponder.num_units, torch.full((3, 6, 7), UNITS))
    assert torch.equal(ponder.ponder_cost, torch.full((3, 6, 7), UNITS + 1.0))
    assert torch.equal(ponder.halting_distribution.sum(1), torch.ones(3, 6, 7))


@torch.no_grad()
@pytest.mark.parametrize("halting", ["sact", "act"])
def test_output_is_the_sum_of_the_states_weighted_by_the_halting_distribution(x: Tensor, halting: str):
    block = build(halting)
    output, ponder = block(x)
    states = torch.stack(outputs_of(block, x), 1)
    weights = ponder.halting_distribution[:, : states.shape[1], None]
    torch.testing.assert_close(output, (weights * states).sum(1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ponder.halting_distribution.sum(1), torch.ones_like(ponder.ponder_cost))


@torch.no_grad()
@pytest.mark.parametrize("halting", ["sact", "act"])
def test_positions_keep_their_state_once_they_have_halted(x: Tensor, halting: str):
    block = build(halting)
    num_units = block(x)[1].num_units[:, None]
    states = outputs_of(block, x)
    for index in range(1, len(states)):
        frozen = (num_units <= index).expand_as(states[index])
        assert torch.equal(states[index][frozen], states[index - 1][frozen])
        assert (states[index] != states[index - 1])[~frozen].float().mean() > 0.99


@torch.no_grad()
@pytest.mark.parametrize("halting", ["sact", "act"])
@pytest.mark.parametrize(("halting_bias", "evaluated"), [(30, 1), (0.5, 2)])
def test_evaluation_stops_when_every_position_has_halted(x: Tensor, halting: str, halting_bias: float, evaluated: int):
    """... with the outcome of training mode, where all units run (its norms frozen, so that they compute the same)."""
    block = build(halting)
    for unit in block.units[:-1]:
        nn.init.zeros_(unit.halting.global_conv.weight)
        if halting == "sact":
            nn.init.zeros_(unit.halting.local_conv.weight)
        nn.init.constant_(
            (unit.halting.local_conv if halting == "sact" else unit.halting.global_conv).bias, halting_bias
        )
    freeze_norms(block)
    assert len(outputs_of(block, x)) == evaluated
    output, ponder = block(x)
    assert (ponder.num_units == evaluated).all()
    block.train()
    assert len(outputs_of(block, x)) == UNITS
    output_in_training, ponder_in_training = block(x)
    assert torch.equal(output, output_in_training)
    for name in ("ponder_cost", "num_units", "flops", "halting_distribution"):
        assert torch.equal(getattr(ponder, name), getattr(ponder_in_training, name))


@torch.no_grad()
def test_sact_without_local_weights_is_act(x: Tensor):
    """Section 2.3: "If we choose W = 0, then ... we recover the ACT model." """
    sact, act = build("sact"), build("act")
    weights = sact.state_dict()
    for name, value in weights.items():
        if "local_conv.weight" in name:
            value.zero_()
    act.load_state_dict(
        {name: weights[name.replace("global_conv.bias", "local_conv.bias")] for name in act.state_dict()}
    )
    (output, ponder), (output_, ponder_) = sact(x), act(x)
    torch.testing.assert_close(output, output_)
    torch.testing.assert_close(ponder.ponder_cost, ponder_.ponder_cost.expand(3, 6, 7))
    assert torch.equal(ponder.num_units, ponder_.num_units.expand(3, 6, 7))
    assert ponder_.num_units.unique().numel() > 1


@torch.no_grad()
@pytest.mark.parametrize("halting", ["sact", "act"])
@pytest.mark.parametrize("num_units", range(1, UNITS + 1))
def test_any_constant_number_of_units_can_be_recovered(x: Tensor, halting: str, num_units: int):
    """Section 2.2: "by setting h^1 = ... = h^(l-1) = 0, h^l = 1"."""
    block, plain = build(halting), build("none", num_units=num_units)
    for index, unit in enumerate(block.units[:-1], 1):
        for conv in (part for part in unit.halting.modules() if isinstance(part, nn.Conv2d)):
            nn.init.zeros_(conv.weight)
            if conv.bias is not None:
                nn.init.constant_(conv.bias, 200 if index == num_units else -200)
    plain.load_state_dict({name: value for name, value in block.state_dict().items() if name in plain.state_dict()})
    (output, ponder), (expected, _) = block(x), plain(x)
    assert torch.equal(output, expected)
    assert (ponder.num_units == num_units).all()
    assert (ponder.ponder_cost == num_units + 1).all()


@pytest.mark.parametrize("halting", ["sact", "act"])
def test_gradient_of_the_ponder_cost_raises_the_scores_of_every_unit_that_does_not_halt(x: Tensor, halting: str):
    block = build(halting, halting_bias=-8).train()
    block(x)[1].mean_cost().sum().backward()
    for unit in block.units[:-1]:
        bias = (unit.halting.local_conv if halting == "sact" else unit.halting.global_conv).bias
        assert bias.grad.item() < 0  # a gradient step raises it
        assert all(parameter.grad is not None for parameter in unit.halting.parameters())
    assert block.units[-1].conv3.weight.grad is None  # no later score depends on the last unit


def test_gradient_of_the_output_reaches_every_halting_branch_that_decides(x: Tensor):
    block = build("sact", halting_bias=-8).train()
    block(x)[0].square().sum().backward()
    for parameter in block.parameters():
        assert parameter.grad is not None
    for unit in block.units[:-1]:
        assert unit.halting.local_conv.weight.grad.abs().sum() > 0


@torch.no_grad()
@pytest.mark.parametrize("halting", ["sact", "act"])
def test_halting_is_float32_arithmetic_under_autocast(x: Tensor, halting: str):
    block = build(halting)
    freeze_norms(block)
    with torch.autocast("cpu", torch.bfloat16):
        output, ponder = block(x.bfloat16())
        states = outputs_of(block, x.bfloat16())
    assert output.dtype == states[0].dtype == torch.bfloat16
    assert ponder.ponder_cost.dtype == ponder.halting_distribution.dtype == torch.float32
    # The scores of these states, added up outside of autocast, halt at the same units and leave the same remainders.
    state = start_halting(torch.ones_like(ponder.num_units, dtype=torch.bool))
    for unit, y in zip(block.units, states):
        _, state = halting_step(state, unit.halting(y) if unit.halting else None)
    assert torch.equal(ponder.ponder_cost, state.ponder_cost)
    assert torch.equal(ponder.num_units, state.num_units)


@pytest.mark.parametrize("halting", ["none", "act", "sact"])
def test_a_block_of_one_unit_costs_two(x: Tensor, halting: str):
    block = build(halting, num_units=1)
    output, ponder = block(x)
    torch.testing.assert_close(output, block.units[0](x))
    assert (ponder.ponder_cost == 2).all()
    assert (ponder.num_units == 1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"halting": "ponder"}, "`halting` must be one of 'none', 'act', 'sact'; got 'ponder'"),
        ({"units": []}, "`units`: a block needs at least one residual unit"),
        ({"eps": 0.0}, r"`eps` must lie in \(0, 1\); got 0.0"),
        ({"eps": 1.0}, r"`eps` must lie in \(0, 1\); got 1.0"),
        ({"halting": "sact", "tile": 0}, "`tile` must be 1, or more with halting 'sact'; got 0"),
        ({"halting": "act", "tile": 2}, "`tile` must be 1, or more with halting 'sact'; got 2 with 'act'"),
    ],
)
def test_arguments_that_are_wrong_are_named(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        AdaptiveBlock(**{"units": build("none", num_units=1).units, **arguments})
