"""Norms at a budget: evaluations normalise by statistics of the features that are there, and nothing else does."""

import copy
import json

import numpy as np
import pytest
import torch
from small_networks import images, randomize

from sact_det import build_classifier
from sact_det.base.errors import InputError
from sact_det.budget import BudgetPoint, BudgetTable, weights_digest
from sact_det.budget.statistics import budgeted_norms, decoded, encoded, estimate_statistics
from sact_det.execution.cpu import block as one_call
from sact_det.execution.release import release_weights
from sact_det.network.norm import freeze_norms
from sact_det.network.plan import planned_parts

BLOCKS = ("block1", "block2", "block3", "block4")
UNITS = (2, 3, 2, 2)


@pytest.fixture
def model():
    made = build_classifier(UNITS, base_channels=8, num_classes=5)
    return randomize(made, images(4, 64, 64), halting_bias=-1.0).eval()


@pytest.fixture
def x():
    return images(2, 70, 90)


def drawn(model, seed):
    """Statistics for every norm that has its own at a budget."""
    random = np.random.default_rng(seed)
    found = {}
    for name, norm in budgeted_norms(model).items():
        mean, var = random.normal(size=norm.num_features), random.uniform(0.5, 2, norm.num_features)
        found[name] = np.stack([mean, var]).astype(np.float32)
    return found


def table_of(model, *points):
    """Budgets and statistics; every shift is 1."""
    made = [BudgetPoint(b, dict.fromkeys(BLOCKS, 1.0), b, norms=encoded(statistics)) for b, statistics in points]
    return BudgetTable(weights_digest(model), "network", 0.3, tuple(made))


def with_moving(model, statistics):
    """A copy whose moving statistics are these."""
    made = copy.deepcopy(model)
    for name, (mean, var) in statistics.items():
        norm = made.get_submodule(name)
        norm.running_mean.copy_(torch.from_numpy(mean))
        norm.running_var.copy_(torch.from_numpy(var))
    return made


def test_all_norms_have_them_but_those_of_halting_branches(model):
    names = set(budgeted_norms(model))
    assert {"postnorm", "block1.units.0.preact", "block4.units.1.norm2"} <= names
    assert not any(".halting." in name for name in names)
    freeze_norms(model.block1)
    assert names - set(budgeted_norms(model)) == {name for name in names if name.startswith("block1.")}


