"""The Triton kernels compute what the dense run computes: interpreted on the CPU where there is no GPU."""

import contextlib
import copy
from typing import Optional

import pytest
import torch
from perforated_blocks import PATTERNS, UNITS, block_of, inputs, shrinking_masks
from small_networks import images, randomize
from torch import Tensor

from sact_det import build_classifier
from sact_det.execution import set_execution
from sact_det.execution.cuda.run import TritonRun, why_not_triton
from sact_det.execution.packing import WeightCache
from sact_det.execution.perforated import TritonPlan
from sact_det.execution.plan import PLANS
from sact_det.network.block import AdaptiveBlock
from sact_det.network.resnet_v2 import ResNetV2Spec
from sact_det.network.run import DenseRun, Run

pytest.importorskip("triton", reason="Triton is not installed: there is none for this platform")
pytestmark = pytest.mark.usefixtures("no_overflow_checks")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
needs_cuda = pytest.mark.skipif(DEVICE.type != "cuda", reason="needs an NVIDIA GPU")
SIZES = [(9, 10), (10, 3), (1, 1)]


@pytest.fixture(autouse=True)
def exact_float32(monkeypatch):
    """Both sides multiply float32 as float32: cuDNN would take TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def by_triton(monkeypatch):
    """Blocks that are not dense are evaluated by Triton's kernels."""

    class Checked(TritonPlan):
        def start(self, block, x, valid_in, valid, shortcut=None):
            assert why_not_triton(block, x) is None
            return super().start(block, x, valid_in, valid, shortcut)

    monkeypatch.setitem(PLANS, "perforated", Checked)


def inputs_for(size: tuple[int, int, int]) -> Tensor:
    """What a block of stride 2 maps to `size`."""
    return inputs(size[0], 2 * size[1], 2 * size[2], 16).to(DEVICE)


def both_runs(block: AdaptiveBlock, x: Tensor) -> tuple[DenseRun, TritonRun]:
    """Behind the first unit."""
    return DenseRun(block.units[0](x), None), TritonRun(block, WeightCache(), x, None, None)


def masks_and_weights(pattern: str, size: tuple[int, int, int]) -> list[tuple[Tensor, Tensor]]:
    """Per unit, of all but the last, what is active and weights that sum to 1 over the units."""
    masks = [torch.ones(size, dtype=torch.bool), *shrinking_masks(pattern, size)[1:]]
    remaining, pairs = torch.ones(size), []
    for active, next_active in zip(masks, [*masks[1:], torch.zeros_like(masks[0])]):
        weight = torch.where(next_active, remaining * torch.rand(size), remaining * active)
        remaining = remaining - weight
        pairs.append((active.to(DEVICE), weight.to(DEVICE)))
    return pairs


def state(run: TritonRun) -> Tensor:
    """A copy, [N, H, W, C]."""
    return run._state.view(*run._shape, -1).clone()


def poison(run: TritonRun) -> None:
    """Nothing may be read of what earlier units left in shared memory."""
    for buffer in run._buffers.values():
        if buffer.is_floating_point():
            buffer.fill_(float("nan"))


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return ((actual.float() - expected.float()).norm() / expected.float().norm()).item()


