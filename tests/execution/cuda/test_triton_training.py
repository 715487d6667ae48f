"""The Triton kernels for training have the outputs and the gradients of the dense run: interpreted on the CPU."""

import contextlib
import copy
import dataclasses
from functools import partial
from typing import Optional

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from trained_blocks import UNITS, block_of, compare, errors_of_run, inputs, step

from sact_det.benchmark.gpu.waits import HostReads
from sact_det.execution import keep_half_states, set_execution
from sact_det.execution.cuda.training import TritonTrainingRun, why_not_triton_training
from sact_det.execution.packing import WeightCache
from sact_det.execution.perforated import TritonPlan
from sact_det.execution.plan import PLANS
from sact_det.execution.training import fixed_affine
from sact_det.network.block import AdaptiveBlock
from sact_det.network.freeze import freeze, freeze_halting
from sact_det.network.resnet_v2 import ResNetV2Spec
from sact_det.rule.padding import Sizes, valid_mask

pytest.importorskip("triton", reason="Triton is not installed: there is none for this platform")
pytestmark = [
    pytest.mark.usefixtures("no_overflow_checks", "rounding_of_cards"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="make gpu compares steps on a GPU"),
]

FLOAT32 = 1e-4  # what gradients may be off, relative in the Euclidean norm
# In 16 bits a gradient may be as far from that in float32 as under dense execution, within this factor (rounding moves
# other elements over the thresholds of ReLU), plus this much.
FACTOR, MORE = 2.0, 5e-3


@pytest.fixture(autouse=True)
def memory_that_nothing_writes_is_nan(monkeypatch: pytest.MonkeyPatch):
    """No gradient of this file is right if it was made from any of it."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def by_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PLANS, "perforated", TritonPlan)


def check_run(block: AdaptiveBlock, x: Tensor, pattern: str, sizes: Optional[Sizes] = None) -> None:
    assert why_not_triton_training(block, x) is None
    errors = errors_of_run(block, partial(TritonTrainingRun, block, WeightCache()), x, pattern, sizes)
    assert any("gradient of units.1.conv2" in name for name in errors)
    for name, error in errors.items():
        assert error < FLOAT32, f"{name}: {error:.1e}"


@pytest.mark.parametrize(
    "pattern, size",
    [
        *((pattern, (2, 5, 7)) for pattern in ("full", "empty", "random", "border", "one image")),
        ("random", (2, 1, 1)),
        ("single", (1, 1, 13)),
        ("random", (300, 1, 2)),
    ],
)
def test_gradients_are_those_of_the_dense_run(pattern: str, size: tuple[int, int, int]):
    block = block_of()
    check_run(block, inputs(block, *size), pattern)


@pytest.mark.parametrize("base_channels", [3, 24])
def test_blocks_of_any_width_have_them(base_channels: int):
    block = block_of(1 if base_channels == 3 else 2, base_channels)
    check_run(block, inputs(block, 1, 7, 10), "random")


def test_padding_is_no_position():
    block, sizes = block_of(), [(11, 14), (5, 14), (11, 3), (1, 1)]
    x = inputs(block, 4, 11, 14) * valid_mask(sizes, (11, 14), torch.device("cpu"))
    check_run(block, x, "random", sizes)


@pytest.mark.parametrize(
    "halting_norm, tile, sizes, loss",
    [
        ("FrozenBN", 1, None, "ponder"),
        ("MovingBN", 3, [(8, 6), (5, 6), (8, 3)], "both"),
    ],
)
def test_a_step_of_a_block_is_that_of_the_dense_one(halting_norm: str, tile: int, sizes: Optional[Sizes], loss: str):
    block = block_of(halting_norm=halting_norm)
    block.tile = tile
    x = inputs(block, 3, 8, 6)
    if sizes is not None:
        x = x * valid_mask(sizes, (8, 6), x.device)
    compare(step(block, "perforated", x, sizes, loss), step(block, "dense", x, sizes, loss), FLOAT32)


@pytest.mark.parametrize("half_states", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_training_in_16_bits_is_as_near_to_float32_as_dense_execution(dtype: torch.dtype, half_states: bool):
    """Masks are prescribed, so that rounding moves no position over the threshold."""
    block = block_of(base_channels=8)
    x = inputs(block, 2, 12, 10)
    active = torch.rand(2, 6, 5, generator=torch.Generator().manual_seed(2)) < 0.5
    found: dict[str, dict[str, Tensor]] = {}
    for name in ("exact", "dense", "triton"):
        own = copy.deepcopy(block)
        leaf = x.clone().requires_grad_()
        with contextlib.nullcontext() if name == "exact" else torch.autocast("cpu", dtype):
            set_execution(own, "perforated" if name == "triton" else "dense")
            if half_states and name == "triton":
                keep_half_states(own)
            run = own.plan.start(own, leaf, None, None)
            if name == "triton":
                assert run._rows.dtype == (dtype if half_states else torch.float32)
            weight = torch.full((2, 6, 5), 1 / UNITS)
            run.add(weight)
            for unit in own.units[1:]:
                run.evaluate(unit, active)
                run.add(weight)
            features = run.result()
        assert features.dtype == (torch.float32 if name == "exact" else dtype)
        (features.float() - 1).square().sum().backward()
        gradients = {name: p.grad for name, p in own.named_parameters() if p.grad is not None}
        assert all(gradient.dtype == torch.float32 for gradient in gradients.values())
        found[name] = {**gradients, "x": leaf.grad, "features": features.detach().float()}
    for name, value in found["exact"].items():
        ours, dense = ((found[run][name] - value).norm() / value.norm() for run in ("triton", "dense"))
        assert ours < FACTOR * dense + MORE, f"{name}: {ours:.1e}, dense {dense:.1e}"


@pytest.mark.parametrize("frozen", ["all but halting", "3x3", "last unit", "what halts"])
def test_frozen_parts_get_no_gradients_and_change_no_others(frozen: str):
    block = block_of()
    if frozen == "all but halting":
        freeze([block], 1)
    if frozen == "what halts":
        freeze_halting(block)
    part = {"3x3": "conv2", "last unit": "units.3."}
    for name, parameter in block.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and part.get(frozen, " ") not in name)
    x = inputs(block, 1, 8, 6)
    gradients = {}
    for execution in ("dense", "perforated"):
        block.zero_grad()
        set_execution(block, execution)
        features, ponder = block(x)
        (features.square().mean() + 0.1 * ponder.ponder_cost.mean()).backward()
        gradients[execution] = {name: p.grad for name, p in block.named_parameters() if p.grad is not None}
    assert gradients["dense"]
    compare(gradients["perforated"], gradients["dense"])


def test_steps_repeat_bit_for_bit_and_checkpointing_changes_nothing():
    block = block_of()
    set_execution(block, "perforated")
    x = inputs(block, 1, 8, 6)
    gradients = []
    for run in (block, block, partial(checkpoint, block, use_reentrant=False)):
        block.zero_grad()
        features, ponder = run(x)
        (features.square().mean() + 0.1 * ponder.ponder_cost.mean()).backward()
        gradients.append({name: p.grad for name, p in block.named_parameters() if p.grad is not None})
    for again in gradients[1:]:
        assert all(torch.equal(again[name], value) for name, value in gradients[0].items())


def test_a_step_reads_no_value_on_the_host():
    block = block_of(halting_norm="MovingBN")
    set_execution(block, "perforated")
    x = inputs(block, 2, 8, 8)
    with HostReads() as reads:
        features, ponder = block(x)
        (features.square().mean() + 0.1 * ponder.ponder_cost.mean()).backward()
    assert not reads.counts


def test_steps_with_half_states_repeat_and_halt_as_those_with_float32():
    """From scores to gradients, statistics of norms that learn included; half states are an execution's to keep."""
    block = block_of(halting_norm="MovingBN")
    set_execution(block, "perforated")
    keep_half_states(block)
    x = inputs(block, 1, 8, 6)
    gradients = []
    for half in (True, True, False):
        own = copy.deepcopy(block)
        own.plan.half_states = half
        with torch.autocast("cpu", torch.bfloat16):
            features, ponder = own(x)
            (features.float().square().mean() + 0.1 * ponder.ponder_cost.mean()).backward()
        found = {name: p.grad for name, p in own.named_parameters() if p.grad is not None}
        assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in found.values())
        gradients.append({**found, **dict(own.named_buffers())})
    first, again, exact = gradients
    assert all(torch.equal(again[name], value) for name, value in first.items())
    assert any(not torch.equal(exact[name], value) for name, value in first.items())
    compare(first, exact, tolerance=0.5)
    set_execution(block, "perforated")
    assert block.plan.half_states


