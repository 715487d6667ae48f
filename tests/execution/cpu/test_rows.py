"""The kernels for CPUs compute what the dense run computes."""

import copy
from typing import Optional

import pytest
import torch
from small_networks import images, randomize
from torch import Tensor

from sact_det.execution import set_execution
from sact_det.execution.cpu import library
from sact_det.execution.cpu.run import RowsRun, why_not_rows
from sact_det.execution.packing import WeightCache
from sact_det.execution.positions.run import PositionRun
from sact_det.network.block import AdaptiveBlock
from sact_det.network.norm import freeze_norms
from sact_det.network.resnet_v2 import ResNetV2Spec, Stem
from sact_det.network.run import DenseRun, Run
from sact_det.rule.padding import Sizes, valid_mask

UNITS = 5

pytestmark = [
    pytest.mark.skipif(library.why_unavailable() is not None, reason=str(library.why_unavailable())),
    pytest.mark.usefixtures("threads"),
]


def block_of(halting: str = "sact", index: int = 2, base_channels: int = 4, **fields: object) -> AdaptiveBlock:
    spec = ResNetV2Spec(units=(UNITS, UNITS), base_channels=base_channels, halting=halting, **fields)
    block = spec.build_block(index)
    return randomize(block, inputs(block, 4, 24, 24), halting_bias=-1.0).eval()


def inputs(block: AdaptiveBlock, number: int, height: int, width: int) -> Tensor:
    """Noise around a mean that differs from image to image and channel to channel."""
    channels = block.units[0].conv1.in_channels
    return images(number, height, width, channels) + images(number, 1, 1, channels, seed=1)


