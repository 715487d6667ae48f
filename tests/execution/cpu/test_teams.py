"""What kernels compute depends neither on the number of threads nor on which of them computes what.

They get the threads that the system grants, which may be fewer than they ask for.
"""

import copy
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_networks import images, randomize
from torch import Tensor

from sact_det.execution import set_execution
from sact_det.execution.cpu import library
from sact_det.execution.cpu.run import RowsRun
from sact_det.execution.cpu.training import TrainingRun
from sact_det.execution.packing import WeightCache
from sact_det.network.block import AdaptiveBlock
from sact_det.network.norm import freeze_norms
from sact_det.network.resnet_v2 import ResNetV2Spec, Stem

pytestmark = pytest.mark.skipif(library.why_unavailable() is not None, reason=str(library.why_unavailable()))

ASKED = 3  # units of width 192 have three panels of columns on the widest vectors: as many threads share few positions


@pytest.fixture(autouse=True)
def threads_are_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def block() -> AdaptiveBlock:
    block = ResNetV2Spec(units=(1, 4), base_channels=96).build_block(2)
    freeze_norms(randomize(block, inputs(), halting_bias=-1.0))
    return block.eval()


def inputs(number: int = 2, height: int = 14, width: int = 12) -> Tensor:
    return images(number, height, width, 96 * 4)


def masks() -> list[Tensor]:
    """Of the units behind the first, at half the resolution."""
    chance = torch.rand(2, 7, 6, generator=torch.Generator().manual_seed(0))
    return [chance < share for share in (1.0, 0.6, 0.2)]


def features_and_scores(block: AdaptiveBlock) -> list[Tensor]:
    run = RowsRun(block, WeightCache(), inputs(), None, None)
    found = []
    for unit, active in zip(block.units, [torch.ones(2, 7, 6, dtype=torch.bool), *masks()]):
        if unit is not block.units[0]:
            run.evaluate(unit, active)
        if unit.halting is not None:
            found.append(run.scores(unit.halting)[active])
        run.add(torch.full(active.shape, 0.25))
    return [*found, run.result()]


def gradients(block: AdaptiveBlock) -> list[Tensor]:
    """Without scores: PyTorch has a part in them, and its gradients of convolutions take every thread for granted."""
    x = inputs().requires_grad_()
    run = TrainingRun(block, WeightCache(), x, None, None)
    for unit, active in zip(block.units[1:], masks()):
        run.add(torch.full(active.shape, 0.25))
        run.evaluate(unit, active)
    weights = [conv.weight for unit in block.units for conv in (unit.conv1, unit.conv2, unit.conv3)]
    output = run.result()
    return list(torch.autograd.grad(output.square().sum(), [x, *weights])) + [output.detach()]


def check(compute, *arguments) -> None:
    """Any number of threads computes the same bits."""
    outcomes = []
    for threads in (1, 2, ASKED, 8):
        torch.set_num_threads(threads)
        outcomes.append(compute(*arguments))
    for other in outcomes[1:]:
        assert all(torch.equal(*pair) for pair in zip(outcomes[0], other, strict=True))


@torch.no_grad()
def test_features_and_scores_are_the_same(block: AdaptiveBlock):
    check(features_and_scores, block)


def test_gradients_are_the_same(block: AdaptiveBlock):
    check(gradients, block)


@torch.no_grad()
def test_the_stem_is_the_same():
    stem = Stem().eval()
    set_execution(stem, "perforated")
    check(lambda: [stem(images(2, 65, 50))])


@torch.no_grad()
def test_sums_over_images_are_the_same(block: AdaptiveBlock):
    check(lambda: [RowsRun(block, WeightCache(), inputs(3, 40, 36), None, None)._sums])


def step(block: AdaptiveBlock, x: Tensor) -> dict[str, Tensor]:
    """What a step of training computes and what it leaves behind, from the same state every time."""
    block, x = copy.deepcopy(block), x.clone().requires_grad_()
    features, ponder = block(x)
    (features.square().mean() + ponder.ponder_cost.mean()).backward()
    gradients = {
        f"gradient of {name}": p.grad for name, p in [("x", x), *block.named_parameters()] if p.grad is not None
    }
    return {
        "features": features.detach(),
        "cost": ponder.ponder_cost.detach(),
        **gradients,
        **dict(block.named_buffers()),
    }


@pytest.mark.parametrize("threads", [2, 4])
def test_steps_of_training_repeat_to_the_last_bit(threads: int):
    """PyTorch has a part in them, which depends on the number of threads, but on nothing else."""
    torch.set_num_threads(threads)
    spec = ResNetV2Spec(units=(1, 4), base_channels=24, halting="sact", norm="FrozenBN", halting_norm="MovingBN")
    block, x = spec.build_block(2), images(3, 40, 36, 96)
    learning = randomize(replace(spec, norm="BN", halting_norm="BN").build_block(2), x, halting_bias=-1.0)
    block.load_state_dict(learning.state_dict(), strict=False)
    set_execution(block.train(), "auto")
    first = step(block, x)
    assert first["cost"].unique().numel() > 100 and any("conv2" in name for name in first)
    for _ in range(19):
        again = step(block, x)
        assert again.keys() == first.keys()
        assert [name for name, value in again.items() if not torch.equal(value, first[name])] == []


def test_teams_that_are_too_short_compute_the_same():
    same = (test_features_and_scores_are_the_same, test_gradients_are_the_same, test_the_stem_is_the_same)
    program = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*program, *(f"{__file__}::{test.__name__}" for test in same)],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "OMP_THREAD_LIMIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
