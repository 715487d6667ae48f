"""A block in one call of the kernels has every bit that its units give one by one."""

from typing import Optional

import pytest
import torch
from test_rows import block_of, inputs
from test_rows_16_bits import pretend_that_pytorch_is_no_faster  # noqa: F401
from torch import Tensor

from sact_det.execution import set_execution
from sact_det.execution.cpu import library
from sact_det.execution.cpu.run import RowsRun
from sact_det.execution.perforated import PerforatedPlan
from sact_det.network.block import AdaptiveBlock
from sact_det.network.plan import Plan
from sact_det.rule.padding import Sizes

pytestmark = [
    pytest.mark.skipif(library.why_unavailable() is not None, reason=str(library.why_unavailable())),
    pytest.mark.usefixtures("threads"),
]

SIZES = {"whole": None, "padded": [(24, 20), (9, 24)]}


@pytest.fixture
def one_by_one(monkeypatch):
    """The units that are evaluated alone."""
    evaluated, evaluate = [], RowsRun.evaluate

    def recorded(run, unit, active):
        evaluated.append(unit)
        evaluate(run, unit, active)

    monkeypatch.setattr(RowsRun, "evaluate", recorded)
    return evaluated


def outputs(block: AdaptiveBlock, sizes: Optional[Sizes] = None, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Features, and all that the ponder record has."""
    features, ponder = block(inputs(block, 2, 24, 24).to(dtype), sizes)
    return [features, ponder.ponder_cost, ponder.num_units, ponder.flops, ponder.halting_distribution]


@torch.no_grad()
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("halting, shift", [("none", 0.0), *(("sact", shift) for shift in (-100.0, 0.0, 1.5, 100.0))])
@pytest.mark.parametrize("index", [1, 2])
def test_every_bit_is_the_same(index, halting, shift, dtype, sizes, one_by_one, monkeypatch):
    block = block_of(halting, index).to(dtype)
    set_execution(block, "perforated")
    block.shift = shift
    at_once = outputs(block, sizes, dtype)
    assert not one_by_one
    monkeypatch.setattr(PerforatedPlan, "complete", Plan.complete)
    expected = outputs(block, sizes, dtype)
    assert one_by_one or shift == 100
    assert all(torch.equal(x, y) for x, y in zip(at_once, expected, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("halting", ["none", "sact"])
def test_a_block_of_one_unit_has_no_others(halting):
    block = AdaptiveBlock(block_of(halting).units[-1:], halting).eval()
    expected = outputs(block)
    set_execution(block, "perforated")
    torch.testing.assert_close(outputs(block), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("rule", ["tiles", "limit", "act"])
def test_scores_that_more_than_a_position_decides_on_go_from_unit_to_unit(rule, one_by_one):
    block = block_of("act") if rule == "act" else block_of(tile=2 if rule == "tiles" else 1)
    set_execution(block, "perforated")
    x, allowance = inputs(block, 1, 24, 24), None
    if rule == "limit":
        least, most = block.flops_bounds((24, 24), None, 1, x.device)
        allowance = (least + most) // 2
    block(x, allowance=allowance)
    assert one_by_one
