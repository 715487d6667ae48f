"""CUDA graphs of blocks: what is kept, what is copied, what is recorded anew. The kernels run in Triton's interpreter.

Where there is no GPU a recording is a function that is called again and writes where its first results lie.
"""

import copy
import logging
import pickle
from typing import Optional

import pytest
import torch
from perforated_blocks import inputs
from small_networks import randomize
from torch import Tensor

from sact_det.benchmark.masks import PrescribedBlock
from sact_det.execution import set_execution
from sact_det.execution.cuda.graphs import FEW, Graphs, Recording, capture_graph, padded_number
from sact_det.execution.cuda.run import TritonRun, why_not_triton
from sact_det.execution.plan import PLANS, GraphsPlan
from sact_det.network.block import AdaptiveBlock
from sact_det.network.resnet_v2 import ResNetV2Spec

pytest.importorskip("triton", reason="Triton is not installed: there is none for this platform")
pytestmark = pytest.mark.usefixtures("no_overflow_checks")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def block_of(halting: str = "sact", tile: int = 1) -> AdaptiveBlock:
    """Three units, the first of stride 2."""
    spec = ResNetV2Spec(units=(1, 3), base_channels=4, halting=halting, tile=tile)
    return randomize(spec.build_block(2), inputs(4, 24, 24, 16), halting_bias=-1.0)


class Recorder:
    """Captures, and counts."""

    def __init__(self) -> None:
        self.captured = self.replayed = 0

    def __call__(self, function, inputs, device) -> Recording:
        self.captured += 1
        if device.type == "cuda":
            replay, outputs, memory = capture_graph(function, inputs, device)
        else:
            outputs, memory = list(function(*inputs)), 0

            def replay() -> None:
                with torch.inference_mode(outputs[0].is_inference()), torch.no_grad():
                    for to, value in zip(outputs, function(*inputs), strict=True):
                        to.copy_(value)

        def counted() -> None:
            self.replayed += 1
            replay()

        return Recording(counted, outputs, memory)


class OnTriton(GraphsPlan):
    """On Triton's kernels, interpreted or not."""

    def start(self, block, x, valid_in, valid, shortcut=None):
        return TritonRun(block, self.packed, x, valid_in, valid, shortcut)

    def why_not_recorded(self, block, x):
        return why_not_triton(block, x)


def recorded(block: AdaptiveBlock) -> tuple[AdaptiveBlock, Recorder]:
    """A copy of a block under execution "graphs"."""
    block, recorder = copy.deepcopy(block), Recorder()
    block.plan = OnTriton(recorder)
    return block.to(DEVICE), recorder


def kernels_of(block: AdaptiveBlock, x: Tensor, sizes: Optional[list] = None) -> list[Tensor]:
    """What the same kernels give without graphs."""
    block = copy.deepcopy(block)
    block.plan = PLANS["dense"]()
    plan = OnTriton()
    plan.why_not_recorded = lambda *_: "none here"
    block.plan = plan
    return flat(block(x, sizes))


def flat(output) -> list[Tensor]:
    features, ponder = output
    return [features, *ponder.tensors()]