def both_runs(block: AdaptiveBlock, x: Tensor, sizes: Optional[Sizes] = None) -> tuple[Run, Run, Tensor]:
    """A dense run, a RowsRun, and where there are positions."""
    stride = block.units[0].stride
    out = (-(-x.shape[2] // stride), -(-x.shape[3] // stride))
    valid_in = valid_mask(sizes, x.shape[2:], x.device)
    valid = valid_mask(sizes and [(-(-h // stride), -(-w // stride)) for h, w in sizes], out, x.device)
    exists = torch.ones(len(x), *out, dtype=torch.bool) if valid is None else valid[:, 0]
    dense = DenseRun(block.units[0](x, None, valid_in, valid), valid)
    return dense, RowsRun(block, WeightCache(), x, valid_in, valid), exists


def halve(active: Tensor, pattern: str, index: int) -> Tensor:
    """The mask of the next unit, within the one before."""
    _, height, width = active.shape
    ys, xs = torch.arange(height)[:, None], torch.arange(width)
    if pattern == "random":
        return active & (torch.rand(active.shape, generator=torch.Generator().manual_seed(index)) < 0.6)
    if pattern == "corners":
        return active & ((ys % max(height - 1, 1) == 0) & (xs % max(width - 1, 1) == 0))
    if pattern == "border":
        return active & ((ys % max(height - 1, 1) == 0) | (xs % max(width - 1, 1) == 0))
    if pattern == "single":
        return active & (active.flatten().cumsum(0) == active.sum() // 2 + 1).view(active.shape)
    if pattern == "one image":
        return active & (torch.arange(len(active)) == 0)[:, None, None]
    return {"full": active, "empty": active & False}[pattern]


PATTERNS = ("full", "empty", "random", "corners", "border", "single", "one image")


@torch.no_grad()
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("size", [(2, 1, 1), (2, 1, 7), (3, 17, 19), (1, 26, 12)])
@pytest.mark.parametrize("index", [1, 2])
def test_scores_and_output_are_those_of_the_dense_run(pattern: str, size: tuple[int, int, int], index: int):
    block = block_of(index=index)
    compare_runs(block, *both_runs(block, inputs(block, *size)), pattern)


def compare_runs(block: AdaptiveBlock, dense: Run, rows: Run, active: Tensor, pattern: str) -> None:
    """Halts positions by a pattern and compares scores and outputs."""
    left = torch.ones(active.shape)
    for unit_index, unit in enumerate(block.units):
        if unit_index > 0:
            active = halve(active, pattern, unit_index)
            dense.evaluate(unit, active)
            rows.evaluate(unit, active)
        if unit.halting is not None:
            scores = rows.scores(unit.halting)
            torch.testing.assert_close(scores[active], dense.scores(unit.halting)[active], rtol=1e-4, atol=1e-5)
        stays = halve(active, pattern, unit_index + 1) if unit.halting is not None else active & False
        weight = torch.where(stays, left * 0.3, left) * active
        left = left - weight
        dense.add(weight)
        rows.add(weight)
    torch.testing.assert_close(rows.result(), dense.result(), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("base_channels", [1, 3, 4, 16, 24])
@pytest.mark.parametrize("halting", ["none", "sact", "act"])
@pytest.mark.parametrize("index", [1, 2])
def test_blocks_of_any_width_give_the_same(base_channels: int, halting: str, index: int):
    """Block 1 of 16 has no projection: its 64 channels stay 64."""
    block = block_of(halting, index, base_channels, dilation=(2, 2))
    check_whole_block(block, inputs(block, 3, 15, 22))


@torch.no_grad()
@pytest.mark.parametrize("halting", ["none", "sact", "act"])
@pytest.mark.parametrize("tile", [1, 3])
def test_padding_is_no_position(halting: str, tile: int):
    block = block_of(halting, tile=tile if halting == "sact" else 1)
    sizes = [(15, 22), (9, 22), (15, 5), (1, 1)]
    x = inputs(block, 4, 15, 22) * valid_mask(sizes, (15, 22), torch.device("cpu"))
    check_whole_block(block, x, sizes)


def check_whole_block(block: AdaptiveBlock, x: Tensor, sizes: Optional[Sizes] = None) -> None:
    expected, ponder = block(x, sizes)
    set_execution(block, "perforated")
    assert isinstance(block.plan.start(block, x, None, None), RowsRun)
    features, same = block(x, sizes)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(same.num_units, ponder.num_units) and torch.equal(same.flops, ponder.flops)
    torch.testing.assert_close(same.ponder_cost, ponder.ponder_cost, rtol=1e-4, atol=1e-5)
    if block.rule.adaptive:
        assert 1 < ponder.num_units.float().mean() < UNITS


@torch.no_grad()
@pytest.mark.parametrize("pool", ["same", "symmetric"])
@pytest.mark.parametrize("channels", [64, 24])
@pytest.mark.parametrize(
    "sizes", [[(1, 1)] * 2, [(67, 130)] * 2, [(64, 62)] * 2, [(33, 50), (20, 31)], [(1, 1), (64, 47)]]
)
def test_the_stem_is_the_same(pool: str, channels: int, sizes: Sizes):
    stem = Stem(channels, pool).eval()
    stem.conv.bias.normal_(generator=torch.Generator().manual_seed(0))
    height, width = (max(side) for side in zip(*sizes))
    x = images(2, height, width) * valid_mask(sizes, (height, width), torch.device("cpu"))
    expected = stem(x, sizes)
    set_execution(stem, "perforated")
    torch.testing.assert_close(stem(x, sizes), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stem(x.to(memory_format=torch.channels_last), sizes), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_nan_stays_nan():
    stem, block = Stem().eval(), block_of("none", index=1)
    x = images(1, 120, 120)
    x[0, 1, 60, 60] = float("nan")
    for part in (stem, block):
        expected = part(x)[0] if part is block else part(x)
        set_execution(part, "perforated")
        x = part(x)[0] if part is block else part(x)
        assert torch.equal(x.isnan(), expected.isnan()) and 0 < x.isnan().float().mean() < 1


@torch.no_grad()
def test_results_do_not_depend_on_threads():
    block = block_of()
    set_execution(block, "perforated")
    x = inputs(block, 2, 40, 36)
    threads = torch.get_num_threads()
    outputs = []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            outputs.append(block(x))
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(outputs[0][0], outputs[1][0], rtol=1e-5, atol=1e-6)
    assert torch.equal(outputs[0][1].num_units, outputs[1][1].num_units)


@torch.no_grad()
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 4, 6), (1, 36, 40), (2, 36, 40)])
def test_few_positions_of_wide_units_whose_columns_threads_share(threads: int, size: tuple[int, int, int]):
    """Units of width 128 have two panels of columns: two threads share them, three do not."""
    block = block_of(base_channels=64)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        compare_runs(block, *both_runs(block, inputs(block, *size)), "random")
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def test_two_runs_at_a_time_do_not_share_memory():
    block = block_of()
    x, other = inputs(block, 1, 20, 20), inputs(block, 1, 20, 20).flip(3)
    runs = [RowsRun(block, WeightCache(), x, None, None), RowsRun(block, WeightCache(), other, None, None)]
    active = torch.ones(1, 10, 10, dtype=torch.bool)
    for unit in block.units[1:-1]:
        for run in runs:
            run.evaluate(unit, active)
    dense = [DenseRun(block.units[0](image), None) for image in (x, other)]
    for run, reference in zip(runs, dense):
        for unit in block.units[1:-1]:
            reference.evaluate(unit, active)
        branch = block.units[-2].halting
        torch.testing.assert_close(run.scores(branch), reference.scores(branch), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    "change", ["in place", "load_state_dict", "data, then eval()", "frozen norms", "new parameter"]
)
def test_changed_weights_are_noticed(change: str):
    block = block_of()
    x = inputs(block, 1, 12, 12)
    set_execution(block, "perforated")
    before = block(x)[0]
    conv = block.units[1].conv2
    if change == "in place":
        conv.weight.mul_(-1)
    elif change == "load_state_dict":
        block.load_state_dict(
            {name: -value for name, value in block.state_dict().items() if "conv2" in name}, strict=False
        )
    elif change == "data, then eval()":
        conv.weight.data.mul_(-1)
        block.eval()
    elif change == "frozen norms":
        block.units[1].norm1.weight.mul_(-1)
        freeze_norms(block)
    else:
        conv.weight = torch.nn.Parameter(-conv.weight)
    after = block(x)[0]
    assert not torch.allclose(after, before)
    set_execution(block, "dense")
    torch.testing.assert_close(after, block(x)[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_copies_of_a_block_have_weights_of_their_own():
    block = block_of()
    x = inputs(block, 1, 12, 12)
    set_execution(block, "perforated")
    expected = block(x)[0]
    twin = copy.deepcopy(block)
    twin.units[0].conv2.weight.zero_()
    assert not torch.allclose(twin(x)[0], expected) and torch.equal(block(x)[0], expected)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inference_modes_will_do(mode: type):
    block = block_of()
    x = inputs(block, 1, 12, 12)
    with mode():
        expected = block(x)[0]
        set_execution(block, "perforated")
        assert torch.allclose(block(x)[0], expected, rtol=1e-4, atol=1e-5)


def test_what_needs_pytorch_goes_to_pytorch():
    block = block_of()
    x = inputs(block, 1, 12, 12)
    assert "gradients" in why_not_rows(block, x)
    with torch.no_grad():
        assert why_not_rows(block, x) is None
        assert "float32" in why_not_rows(block, x.double())
        moving = block_of(norm="FrozenBN", halting_norm="MovingBN")
        for norms_of, norm in ((block, block.units[1].norm1), (moving, moving.units[1].halting.local_norm)):
            assert why_not_rows(norms_of, x) is None
            norm.train()
            assert "batch" in why_not_rows(norms_of, x)
        assert "inference" in why_not_rows(block.train(), x)


@torch.no_grad()
def test_auto_takes_the_kernels_and_pytorch_positions_without_them(monkeypatch: pytest.MonkeyPatch):
    block = block_of()
    set_execution(block, "auto")
    x = inputs(block, 1, 12, 12)
    assert isinstance(block.plan.start(block, x, None, None), RowsRun)
    monkeypatch.setattr(library, "why_unavailable", lambda: "none here")
    run = block.plan.start(block, x, None, None)
    assert type(run) is DenseRun
    run.add(torch.ones(1, 6, 6))
    few = torch.zeros(1, 6, 6, dtype=torch.bool)
    assert isinstance(block.plan.proceed(block, run, 1, few), PositionRun)
