"""Algorithm 2 in C++ has the bits of algorithm 2 in PyTorch."""

import pytest
import torch
from torch import Tensor

from sact_det.execution.cpu import library
from sact_det.execution.cpu.halting import RowsHalting
from sact_det.rule.process import TensorHalting

UNITS = 6

pytestmark = pytest.mark.skipif(library.why_unavailable() is not None, reason=str(library.why_unavailable()))


def scores(shape: tuple[int, int, int], kind: str) -> list[Tensor]:
    """h^1 to h^(L-1)."""
    noise = torch.Generator().manual_seed(0)
    h = torch.rand(UNITS - 1, *shape, generator=noise)
    if kind == "small":  # nothing halts before the last unit
        h *= 1e-3
    elif kind == "at the threshold":  # sums of these are 1 - eps, or a rounding away
        h = torch.full_like(h, 0.99) / torch.randint(1, 5, h.shape, generator=noise)
    elif kind == "nan":
        h[1, :, ::2] = float("nan")
    elif kind == "all halt":
        h[1] = 1
    return list(h)


@pytest.mark.parametrize("kind", ["random", "small", "at the threshold", "nan", "all halt"])
@pytest.mark.parametrize("shape", [(2, 1, 1), (1, 1, 9), (1, 7, 1), (3, 2, 2), (2, 23, 37)])
@pytest.mark.parametrize("padded", [False, True])
def test_every_bit_is_the_same(kind: str, shape: tuple[int, int, int], padded: bool):
    exists = torch.ones(shape, dtype=torch.bool)
    if padded:
        exists[0, shape[1] // 2 + 1 :] = False
        exists[-1, :, shape[2] // 2 + 1 :] = False
    reference, own = TensorHalting(exists, UNITS, 0.01), RowsHalting(exists, UNITS, 0.01)
    for h in (*scores(shape, kind), None):
        assert own.any_active() == reference.any_active()
        if not own.any_active():
            break
        assert torch.equal(own.active, reference.active)
        assert bits(own.step(h)) == bits(reference.step(h))
        assert bits(own.remainder) == bits(reference._state.remainder)
    outcome, expected = own.outcome(), reference.outcome()
    for name in ("ponder_cost", "num_units", "distribution", "evaluated", "dilated"):
        assert bits(getattr(outcome, name)) == bits(getattr(expected, name)), name
    if kind == "small":
        assert (outcome.num_units[exists] == UNITS).all()


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()