def same(own: list[Tensor], expected: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(own, expected, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("halting, tile", [("sact", 1), ("sact", 2), ("act", 1), ("none", 1)])
def test_a_shape_is_recorded_when_it_comes_again_and_gives_what_the_kernels_give(halting, tile):
    block, recorder = recorded(block_of(halting, tile))
    xs = [inputs(2, 6, 4, 16).to(DEVICE) * scale for scale in (1.0, 0.5, 2.0)]
    outputs = [flat(block(x)) for x in xs]
    assert (recorder.captured, recorder.replayed) == (1, 2)
    for x, output in zip(xs, outputs):  # kept all the while: later calls must not write into earlier results
        assert same(output, kernels_of(block, x))


@torch.no_grad()
def test_images_of_unequal_size_share_a_recording():
    block, recorder = recorded(block_of())
    for sizes in ([(6, 4), (3, 4)], [(5, 2), (6, 4)], [(1, 1), (6, 3)]):
        x = inputs(2, 6, 4, 16).to(DEVICE)
        for image, (height, width) in zip(x, sizes):
            image[:, height:] = 0
            image[:, :, width:] = 0
        output = block(x, sizes)
        assert same(flat(output), kernels_of(block, x, sizes))
        assert output[1].sizes == [(-(-height // 2), -(-width // 2)) for height, width in sizes]
    assert (recorder.captured, recorder.replayed) == (1, 2)


@torch.no_grad()
def test_a_change_of_weights_or_of_what_halts_is_seen():
    block, recorder = recorded(block_of())
    x = inputs(1, 4, 4, 16).to(DEVICE)
    for _ in range(2):
        before = flat(block(x))
    block.units[0].conv2.weight.mul_(1.5)  # which PyTorch evaluates
    after = flat(block(x))
    assert recorder.captured == 2 and same(after, kernels_of(block, x)) and not torch.equal(after[0], before[0])
    block.units[1].halting.local_norm.running_mean.add_(0.1)
    assert same(flat(block(x)), kernels_of(block, x)) and recorder.captured == 3
    block.shift = 2.0
    for _ in range(2):
        shifted = flat(block(x))
    assert same(shifted, kernels_of(block, x)) and shifted[2].sum() < after[2].sum() and recorder.captured == 4
    block.train()
    block.eval()
    assert same(flat(block(x)), kernels_of(block, x)) and recorder.captured == 4  # begins again


@torch.no_grad()
def test_budgets_that_take_turns_keep_their_recordings():
    block, recorder = recorded(block_of())
    norm, x = block.units[0].norm1, inputs(1, 4, 4, 16).to(DEVICE)
    own = [(norm.running_mean * factor, norm.running_var * factor) for factor in (2.0, 0.5)]
    budgets = [(0.0, ()), (1.0, own[0]), (2.0, own[1])]
    for _ in range(4):
        for shift, statistics in budgets:
            block.shift = shift
            norm.substitute(*statistics)
            assert same(flat(block(x)), kernels_of(block, x))
    assert (recorder.captured, recorder.replayed) == (3, 9)
    norm.substitute(*(own[0][0].clone(), own[0][1]))
    assert same(flat(block(x)), kernels_of(block, x)) and recorder.captured == 4


@torch.no_grad()
def test_regions_in_any_number_share_recordings():
    assert [padded_number(n) for n in (1, FEW, 9, 16, 17, 33, 300, 1000, 1001)] == [
        1, 8, 9, 16, 18, 36, 320, 1024, 1024,
    ]  # fmt: skip
    block, recorder = recorded(block_of())
    for number in (17, 17, 18, 17):  # a batch that fills its place needs no masks, and so has another recording
        x = inputs(number, 2, 2, 16).to(DEVICE)
        output = block(x)
        assert len(output[0]) == number and output[1].sizes is None
    assert (recorder.captured, recorder.replayed) == (1, 2)
    for own, expected in zip(flat(output), kernels_of(block, x), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_prescribed_halting_is_an_input_like_others():
    block, recorder = recorded(block_of())
    block = PrescribedBlock(block)
    x = inputs(1, 6, 4, 16).to(DEVICE)
    for depth in (3, 1, 2):
        depths = torch.full((1, 3, 2), depth, device=DEVICE)
        depths[0, 0] = 1
        block.prescribe(depths)
        assert torch.equal(block(x)[1].num_units, depths)
    assert (recorder.captured, recorder.replayed) == (1, 2)


def doubled(x: Tensor) -> list[Tensor]:
    return [2 * x]


def test_the_least_recently_used_leaves_and_what_never_comes_again_is_not_recorded(caplog):
    caplog.set_level(logging.INFO)
    recorder = Recorder()
    graphs = Graphs(recorder, size=2)

    def call(width: int) -> None:
        x = torch.rand(2, width, device=DEVICE)
        assert torch.equal(graphs(doubled, [x], (), None)[0], 2 * x)

    for width in (1, 2, 3, 1):  # 1 has been forgotten when it comes again
        call(width)
    assert recorder.captured == 0
    for width in (1, 3):
        call(width)
    assert recorder.captured == 2 and "MiB" in caplog.text and "it has 2, and at most 2" in caplog.text
    call(1)
    call(2)
    call(2)  # takes the place of 3
    call(1)
    assert recorder.captured == 3 and recorder.replayed == 5
    graphs.clear()
    call(1)
    assert recorder.replayed == 5


def test_what_cannot_be_recorded_runs_as_it_is_and_says_why_once(caplog):
    def refuse(*_):
        raise RuntimeError("it waits for the device\nsomewhere")

    graphs = Graphs(refuse)
    x = torch.rand(2, 3)
    for _ in range(4):
        assert torch.equal(graphs(doubled, [x], (), None)[0], 2 * x)
    assert len(caplog.records) == 1 and "without a CUDA graph: it waits for the device somewhere" in caplog.text


@torch.no_grad()
def test_on_a_cpu_the_execution_is_perforated_and_copies_start_empty():
    block, x = block_of(), inputs(1, 4, 4, 16)
    set_execution(block, "graphs")
    expected = copy.deepcopy(block)
    set_execution(expected, "perforated")
    for _ in range(3):
        assert same(flat(block(x)), flat(expected(x)))
    assert not block.plan.graphs._graphs and type(pickle.loads(pickle.dumps(block.plan.graphs))) is Graphs


@torch.no_grad()
def test_results_of_inference_mode_can_be_used_beside_it():
    block, recorder = recorded(block_of())
    x = inputs(1, 4, 4, 16).to(DEVICE)
    for _ in range(2):
        with torch.inference_mode():
            block(x)
    assert same(flat(block(x)), kernels_of(block, x)) and recorder.captured <= 2