@torch.no_grad()
@pytest.mark.parametrize("execution", ["dense", "auto"])
def test_evaluations_normalise_by_them_until_another_budget(model, x, execution):
    statistics = drawn(model, 0)
    model.set_execution(execution)
    trained = model(x)
    before = weights_digest(model)
    model.set_budget(0.5, table_of(model, (0.5, statistics)))
    expected = with_moving(model, statistics)
    expected.normalize_by({})
    expected.set_execution("dense")
    torch.testing.assert_close(model(x).logits, expected(x).logits, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(model(x).logits, trained.logits, atol=1e-2)
    assert weights_digest(model) == before  # they are no part of the weights
    model.set_budget(None)
    assert torch.equal(model(x).logits, trained.logits)


def test_training_has_nothing_of_them(model, x):
    other = copy.deepcopy(model)
    model.set_budget(0.5, table_of(model, (0.5, drawn(model, 0))))
    for block in BLOCKS:
        model.get_submodule(block).shift = 0.0
    assert torch.equal(model.train()(x).logits, other.train()(x).logits)


def test_they_are_linear_between_budgets_and_end_at_the_ends(model):
    low, high, full = drawn(model, 1), drawn(model, 2), drawn(model, 3)
    table = table_of(model, (0.4, low), (0.8, high))
    name = "block3.units.1.norm1"
    for budget, expected in ((0.2, low), (0.4, low), (0.8, high), (0.9, high)):
        np.testing.assert_array_equal(table.statistics(budget)[name], expected[name])
    np.testing.assert_allclose(table.statistics(0.5)[name], 0.75 * low[name] + 0.25 * high[name], rtol=1e-5, atol=1e-6)
    assert table.statistics(1) == {}  # of what halts nothing is known there
    full = table_of(model, (0.4, low), (1.0, full)).statistics(1)[name] - full[name]
    assert not full.any()


def test_a_norm_that_some_budgets_never_reach_has_those_of_the_nearest(model):
    low, high = drawn(model, 1), drawn(model, 2)
    del low["block4.units.1.norm1"]
    found = table_of(model, (0.4, low), (0.8, high)).statistics(0.5)
    np.testing.assert_array_equal(found["block4.units.1.norm1"], high["block4.units.1.norm1"])


def test_the_same_budget_again_leaves_what_was_packed(model, x):
    table = table_of(model, (0.5, drawn(model, 0)))
    model.set_budget(0.5, table)
    mean = model.postnorm.substituted_mean
    model.set_budget(0.5)
    assert model.postnorm.substituted_mean is mean


@torch.no_grad()
def test_budgets_that_take_turns_are_packed_once_each(model, x, monkeypatch):
    packed = []
    pack = one_call.pack_block
    monkeypatch.setattr(one_call, "pack_block", lambda *args: packed.append(args) or pack(*args))
    table = table_of(model, (0.5, drawn(model, 0)), (0.8, drawn(model, 1)))
    model.set_execution("auto")
    found = {}
    for budget in (0.5, 0.8, None, 0.65) * 3:
        model.set_budget(budget, table)
        logits = model(x).logits
        assert torch.equal(found.setdefault(budget, logits), logits)
    assert len(packed) == 4 * len(BLOCKS)


@torch.no_grad()
def test_released_weights_serve_every_budget(model, x):
    table = table_of(model, (0.5, drawn(model, 0)), (0.8, drawn(model, 1)))
    model.set_execution("auto")
    expected = {}
    for budget in (None, 0.8, 0.5):
        model.set_budget(budget, table)
        expected[budget] = model(x).logits
    release_weights(model)
    for budget in (0.5, 0.8, None, 0.5):
        model.set_budget(budget)
        assert torch.equal(model(x).logits, expected[budget]), budget


@torch.no_grad()
def test_an_estimate_is_of_the_features_that_are_there_and_changes_nothing(model, x):
    model.set_execution("auto")
    for block in BLOCKS:
        model.get_submodule(block).shift = 0.7
    batches, seen = [x, images(3, 64, 64, seed=5)], []
    before, state, plans = model(x).logits, copy.deepcopy(model.state_dict()), [p.plan for p in planned_parts(model)]
    hook = model.postnorm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].double()))
    found = estimate_statistics(model, batches)
    hook.remove()
    each = [torch.stack([f.mean((0, 2, 3)), f.var((0, 2, 3), correction=0)]) for f in seen]
    np.testing.assert_allclose(found["postnorm"], torch.stack(each).mean(0), rtol=1e-4, atol=1e-5)
    assert set(found) <= set(budgeted_norms(model)) and "block1.units.0.norm1" in found
    assert [p.plan for p in planned_parts(model)] == plans and not model.postnorm.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(model(x).logits, before)
    momenta = {norm.momentum for norm in budgeted_norms(model).values()}
    assert len(momenta) == 1 and momenta == {model.block1.units[0].halting.local_norm.momentum}


@torch.no_grad()
def test_what_an_estimate_finds_does_not_depend_on_what_was_substituted(model, x):
    first = estimate_statistics(model, [x])
    model.normalize_by(drawn(model, 0))
    substituted = model.postnorm.substituted_mean.clone()
    again = estimate_statistics(model, [x])
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert torch.equal(model.postnorm.substituted_mean, substituted)


def test_a_file_keeps_them_to_the_bit(model, tmp_path):
    table = table_of(model, (0.5, drawn(model, 0)))
    table.write(tmp_path / "budget.json")
    assert BudgetTable.read(tmp_path / "budget.json") == table
    for name, values in drawn(model, 0).items():
        np.testing.assert_array_equal(decoded(table.points[0].norms[name]), values)


@pytest.mark.parametrize(
    ("norms", "said"),
    [
        ([1], r"norms must be an object; got \[1\]"),
        ({"postnorm": 3}, "norm postnorm: expected float32"),
        ({"postnorm": "%%%"}, "norm postnorm: expected float32"),
        ({"postnorm": "AAAA"}, "norm postnorm: expected float32"),
        (encoded({"postnorm": np.array([[0.0], [-1.0]])}), "norm postnorm: means must be finite, variances finite and"),
        (encoded({"postnorm": np.array([[np.nan], [1.0]])}), "norm postnorm: means must be finite"),
    ],
    ids=lambda value: None,
)
def test_a_file_with_others_is_refused_in_a_line(model, tmp_path, norms, said):
    table_of(model, (0.5, {})).write(tmp_path / "budget.json")
    content = json.loads((tmp_path / "budget.json").read_text())
    content["points"][0]["norms"] = norms
    (tmp_path / "budget.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"budget.json: not a table of budgets: point 1: {said}") as error:
        BudgetTable.read(tmp_path / "budget.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["nobody", "postnorm"])
def test_norms_of_another_network_are_refused(model, name):
    statistics = {name: np.ones((2, 3), np.float32)}
    with pytest.raises(InputError, match="the table: budgets of other weights"):
        model.set_budget(0.5, table_of(model, (0.5, statistics)))
    assert model.budget is None and model.block1.shift == 0