@torch.no_grad()
@pytest.mark.parametrize(
    "pattern, size",
    [
        *((pattern, (3, 3, 4)) for pattern in PATTERNS),
        *((pattern, (1, 7, 5)) for pattern in ("random", "border", "single")),
        ("random", (2, 1, 1)),
        ("random", (1, 1, 7)),
    ],
)
def test_states_scores_and_output_are_those_of_the_dense_run(pattern: str, size: tuple[int, int, int]):
    block = block_of("imagenet").to(DEVICE)
    dense, run = both_runs(block, inputs_for(size))
    (_, first), *rest = masks_and_weights(pattern, size)
    dense.add(first)
    run.add(first)
    for unit, (active, weight) in zip(block.units[1:], rest):
        halted = state(run)[~active]
        poison(run)
        for each in (dense, run):
            each.evaluate(unit, active)
            each.add(weight)
        assert torch.equal(state(run)[~active], halted)
        if unit.halting is not None:
            expected, actual = dense.scores(unit.halting), run.scores(unit.halting)
            torch.testing.assert_close(actual[active], expected[active], rtol=1e-4, atol=1e-5)
            assert not actual[~active].any()
    torch.testing.assert_close(state(run), dense.x.movedim(1, 3), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(run.result(), dense.result(), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    "halting, tile, sizes",
    [
        ("sact", 1, None),
        ("sact", 1, SIZES),
        ("sact", 3, SIZES),
        ("act", 1, SIZES),
        ("none", 1, None),
        ("none", 1, SIZES),
    ],
)
def test_blocks_give_the_same_as_dense(by_triton, halting: str, tile: int, sizes: Optional[list]):
    block = block_of("imagenet", halting, tile=tile).to(DEVICE)
    x = inputs(3, 10, 10, 16).to(DEVICE)
    for image, (height, width) in zip(x, sizes or []):
        image[:, height:] = 0
        image[:, :, width:] = 0
    features, ponder = block(x, sizes)
    set_execution(block, "perforated")
    same_features, same_ponder = block(x, sizes)
    assert halting == "none" or len(ponder.num_units.unique()) > 1
    assert torch.equal(same_ponder.num_units, ponder.num_units) and torch.equal(same_ponder.flops, ponder.flops)
    torch.testing.assert_close(same_ponder.ponder_cost, ponder.ponder_cost, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(same_features, features, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("tf32, tolerance", [(False, 1e-4), (True, 1e-2)])
def test_whole_networks_give_the_same_as_dense(
    by_triton, monkeypatch: pytest.MonkeyPatch, tf32: bool, tolerance: float
):
    """With TF32, too: the interpreter multiplies float32 then, a GPU rounds."""
    model = build_classifier(units=(2, 2, 3, 2), halting="sact", num_classes=7, base_channels=4)
    model = randomize(model, images(4, 40, 40), halting_bias=-1.0).to(DEVICE)
    x = images(2, 23, 20, seed=1).to(DEVICE)
    dense = model(x)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", tf32)
    model.set_execution("perforated")
    perforated = model(x)
    torch.testing.assert_close(perforated.logits, dense.logits, rtol=tolerance, atol=tolerance)
    assert torch.equal(perforated.ponder.flops, dense.ponder.flops)
    for name, block in dense.ponder.blocks.items():
        assert torch.equal(perforated.ponder.blocks[name].num_units, block.num_units)


@torch.no_grad()
@pytest.mark.parametrize(
    "dtype, autocast, tolerance",
    [
        (torch.float16, True, 2e-3),
        (torch.float16, False, 2e-3),
        (torch.bfloat16, True, 2e-2),
        (torch.bfloat16, False, 2e-2),
    ],
)
def test_half_precision_is_as_near_to_float32_as_the_formats_allow(
    dtype: torch.dtype, autocast: bool, tolerance: float
):
    size = (2, 3, 4)
    block = block_of("imagenet").to(DEVICE)
    exact = DenseRun(block.units[0](inputs_for(size)), None)
    x, half = (inputs_for(size), block) if autocast else (inputs_for(size).to(dtype), copy.deepcopy(block).to(dtype))
    (_, first), *rest = masks_and_weights("random", size)
    exact.add(first)
    with torch.autocast(DEVICE.type, dtype, enabled=autocast):
        dense, run = both_runs(half, x)
        for each in (dense, run):
            each.add(first)
        for unit, half_unit, (active, weight) in zip(block.units[1:], half.units[1:], rest):
            with torch.autocast(DEVICE.type, enabled=False):
                exact.evaluate(unit, active)
            for each in (dense, run):
                each.evaluate(half_unit, active)
            for each in (exact, dense, run):
                each.add(weight)
            if autocast and unit.halting is not None:  # which computes in float32, and so wants such weights
                expected, actual = exact.scores(unit.halting)[active], run.scores(unit.halting)[active]
                assert actual.dtype == torch.float32 and relative_error(actual, expected) < 5 * tolerance
        assert run._state.dtype == dense.x.dtype == run.result().dtype == dtype
    for actual in (run._state.view(*size, -1).movedim(3, 1), dense.x):
        assert relative_error(actual, exact.x) < tolerance
    for actual in (run.result(), dense.result()):
        assert relative_error(actual, exact.result()) < tolerance


@torch.no_grad()
def test_weights_are_packed_once_and_anew_when_they_change():
    block = block_of("imagenet", "none").to(DEVICE)
    x = inputs_for((1, 3, 3))
    packed = WeightCache()
    run, again = (TritonRun(block, packed, x, None, None) for _ in range(2))
    assert run._packed is again._packed
    block.units[1].norm2.running_mean.add_(1)
    changed = TritonRun(block, packed, x, None, None)
    for each in (run, changed):
        each.evaluate(block.units[1], None)
    torch.testing.assert_close(changed.result(), block.units[1](block.units[0](x)), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(run.result(), changed.result(), rtol=1e-2)


@needs_cuda
@torch.no_grad()
def test_scores_are_float32_where_convolutions_round_to_tf32(monkeypatch: pytest.MonkeyPatch):
    block = block_of("imagenet").to(DEVICE)
    dense, run = both_runs(block, inputs_for((2, 20, 31)))
    expected = dense.scores(block.units[0].halting)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    for each in (dense, run):
        torch.testing.assert_close(each.scores(block.units[0].halting), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(DEVICE.type == "cuda", reason="watches Triton's interpreter")
@torch.no_grad()
def test_every_launch_is_on_the_device_of_the_features(monkeypatch: pytest.MonkeyPatch):
    """Triton launches on the current device, which need not be that of the tensors."""
    from triton.runtime.interpreter import GridExecutor

    inside, launches = [], []

    @contextlib.contextmanager
    def device_of(tensor: Tensor):
        inside.append(tensor.device)
        yield
        inside.pop()

    launch = GridExecutor.__call__
    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    monkeypatch.setattr(
        GridExecutor,
        "__call__",
        lambda self, *args, **kwargs: (launches.append(bool(inside)), launch(self, *args, **kwargs))[1],
    )
    for size in ((1, 3, 3), (2, 4, 3)):
        block = block_of("imagenet")
        run = TritonRun(block, WeightCache(), inputs_for(size).cpu(), None, None)
        run.scores(block.units[0].halting)
        run.evaluate(block.units[1], torch.ones(size, dtype=torch.bool))
        run.scores(block.units[1].halting)
        assert len(launches) == 2 + 2 + 2 + 3 + 2 and all(launches)
        launches.clear()
        run = TritonRun(block, WeightCache(), inputs_for(size).cpu(), None, None)
        process = run.start_halting(block.rule, torch.ones(size, dtype=torch.bool), 2, block.eps, torch.float32)
        process.step(run.scores(block.units[0].halting))
        run.evaluate(block.units[1], process.active)
        process.step(None)
        assert len(launches) == 2 + 2 + 2 + 3 + 1 and all(launches)
        launches.clear()


@needs_cuda
@torch.no_grad()
@pytest.mark.parametrize("tf32, tolerance", [(False, 3e-5), (True, 5e-3)])
def test_large_maps_are_evaluated_without_waiting_for_the_gpu(
    monkeypatch: pytest.MonkeyPatch, tf32: bool, tolerance: float
):
    spec = ResNetV2Spec(units=(1, 1, UNITS), base_channels=32, halting="sact")
    block = randomize(spec.build_block(3), inputs(2, 16, 16, 256), halting_bias=-1.0).to(DEVICE)
    size = (4, 38, 50)
    x = inputs(size[0], 2 * size[1], 2 * size[2], 256).to(DEVICE)
    (_, first), *rest = masks_and_weights("random", size)

    def evaluate(run: Run) -> list[Tensor]:
        run.add(first)
        scores = []
        for unit, (active, weight) in zip(block.units[1:], rest):
            run.evaluate(unit, active)
            run.add(weight)
            if unit.halting is not None:
                scores.append(torch.where(active, run.scores(unit.halting), 0.0))
        return [run.result(), *scores]

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", tf32)
    try:
        packed = WeightCache()
        first_time = evaluate(TritonRun(block, packed, x, None, None))  # compiles and measures
        run = TritonRun(block, packed, x, None, None)
        torch.cuda.set_sync_debug_mode("error")
        again = evaluate(run)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    for actual, same, expected in zip(first_time, again, evaluate(DenseRun(block.units[0](x), None))):
        assert relative_error(actual, expected) < tolerance
        assert torch.equal(same, actual)  # bit by bit: nothing depends on timing
