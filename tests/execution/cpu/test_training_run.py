"""The kernels for training have the outputs and the gradients of the dense run."""

import copy
from functools import partial
from typing import Optional

import pytest
import torch
from small_networks import images, randomize
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from trained_blocks import UNITS, block_of, compare, errors_of_run, inputs, step

from sact_det.execution import set_execution
from sact_det.execution.cpu import library
from sact_det.execution.cpu.buffers import Buffers
from sact_det.execution.cpu.training import TrainingRun, why_not_training
from sact_det.execution.cpu.training_functions import GradientRows
from sact_det.execution.packing import WeightCache
from sact_det.execution.positions.run import PositionRun
from sact_det.network.block import AdaptiveBlock
from sact_det.network.freeze import freeze, freeze_halting
from sact_det.network.resnet_v2 import ResNetV2Spec
from sact_det.rule.padding import Sizes, valid_mask

TOLERANCE = 2e-5  # of a float32 gradient, in the Euclidean norm

pytestmark = [
    pytest.mark.skipif(library.why_unavailable() is not None, reason=str(library.why_unavailable())),
    pytest.mark.usefixtures("threads"),
]


@pytest.fixture(autouse=True)
def rows_that_nothing_fills_are_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """No gradient of this file is right if it was made from any of them."""
    start = GradientRows.start
    poisoned = lambda self, *shape: start(self, *shape).fill_(torch.nan)  # noqa: E731
    monkeypatch.setattr(GradientRows, "start", poisoned)


def check_runs(block: AdaptiveBlock, x: Tensor, pattern: str, sizes: Optional[Sizes]) -> None:
    assert why_not_training(block, x) is None
    start = partial(TrainingRun, block, WeightCache())
    for name, error in errors_of_run(block, start, x, pattern, sizes).items():
        assert error < TOLERANCE, f"{name}: {error:.1e}"


@pytest.mark.parametrize("pattern", ["full", "empty", "random", "border", "single", "one image"])
@pytest.mark.parametrize("size", [(2, 1, 1), (2, 1, 7), (3, 9, 11), (1, 26, 12)])
@pytest.mark.parametrize("index", [1, 2])
def test_gradients_are_those_of_the_dense_run(pattern: str, size: tuple[int, int, int], index: int):
    block = block_of(index)
    check_runs(block, inputs(block, *size), pattern, None)


@pytest.mark.parametrize("base_channels", [1, 3, 16, 24, 40])
@pytest.mark.parametrize("index", [1, 2])
def test_blocks_of_any_width_have_them(base_channels: int, index: int):
    """Block 1 of 16 has no projection: its 64 channels stay 64."""
    block = block_of(index, base_channels, dilation=(2, 2))
    check_runs(block, inputs(block, 2, 15, 22), "random", None)


@pytest.mark.parametrize("base_channels", [4, 16])
@pytest.mark.parametrize("index", [1, 2])
def test_padding_is_no_position(base_channels: int, index: int):
    block = block_of(index, base_channels)
    sizes = [(15, 22), (9, 22), (15, 5), (1, 1)]
    x = inputs(block, 4, 15, 22) * valid_mask(sizes, (15, 22), torch.device("cpu"))
    check_runs(block, x, "random", sizes)


@pytest.mark.parametrize("halting_norm", ["FrozenBN", "MovingBN"])
@pytest.mark.parametrize("tile", [1, 3])
@pytest.mark.parametrize("sizes", [None, [(24, 20), (7, 20), (24, 3)]])
@pytest.mark.parametrize("loss", ["both", "features", "ponder"])
def test_a_step_of_a_block_is_that_of_the_dense_one(halting_norm: str, tile: int, sizes: Optional[Sizes], loss: str):
    block = block_of(halting_norm=halting_norm)
    block.tile = tile
    x = inputs(block, 3, 24, 20)
    if sizes is not None:
        x = x * valid_mask(sizes, (24, 20), x.device)
    assert isinstance(_perforated(block).plan.start(_perforated(block), x, None, None), TrainingRun)
    expected = step(block, "dense", x, sizes, loss)
    assert loss == "features" or any("local_conv" in name for name in expected)
    compare(step(block, "perforated", x, sizes, loss), expected)


def _perforated(block: AdaptiveBlock) -> AdaptiveBlock:
    block = copy.deepcopy(block)
    set_execution(block, "perforated")
    return block


@pytest.mark.parametrize(
    "frozen", ["all but halting", "first unit", "3x3", "biases", "halting", "last unit", "what halts"]
)
@pytest.mark.parametrize("x_learns", [False, True])
def test_frozen_parts_get_no_gradients_and_change_no_others(frozen: str, x_learns: bool):
    block = block_of()
    if frozen == "all but halting":
        freeze([block], 1)
    if frozen == "what halts":
        freeze_halting(block)
    part = {"first unit": "units.0.", "3x3": "conv2", "biases": "bias", "halting": "halting", "last unit": "units.3."}
    for name, parameter in block.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and part.get(frozen, " ") not in name)
    x = inputs(block, 2, 20, 14)
    gradients = {}
    for execution in ("dense", "perforated"):
        block.zero_grad()
        set_execution(block, execution)
        own = x.clone().requires_grad_(x_learns)
        features, ponder = block(own)
        (features.square().mean() + 0.1 * ponder.ponder_cost.mean()).backward()
        gradients[execution] = {name: p.grad for name, p in block.named_parameters() if p.grad is not None}
        if x_learns:
            gradients[execution]["x"] = own.grad
    assert gradients["dense"]
    compare(gradients["perforated"], gradients["dense"])


