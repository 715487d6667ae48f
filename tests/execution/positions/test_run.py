"""The perforated runs in PyTorch compute what the dense run computes."""

import copy
import itertools
from functools import partial
from typing import Optional

import pytest
import torch
from perforated_blocks import CHANNELS, PATTERNS, UNITS, block_of, inputs, shrinking_masks
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sact_det.execution import set_execution
from sact_det.execution.cpu import library
from sact_det.execution.positions.active_set import ActiveSet
from sact_det.execution.positions.gather_gemm import READS, residual
from sact_det.execution.positions.run import PositionRun
from sact_det.network.block import AdaptiveBlock
from sact_det.network.norm import BatchNorm2d, freeze_norms
from sact_det.network.run import DenseRun


@pytest.fixture(autouse=True)
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "why_unavailable", lambda: "none here")


@torch.no_grad()
@pytest.mark.parametrize("family", ["imagenet", "cifar"])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("size", [(2, 1, 1), (2, 1, 7), (3, 8, 9), (1, 13, 6)])
def test_states_scores_and_output_are_those_of_the_dense_run(family: str, pattern: str, size: tuple[int, int, int]):
    block = block_of(family)
    x = block.units[0](inputs(size[0], 2 * size[1], 2 * size[2], CHANNELS[family]))
    masks = shrinking_masks(pattern, (x.shape[0], *x.shape[2:]))
    masks = [torch.ones_like(masks[0]), *masks, torch.zeros_like(masks[0])]
    weights, left = [], torch.ones(masks[0].shape)
    for mask, after in itertools.pairwise(masks):
        weights.append(torch.where(after, left * torch.rand(left.shape), left) * mask)
        left = left - weights[-1]
    dense, other = DenseRun(x, None), DenseRun(x, None)
    for run in (dense, other):
        run.add(weights[0])
    perforated = PositionRun(other, block.units[1:])
    for unit, active, weight in zip(block.units[1:], masks[1:], weights[1:]):
        for run in (dense, perforated):
            run.evaluate(unit, active)
            run.add(weight)
        if unit.halting is not None:
            expected, actual = dense.scores(unit.halting), perforated.scores(unit.halting)
            torch.testing.assert_close(actual[active], expected[active], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(perforated.result(), dense.result(), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("halting", ["sact", "act"])
@pytest.mark.parametrize("sizes", [None, [(17, 23), (24, 9), (5, 24), (1, 1)]])
@pytest.mark.parametrize("tile", [1, 3])
def test_blocks_give_the_same_in_both_executions(halting: str, sizes: Optional[list], tile: int):
    if tile > 1 and halting == "act":
        pytest.skip("tiles are SACT's")
    block = block_of("imagenet", halting, tile=tile)
    x = inputs(4, 24, 24, 16)
    if sizes is not None:
        for image, (height, width) in zip(x, sizes):
            image[:, height:] = 0
            image[:, :, width:] = 0
    features, ponder = block(x, sizes)
    set_execution(block, "perforated")
    same_features, same_ponder = block(x, sizes)
    assert len(ponder.num_units.unique()) > 1
    assert torch.equal(same_ponder.num_units, ponder.num_units) and torch.equal(same_ponder.flops, ponder.flops)
    torch.testing.assert_close(same_ponder.ponder_cost, ponder.ponder_cost, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(same_ponder.halting_distribution, ponder.halting_distribution, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(same_features, features, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["imagenet", "cifar"])
@pytest.mark.parametrize("halting", ["sact", "act"])
@pytest.mark.parametrize("halting_norm", ["FrozenBN", "MovingBN"])
def test_training_with_fixed_norms_has_the_same_gradients_and_statistics(family: str, halting: str, halting_norm: str):
    def step(execution: str) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        block = block_of(family, halting, halting_norm=halting_norm)
        freeze_norms(block, skip="" if halting_norm == "FrozenBN" else "halting")
        set_execution(block.train(), execution)
        x = inputs(6, 20, 14, CHANNELS[family]).requires_grad_()
        features, ponder = block(x)
        assert len(ponder.num_units.unique()) > 1
        (features.square().mean() + 0.1 * ponder.mean_cost().mean()).backward()
        gradients = {name: parameter.grad for name, parameter in block.named_parameters()}
        return {**gradients, "x": x.grad}, dict(block.named_buffers()), features.detach()

    (dense, dense_statistics, features), (perforated, statistics, same_features) = step("dense"), step("perforated")
    torch.testing.assert_close(same_features, features, rtol=1e-4, atol=1e-5)
    assert all(gradient is not None for gradient in perforated.values())
    for name, gradient in dense.items():
        error = (perforated[name] - gradient).norm() / gradient.norm().clamp_min(1e-6)
        assert error.item() < 1e-4, name
    for name, value in dense_statistics.items():
        torch.testing.assert_close(statistics[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["imagenet", "cifar"])
@pytest.mark.parametrize("halting", ["sact", "act"])
@pytest.mark.parametrize("still", ["units.0", "units.2", "no"])
def test_statistics_move_in_training_alone_and_of_all_positions(family: str, halting: str, still: str):
    """Whatever norm is in evaluation while the rest trains; "no": the units' own norms learn, too."""

    def statistics(execution: str) -> dict[str, Tensor]:
        norm = "MovingBN" if still == "no" else "FrozenBN"
        block = block_of(family, halting, norm=norm, halting_norm="MovingBN").train()
        set_execution(block, execution)
        for name, part in block.named_modules():
            if name.startswith(f"{still}.halting"):
                part.eval()
        before = {name: value.clone() for name, value in block.named_buffers()}
        _, ponder = block(inputs(4, 20, 14, CHANNELS[family]))
        assert len(ponder.num_units.unique()) > 1
        for name, value in block.named_buffers():
            learns = ("halting" in name and not name.startswith(still)) or still == "no"
            assert torch.equal(value, before[name]) != learns, name
        return dict(block.named_buffers())

    dense, perforated = statistics("dense"), statistics("perforated")
    for name, value in dense.items():
        torch.testing.assert_close(perforated[name], value, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("halting", ["sact", "act"])
def test_maps_of_a_single_position_will_do(halting: str):
    block = block_of("imagenet", halting)
    x = inputs(4, 2, 1, 16)
    features, ponder = block(x)
    set_execution(block, "perforated")
    same_features, same_ponder = block(x)
    assert torch.equal(same_ponder.num_units, ponder.num_units) and torch.equal(same_ponder.flops, ponder.flops)
    assert int(ponder.num_units.max()) > 1
    torch.testing.assert_close(same_features, features, rtol=1e-4, atol=1e-5)


def test_blocks_with_norms_that_learn_from_the_batch_run_dense():
    block = block_of("imagenet").train()
    x = inputs(3, 20, 14, 16)
    state = {name: value.clone() for name, value in block.state_dict().items()}
    features, _ = block(x)
    learned = {name: value.clone() for name, value in block.state_dict().items()}
    block.load_state_dict(state)
    set_execution(block, "perforated")
    assert isinstance(block.units[1].preact, BatchNorm2d)
    assert torch.equal(block(x)[0], features)
    assert all(torch.equal(value, learned[name]) for name, value in block.state_dict().items())


def test_active_images_alone_are_computed_under_act():
    block = block_of("imagenet", "act")
    seen: list[int] = []
    for unit in block.units[1:]:
        unit.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
    set_execution(block, "perforated")
    units = block(inputs(4, 24, 24, 16))[1].num_units  # with gradients, so in PyTorch
    expected = [int((units > index).sum()) for index in range(1, UNITS)]
    assert expected[0] > expected[1] > 0
    assert seen == [count for count in expected if count]


@torch.no_grad()
def test_auto_perforates_only_where_enough_positions_have_halted():
    block = block_of("imagenet")
    x = block.units[0](inputs(1, 16, 16, 16))
    set_execution(block, "auto")
    few, most = torch.zeros(1, 8, 8, dtype=torch.bool), torch.ones(1, 8, 8, dtype=torch.bool)
    few[:, :2] = True
    run = DenseRun(x, None)
    run.add(torch.full((1, 8, 8), 0.5))
    assert isinstance(block.plan.proceed(block, run, 1, few), PositionRun)
    assert block.plan.proceed(block, run, 1, most) is run


@pytest.mark.parametrize("family", ["imagenet", "cifar"])
@pytest.mark.parametrize("pattern", ["random", "corners", "single"])
def test_gradients_of_a_residual_pass_gradcheck(family: str, pattern: str):
    unit = block_of(family).units[1].double()
    freeze_norms(unit)
    active = shrinking_masks(pattern, (2, 4, 5))[1]
    active_set = ActiveSet(active, None, READS[type(unit)])
    generator = torch.Generator().manual_seed(5)
    channels = unit.conv1.in_channels
    rows = torch.randn(len(active_set.rings[-1]), channels, generator=generator, dtype=torch.float64)
    weights = [unit.conv1.weight, unit.conv2.weight]

    def evaluate(rows: Tensor, *_: Tensor) -> Tensor:
        return residual(unit, rows, active_set)

    inputs = (rows.requires_grad_(), *(weight.requires_grad_() for weight in weights))
    assert torch.autograd.gradcheck(evaluate, inputs, fast_mode=True)


def training_step(block: AdaptiveBlock, x: Tensor, recompute: bool = False) -> dict[str, Tensor]:
    """Gradients of a loss of the features and the ponder cost."""
    block.zero_grad()
    x = x.clone().requires_grad_()
    run = partial(checkpoint, block, use_reentrant=False) if recompute else block
    features, ponder = run(x)
    (features.float().square().mean() + 0.1 * ponder.ponder_cost.mean()).backward()
    assert x.grad is not None
    return {"x": x.grad, **{name: p.grad for name, p in block.named_parameters() if p.grad is not None}}


@pytest.mark.parametrize("execution", ["dense", "perforated"])
def test_activation_checkpointing_gives_the_same_gradients(execution: str):
    block = block_of("imagenet", norm="FrozenBN", halting_norm="FrozenBN").train()
    set_execution(block, execution)
    x = inputs(2, 20, 14, 16)
    plain, recomputed = training_step(block, x), training_step(block, x, recompute=True)
    assert plain.keys() == recomputed.keys() and any("local_conv" in name for name in plain)
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, rtol=1e-5, atol=1e-7)


def test_steps_of_training_repeat_to_the_last_bit():
    """A map so large that PyTorch splits sums of gradients between threads."""
    block = block_of("imagenet", norm="FrozenBN", halting_norm="FrozenBN").train()
    set_execution(block, "perforated")
    x = inputs(1, 400, 400, 16)
    torch.set_num_threads(4)
    try:
        first, *others = (training_step(block, x) for _ in range(3))
    finally:
        torch.set_num_threads(1)
    for other in others:
        assert [name for name, gradient in other.items() if not torch.equal(gradient, first[name])] == []


def test_under_amp_gradients_are_those_of_the_dense_run_to_the_precision_of_bfloat16():
    block = block_of("imagenet", norm="FrozenBN", halting_norm="FrozenBN").train()
    x = inputs(2, 20, 14, 16)
    gradients = {}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for execution in ("dense", "perforated"):
            set_execution(block, execution)
            gradients[execution] = training_step(block, x)
    set_execution(block, "dense")
    exact = training_step(block, x)
    for name, gradient in exact.items():
        dense, perforated = ((gradients[e][name] - gradient).norm() for e in ("dense", "perforated"))
        assert perforated < 2 * dense + 1e-3 * gradient.norm(), name


@torch.no_grad()
@pytest.mark.parametrize("family", ["imagenet", "cifar"])
@pytest.mark.parametrize("autocast", [True, False])
def test_inference_in_bfloat16_is_as_near_to_float32_as_the_dense_run(family: str, autocast: bool):
    block = block_of(family).eval()
    x = block.units[0](inputs(2, 16, 18, CHANNELS[family]))
    half, x_half = (block, x) if autocast else (copy.deepcopy(block).bfloat16(), x.bfloat16())
    masks = shrinking_masks("random", (2, 8, 9))
    exact, dense, start = DenseRun(x, None), DenseRun(x_half, None), DenseRun(x_half, None)
    for each in (exact, dense, start):
        each.add(torch.where(masks[0], 0.2, 1.0))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        perforated = PositionRun(start, half.units[1:])
        later = [*masks[1:], masks[0] & False]
        for unit, half_unit, active, after in zip(block.units[1:], half.units[1:], masks, later):
            weight = torch.where(after, 0.2, exact.remaining) * active
            with torch.autocast("cpu", enabled=False):
                exact.evaluate(unit, active)
            dense.evaluate(half_unit, active)
            perforated.evaluate(half_unit, active)
            if unit.halting is not None:
                expected, actual = exact.scores(unit.halting)[active], perforated.scores(half_unit.halting)[active]
                assert actual.dtype == torch.float32
                torch.testing.assert_close(actual, expected, rtol=0, atol=0.1)
            for each in (exact, dense, perforated):
                each.add(weight)
    reference = exact.result()
    error, dense_error = (
        float((run.result().float() - reference).norm() / reference.norm()) for run in (perforated, dense)
    )
    assert error < 0.02 and error < 1.5 * dense_error


@torch.no_grad()
@pytest.mark.parametrize("execution", ["dense", "perforated", "auto"])
@pytest.mark.parametrize("halting", ["none", "act", "sact"])
def test_a_block_cast_to_bfloat16_halts_by_float32_scores(halting: str, execution: str):
    block = block_of("imagenet", halting).eval()
    x = inputs(2, 16, 18, CHANNELS["imagenet"])
    _, ponder = block(x)
    set_execution(block.bfloat16(), execution)
    features, half_ponder = block(x.bfloat16())
    assert features.dtype == torch.bfloat16 and half_ponder.ponder_cost.dtype == torch.float32
    assert (half_ponder.num_units - ponder.num_units).abs().float().mean() <= 0.5
    for unit in block.units[:-1]:
        if unit.halting is not None:
            assert {parameter.dtype for parameter in unit.halting.parameters()} == {torch.float32}
    assert block.units[0].conv1.weight.dtype == torch.bfloat16