def test_choosing_tiles_runs_both_passes_and_changes_nothing():
    """Interpreted there is nothing to choose; on a GPU it comes before the first unit of its kind."""
    from sact_det.execution.cuda import training_passes

    block = block_of()
    run = TritonTrainingRun(block, WeightCache(), inputs(block, 1, 6, 6), None, None)
    unit, before = block.units[1], run._rows.clone()
    norms = tuple(map(fixed_affine, (unit.preact, unit.norm1, unit.norm2)))
    call = dataclasses.replace(run._call, norms=norms)
    weights = (unit.conv1.weight, unit.conv2.weight, unit.conv3.weight, unit.conv3.bias)
    training_passes.tune(call, run._rows, weights)
    assert torch.equal(run._rows, before) and run._sums.isfinite().all()
    assert training_passes._kind(call, run._rows, weights[0]) in training_passes._TUNED


def test_what_needs_pytorch_is_named():
    block = block_of()
    x = inputs(block, 1, 12, 12)
    assert "float64" in why_not_triton_training(block, x.double())
    assert "1 to" in why_not_triton_training(block, x[:0])
    learning = ResNetV2Spec(units=(1, UNITS), base_channels=4, halting="sact").build_block(2)
    assert "norms that learn" in why_not_triton_training(learning, x)
    assert "SACT" in why_not_triton_training(
        ResNetV2Spec(units=(1, 2), base_channels=4, halting="act", norm="FrozenBN").build_block(2), x
    )
    assert "float32 weights" in why_not_triton_training(copy.deepcopy(block).half(), x.half())