def test_units_that_run_nowhere_have_gradients_of_zero():
    """Processes that train together expect one from every parameter."""
    block = block_of()
    with torch.no_grad():
        block.units[0].halting.local_conv.bias.fill_(30.0)
    found = step(block, "perforated", inputs(block, 2, 12, 12))
    for name, _ in block.named_parameters():
        assert found[name].any() == ("units.0.conv" in name or "units.0.shortcut" in name), name


@pytest.mark.parametrize("still", [0, 2])
def test_halting_norms_in_evaluation_learn_nothing(still: int):
    block = block_of(halting_norm="MovingBN")
    block.units[still].halting.eval()
    x = inputs(block, 2, 20, 14)
    found = step(block, "perforated", x)
    compare(found, step(block, "dense", x))
    for name, value in block.named_buffers():
        learns = "halting" in name and f"units.{still}" not in name
        assert torch.equal(found[name], value) != learns, name


def test_backward_twice_gives_the_same():
    block = _perforated(block_of())
    x = inputs(block, 2, 20, 14).requires_grad_()
    features, ponder = block(x)
    loss = features.square().mean() + 0.1 * ponder.ponder_cost.mean()
    leaves = [x, *(p for p in block.parameters() if p.requires_grad)]
    once = torch.autograd.grad(ponder.ponder_cost.mean(), leaves[:-4], retain_graph=True)  # not the last unit's
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    part = torch.autograd.grad(loss, leaves[-1], retain_graph=True)[0]
    assert torch.equal(part, first[-1]) and all(gradient.isfinite().all() for gradient in once)
    assert all(map(torch.equal, torch.autograd.grad(loss, leaves), first))


def test_anomaly_mode_finds_no_nan_in_rows_that_nothing_fills(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    block = block_of()
    x = inputs(block, 2, 20, 14)
    expected = step(block, "perforated", x)
    with torch.autograd.set_detect_anomaly(True):
        compare(step(block, "perforated", x), expected, 1e-6)
        assert not GradientRows().start(3, 5).any()


def test_changed_weights_are_refused_in_the_backward_pass():
    block = _perforated(block_of())
    features, _ = block(inputs(block, 1, 12, 12))
    with torch.no_grad():
        block.units[1].conv2.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        features.sum().backward()


def test_weights_may_change_between_steps():
    block = block_of()
    x = inputs(block, 1, 12, 12)
    first = step(block, "perforated", x)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.mul_(0.9)
    second = step(block, "perforated", x)
    assert not torch.allclose(first["features"], second["features"])
    compare(second, step(block, "dense", x))


def test_memory_for_gradients_of_features_is_not_kept_for_the_next_step():
    block = block_of()
    set_execution(block, "perforated")
    block(inputs(block, 2, 11, 9))[0].sum().backward()
    for name in ("grad_state", "grad_inner", "grad_middle"):
        assert Buffers().take(name, 1).untyped_storage().nbytes() == 4, name


@pytest.mark.parametrize("base_channels", [3, 24])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_layouts_of_weights_and_input_do_not_matter(memory_format: torch.memory_format, base_channels: int):
    block = block_of(base_channels=base_channels).to(memory_format=memory_format)
    x = inputs(block, 2, 14, 12)
    expected = step(block, "dense", x)
    for layout in (torch.contiguous_format, torch.channels_last):
        compare(step(block, "perforated", x.contiguous(memory_format=layout)), expected)


def test_activation_checkpointing_gives_the_same_gradients():
    block = _perforated(block_of())
    x = inputs(block, 2, 20, 14)
    gradients = []
    for run in (block, partial(checkpoint, block, use_reentrant=False)):
        block.zero_grad()
        features, ponder = run(x)
        (features.square().mean() + 0.1 * ponder.ponder_cost.mean()).backward()
        gradients.append({name: p.grad for name, p in block.named_parameters() if p.grad is not None})
    compare(gradients[1], gradients[0], 1e-6)


def test_gradients_do_not_depend_on_threads():
    block = _perforated(block_of(base_channels=24))
    x = inputs(block, 2, 40, 36)
    threads = torch.get_num_threads()
    found = []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            found.append(step(block, "perforated", x, loss="features"))
    finally:
        torch.set_num_threads(threads)
    compare(found[1], found[0], 1e-6)


def test_what_needs_pytorch_goes_to_pytorch():
    block = block_of()
    x = inputs(block, 1, 12, 12)
    assert "float32" in why_not_training(block, x.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert "float32" in why_not_training(block, x)
    learning = randomize(ResNetV2Spec(units=(1, UNITS), base_channels=4, halting="sact").build_block(2), x).eval()
    assert "norms that learn" in why_not_training(learning, x)  # gradients of their scale and shift
    set_execution(learning, "perforated")
    few = torch.zeros(1, 6, 6, dtype=torch.bool)
    run = learning.plan.start(learning, x, None, None)
    run.add(torch.ones(1, 6, 6))
    assert isinstance(learning.plan.proceed(learning, run, 1, few), PositionRun)
    assert "SACT" in why_not_training(
        ResNetV2Spec(units=(2,), base_channels=4, halting="act", norm="FrozenBN").build_block(1), images(1, 8, 8, 64)
    )
