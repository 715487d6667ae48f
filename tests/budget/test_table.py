"""Tables of budgets: between their points, outside of them, and as files."""

import json
import logging
import math
from dataclasses import replace

import pytest
import torch

from sact_det.base.errors import InputError
from sact_det.budget import BudgetPoint, BudgetTable, weights_digest

TABLE = BudgetTable(
    weights="ab12",
    of="extractor",
    least=0.3,
    points=(
        BudgetPoint(0.4, {"block1": 6.0, "block2": 4.0}, 0.401, 0.05, 0.5, 0.1),
        BudgetPoint(0.6, {"block1": 2.0, "block2": 5.0}, 0.6),
        BudgetPoint(0.9, {"block1": -4.0, "block2": -1.0}, 0.9),
    ),
    about={"dataset": "toy"},
)


def test_shifts_are_the_tables_own_and_linear_between_them():
    assert TABLE.shifts(0.6) == {"block1": 2.0, "block2": 5.0}
    assert TABLE.shifts(0.5) == pytest.approx({"block1": 4.0, "block2": 4.5})
    assert TABLE.shifts(0.8) == pytest.approx({"block1": -2.0, "block2": 1.0})


def test_nothing_halts_early_at_1_whatever_was_calibrated(caplog):
    assert TABLE.shifts(1) == {"block1": -math.inf, "block2": -math.inf} and not caplog.records


@pytest.mark.parametrize(
    ("budget", "nearest", "said"),
    [
        (0.2, 0, "0.4 is taken; these weights can take 0.300 at least"),
        (0.35, 0, "0.4 is taken"),
        (0.95, 2, "0.9 is taken"),
    ],
)
def test_outside_of_the_range_the_nearest_end_is_taken_with_a_warning(caplog, budget, nearest, said):
    with caplog.at_level(logging.WARNING):
        assert TABLE.shifts(budget) == TABLE.points[nearest].shifts
    (record,) = caplog.records
    assert record.message == f"Budget {budget} is outside the calibrated range, 0.4 to 0.9: {said}"


@pytest.mark.parametrize("budget", [0, -0.1, 1.01, math.nan, math.inf, "0.5", None, True])
def test_what_is_no_share_is_refused(budget):
    with pytest.raises(InputError, match=r"budget must be a share of the plain network's FLOPs, in \(0, 1\]; got"):
        TABLE.shifts(budget)


def test_a_file_holds_all_of_it(tmp_path):
    TABLE.write(tmp_path / "budget.json")
    assert BudgetTable.read(tmp_path / "budget.json") == TABLE


def _content():
    point = {"budget": 0.5, "shifts": {"block1": 1.0}, "flops": 0.5, "flops_std": 0.0}
    return {"weights": "ab", "of": "network", "least": 0.2, "points": [point]}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda content: [], "expected an object with `points`"),
        (lambda content: {**content, "points": []}, "expected an object with `points`"),
        (lambda content: {**content, "of": "half"}, "of must be one of network, extractor, detector; got 'half'"),
        (lambda content: {**content, "weights": None}, "weights must be a string; got None"),
        (lambda content: {**content, "least": math.nan}, "least must be a finite positive number; got nan"),
        (lambda content: {**content, "points": [1]}, "point 1 must be an object; got 1"),
        (lambda content: {**content, "points": 2 * content["points"]}, "points must have rising budgets"),
        (lambda content: content["points"][0].update(budget=2) or content, r"point 1: budget must lie in \(0, 1\]"),
        (
            lambda content: content["points"][0].update(shifts={}) or content,
            "point 1: shifts must have a finite number",
        ),
        (lambda content: content["points"][0].update(shifts={"block1": None}) or content, "point 1: shifts must have"),
        (
            lambda content: content["points"][0].update(seconds=0) or content,
            "point 1: seconds must be None or a finite",
        ),
    ],
)
def test_a_file_that_is_none_is_refused_by_name(tmp_path, spoil, said):
    path = tmp_path / "budget.json"
    path.write_text(json.dumps(spoil(_content())))
    with pytest.raises(InputError, match=said) as error:
        BudgetTable.read(path)
    assert str(error.value).startswith(f"{path}: not a table of budgets") and "\n" not in str(error.value)


def test_a_missing_file_says_who_writes_it(tmp_path):
    with pytest.raises(InputError, match="no such file; tools/calibrate_budget"):
        BudgetTable.read(tmp_path / "budget.json")


def test_points_have_shifts_of_the_same_blocks(tmp_path):
    other = replace(TABLE.points[1], shifts={"block1": 2.0})
    replace(TABLE, points=(TABLE.points[0], other)).write(tmp_path / "budget.json")
    with pytest.raises(InputError, match="shifts of the same blocks"):
        BudgetTable.read(tmp_path / "budget.json")


def test_a_digest_is_of_names_and_values_but_not_of_the_steps_that_a_norm_has_seen():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    digest = weights_digest(module)
    assert len(digest) == 64 and weights_digest(module) == digest
    module[1].num_batches_tracked += 1
    assert weights_digest(module) == digest
    assert weights_digest(torch.nn.Sequential(torch.nn.Identity(), *module)) != digest
    with torch.no_grad():
        module[1].running_mean[1] += 1e-3
    assert weights_digest(module) != digest
