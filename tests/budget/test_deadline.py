"""The largest budget that meets a deadline, measured once for every size; the clock of these tests is a made-up one."""

import logging
from pathlib import Path

import pytest
import torch
from command_lines import error_line, load_tool

from sact_det.base.errors import InputError
from sact_det.budget import BudgetPoint, BudgetTable, budgeted, weights_digest
from sact_det.budget.budgeted import seconds_of
from sact_det.classification.meta_arch import SACTClassifier
from sact_det.tasks import load_config

CONFIG = str(Path(__file__).parents[2] / "configs/tests/tiny_classifier.yaml")
BUDGETS = (0.3, 0.5, 0.6, 0.8, 1.0)


@pytest.fixture
def model(monkeypatch):
    """An image takes 100 ms times its budget for every 1000 pixels; `measured` are the budgets that were measured."""
    made = SACTClassifier(load_config(CONFIG)).eval()
    points = [BudgetPoint(budget, {"block2": -budget, "block3": 1.0}, budget) for budget in BUDGETS]
    made.set_budget(1.0, BudgetTable(weights_digest(made), "network", 0.2, tuple(points)))
    made.measured = []

    def seconds(model, image):
        assert model is made and model.deadline is None
        made.measured.append(made.budget)
        return 0.1 * made.budget * image["image"][0].numel() / 1000

    monkeypatch.setattr(budgeted, "seconds_of", seconds)
    return made


def inputs(height, width):
    return [{"image": torch.zeros(3, height, width)}]


@torch.no_grad()
@pytest.mark.parametrize(
    ("deadline", "budget"), [(0.1, 1.0), (0.099, 0.8), (0.081, 0.8), (0.07, 0.6), (0.05, 0.5), (0.031, 0.3)]
)
def test_the_largest_that_fits_is_taken_and_said(model, caplog, deadline, budget):
    model.deadline = deadline
    with caplog.at_level(logging.INFO):
        model(inputs(25, 40))
    assert model.budget == budget and model.deadline == deadline and len(model.measured) <= 3
    said = f"Budget {budget:g} meets the deadline of {1000 * deadline:g} ms: it takes {100 * budget:.0f} ms at 25x40"
    assert said in caplog.text


@torch.no_grad()
def test_where_none_fits_the_least_is_taken_with_a_warning(model, caplog):
    model.deadline = 0.01
    model(inputs(25, 40))
    assert model.budget == 0.3
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert record.message == "No budget meets the deadline of 10 ms: the least, 0.3, takes 30 ms at 25x40 pixels"


@torch.no_grad()
def test_every_size_is_measured_once_and_has_its_own(model):
    model.deadline = 0.081
    model(inputs(25, 40))
    first = list(model.measured)
    model(inputs(50, 40))
    assert model.budget == 0.3 and len(model.measured) > len(first)
    known = len(model.measured)
    model(inputs(25, 40))
    assert model.budget == 0.8 and len(model.measured) == known
    model.train()
    model.deadline = None
    model.eval()
    model.set_budget(None)
    model(inputs(25, 40))
    assert model.budget is None and len(model.measured) == known


@torch.no_grad()
def test_it_needs_a_table(model):
    other = SACTClassifier(load_config(CONFIG)).eval()
    other.deadline = 0.1
    with pytest.raises(InputError, match=r"no budgets are known of these weights: name their budget\.json"):
        other(inputs(25, 40))


def test_seconds_are_those_of_the_runs_behind_the_first():
    calls = []
    assert seconds_of(calls.append, "image") >= 0 and calls == [["image"]] * 4


def test_command_lines_refuse_what_is_no_deadline(capsys):
    train, visualize = load_tool("train_net").invoke_main, load_tool("visualize").main
    evaluate = ["--config-file", CONFIG, "--eval-only"]
    assert (
        error_line(capsys, train, [*evaluate, "--deadline-ms", "0"]) == "--deadline-ms must be a positive number; got 0"
    )
    said = "--deadline-ms chooses the budget: do not give one"
    assert error_line(capsys, train, [*evaluate, "--deadline-ms", "9", "--budget", "0.5"]) == said
    argv = ["--config-file", CONFIG, "--input", "x", "--output", "x", "--deadline-ms", "9", "MODEL.SACT.BUDGET", "0.5"]
    assert error_line(capsys, visualize, argv) == said
    training = ["--config-file", CONFIG, "--deadline-ms", "9"]
    assert error_line(capsys, train, training) == "--deadline-ms is for --eval-only"
