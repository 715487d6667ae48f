"""Algorithm 2 in Triton has the bits of the tensor arithmetic, and of the kernels for CPUs."""

import math
from typing import Optional

import pytest
import torch
from torch import Tensor

from sact_det.execution.cpu import library
from sact_det.execution.cpu.halting import RowsHalting
from sact_det.rule.flops import dilate
from sact_det.rule.process import HaltingProcess, TensorHalting

pytest.importorskip("triton", reason="Triton is not installed: there is none for this platform")
pytestmark = pytest.mark.usefixtures("no_overflow_checks")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
UNITS, EPS = 4, 0.01


def existing(shape: tuple[int, int, int], padded: bool) -> Tensor:
    exists = torch.ones(shape, dtype=torch.bool)
    if padded:
        exists[:, shape[1] // 2 + 1 :] = False
        exists[::2, :, shape[2] // 2 + 1 :] = False
    return exists


def scores_of(pattern: str, shape: tuple[int, int, int]) -> list[Optional[Tensor]]:
    """h^1 ... h^(L-1), and None. A score of 1 halts."""
    generator = torch.Generator().manual_seed(7)
    scores = torch.rand(UNITS - 1, *shape, generator=generator)
    if pattern == "all":
        scores = scores / UNITS
    elif pattern == "none":
        scores[0] = 1.0
    elif pattern == "one":
        scores[0] = 1.0
        scores[:, -1, shape[1] // 2, shape[2] // 2] = 0.2
    elif pattern == "border":
        scores /= UNITS
        scores[0, :, 1:-1, 1:-1] = 1.0
    elif pattern == "threshold":  # exactly there, and the nearest numbers beside it
        thresholds = torch.tensor([1 - EPS, 1.0, 0.0], dtype=torch.float32)
        around = torch.cat([thresholds, torch.nextafter(thresholds, torch.zeros(3))])
        scores = around[torch.randint(len(around), scores.shape, generator=generator)]
    elif pattern == "not a number":
        scores[0, :, ::2] = math.nan
    else:
        assert pattern == "random"
    return [*scores, None]


def steps(process: HaltingProcess, scores: list[Optional[Tensor]]) -> list[Tensor]:
    """Everything that a process says on its way and in the end, on the CPU."""
    said = [process.active.clone()]
    for h in scores:
        said.append(process.step(h).clone())
        if h is not None:
            said.append(process.active.clone())
    outcome = process.outcome()
    numbers = (outcome.ponder_cost, outcome.num_units, outcome.distribution, outcome.evaluated, outcome.dilated)
    return [tensor.cpu() for tensor in (*said, *numbers)]


@torch.no_grad()
@pytest.mark.parametrize(
    "pattern, shape, padded",
    [
        *((pattern, (2, 5, 7), False) for pattern in ("all", "none", "one", "border", "threshold", "not a number")),
        ("random", (3, 4, 5), True),
        ("random", (2, 13, 31), True),
        ("random", (2, 13, 31), False),
        ("threshold", (1, 1, 9), True),
        ("random", (2, 1, 1), False),
    ],
)
def test_every_step_has_the_bits_of_the_tensor_arithmetic(pattern: str, shape: tuple[int, int, int], padded: bool):
    from sact_det.execution.cuda.halting import TritonHalting
    from sact_det.execution.cuda.position_lists import PositionLists

    exists, scores = existing(shape, padded), scores_of(pattern, shape)
    lists = PositionLists(exists.to(DEVICE) if padded else None, shape, DEVICE)
    process = TritonHalting(lists, exists.to(DEVICE), UNITS, EPS)
    said = steps(process, [None if h is None else h.to(DEVICE) for h in scores])
    others: list[HaltingProcess] = [TensorHalting(exists, UNITS, EPS)]
    if library.why_unavailable() is None:
        others.append(RowsHalting(exists, UNITS, EPS))
    for other in others:
        for own, expected in zip(said, steps(other, scores), strict=True):
            assert own.dtype == expected.dtype and own.shape == expected.shape
            assert torch.equal(own.nan_to_num(-7), expected.nan_to_num(-7))


@torch.no_grad()
@pytest.mark.parametrize("padded", [False, True])
def test_the_lists_are_those_of_what_comes_next(padded: bool):
    from sact_det.execution.cuda.halting import TritonHalting
    from sact_det.execution.cuda.position_lists import PositionLists

    shape = (2, 9, 17)
    exists = existing(shape, padded)
    lists = PositionLists(exists.to(DEVICE) if padded else None, shape, DEVICE)
    process = TritonHalting(lists, exists.to(DEVICE), UNITS, EPS)
    for h in scores_of("random", shape):
        active = process.active.cpu()
        assert lists.writes[: int(lists.num_writes)].tolist() == active.flatten().nonzero()[:, 0].tolist()
        ring = (dilate(active) & exists).flatten().nonzero()[:, 0]
        assert lists.reads[: int(lists.num_reads)].tolist() == ring.tolist()
        assert lists.offsets.diff().tolist() == active.flatten(1).sum(1).tolist()
        process.step(None if h is None else h.to(DEVICE))


@torch.no_grad()
def test_what_was_not_evaluated_counts_nothing_and_the_given_mask_stays():
    from sact_det.execution.cuda.halting import TritonHalting
    from sact_det.execution.cuda.position_lists import PositionLists

    exists = existing((2, 3, 5), True).to(DEVICE)
    kept = exists.clone()
    process = TritonHalting(PositionLists(exists, (2, 3, 5), DEVICE), exists, UNITS, EPS)
    assert process.any_active()
    for _ in range(2):
        process.step(torch.ones(2, 3, 5, device=DEVICE))
    outcome = process.outcome()
    assert not process.any_active() and torch.equal(exists, kept)
    assert outcome.evaluated[:, 1:].sum() == outcome.dilated[:, 1:].sum() == 0
    assert outcome.evaluated[:, 0].tolist() == exists.flatten(1).sum(1).tolist()
