"""Halting rules are objects: a new one is a class and an entry, and nothing else has to know it."""

import pytest
import torch
from small_networks import images, randomize
from torch import Tensor

from sact_det import build_classifier
from sact_det.execution import EXECUTIONS
from sact_det.network.branch import SpatialHalting
from sact_det.network.halting_rule import HALTING_RULES, HaltingRule, halting_rule


class RowBranch(SpatialHalting):
    def forward(self, x: Tensor, valid=None) -> Tensor:
        h = super().forward(x, valid)
        return h.mean(2, keepdim=True).expand_as(h)


class RowRule(HaltingRule):
    """A row of positions halts as one."""

    name = "rows"
    branch = RowBranch


@pytest.fixture
def rows(monkeypatch):
    monkeypatch.setitem(HALTING_RULES, "rows", RowRule())
    return build_classifier(units=(2, 3), base_channels=4, num_classes=5, halting="rows")


def test_a_fourth_rule_is_learned_by_its_price(rows):
    output = rows(images(2, 32, 40))
    output.ponder.mean_cost().mean().backward()
    for block in (rows.block1, rows.block2):
        assert all(unit.halting.local_conv.weight.grad.abs().sum() > 0 for unit in block.units[:-1])


@torch.no_grad()
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_fourth_rule_halts_its_own_way_under_every_execution(rows, execution):
    model = randomize(rows, images(4, 32, 40), halting_bias=1.0)
    x = images(2, 32, 40, seed=1)
    dense = model(x)
    model.set_execution(execution)
    output = model(x)
    assert torch.equal(output.ponder.flops, dense.ponder.flops)
    torch.testing.assert_close(output.logits, dense.logits, rtol=1e-4, atol=1e-5)
    units = output.ponder.blocks["block2"].num_units
    assert len(units.unique()) > 1 and torch.equal(units, units[:, :, :1].expand_as(units))


def test_a_rule_that_is_not_there_is_named_with_those_that_are(rows):
    with pytest.raises(ValueError, match="`halting` must be one of 'none', 'act', 'sact', 'rows'; got 'columns'"):
        build_classifier(units=(2,), halting="columns")
    with pytest.raises(ValueError, match="with halting 'sact' or 'rows'; got 2 with 'act'"):
        halting_rule("act", tile=2)


def test_a_rule_says_what_halts():
    kinds = {name: (rule.adaptive, rule.per_image, rule.by_position) for name, rule in HALTING_RULES.items()}
    assert kinds == {"none": (False, False, False), "act": (True, True, False), "sact": (True, False, True)}
    assert HALTING_RULES["none"].branch is None
