"""Trainings whose steps draw a shift: the same again with the same seed, another one every step, none in evaluation."""

from pathlib import Path

import pytest
import torch
from command_lines import error_line, load_tool
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from sact_det.base.errors import InputError
from sact_det.budget import Drawing
from sact_det.budget.budgeted import halting_blocks
from sact_det.tasks import load_config

CONFIGS = Path(__file__).parents[2] / "configs/tests"
RANGE = ("MODEL.SACT.BUDGET_TRAINING", "(-2.0, 6.0)")


def built(config, *overrides):
    torch.manual_seed(0)
    return build_model(load_config(str(CONFIGS / config), overrides))


def batch_for(config):
    items = [{"image": torch.randint(0, 255, (3, 96, 96), dtype=torch.uint8), "height": 96, "width": 96, "label": 1}]
    if config == "tiny.yaml":
        from detectron2.structures import Boxes, Instances

        boxes = Boxes(torch.tensor([[10.0, 10, 50, 60]]))
        items[0]["instances"] = Instances((96, 96), gt_boxes=boxes, gt_classes=torch.tensor([1]))
    return items * 2


def steps(model, batch, number, seed=0):
    """Shifts that so many steps have, and their ponder losses."""
    torch.manual_seed(seed)
    shifts, losses = [], []
    with EventStorage() as storage:
        for _ in range(number):
            losses.append(model(batch)["loss_ponder"].item())
            (shift,) = {block.shift for block in halting_blocks(model).values()}
            if model.drawing is not None:
                assert storage.latest()["sact/shift"][0] == pytest.approx(shift)
            shifts.append(shift)
    return shifts, losses


@pytest.mark.parametrize("config", ["tiny.yaml", "tiny_classifier.yaml"])
def test_a_step_draws_what_its_seed_says(config):
    model, batch = built(config, *RANGE).train(), batch_for(config)
    shifts, losses = steps(model, batch, 4)
    assert len(set(shifts)) == 4 and all(-2 <= shift <= 6 for shift in shifts)
    assert steps(built(config, *RANGE).train(), batch, 4) == (shifts, losses)
    assert steps(model, batch, 4, seed=1)[0] != shifts


@pytest.mark.parametrize("config", ["tiny.yaml", "tiny_classifier.yaml"])
def test_an_evaluation_has_no_shift_and_nothing_is_drawn_unless_asked_for(config):
    model, batch = built(config, *RANGE).train(), batch_for(config)
    steps(model, batch, 1)
    assert {block.shift for block in halting_blocks(model.eval()).values()} == {0.0}
    with torch.no_grad():
        model(batch)
    assert {block.shift for block in halting_blocks(model).values()} == {0.0}
    plain = built(config).train()
    state = torch.get_rng_state()
    assert plain.draw_shift(2) is None and torch.equal(torch.get_rng_state(), state)
    assert steps(plain, batch, 2)[0] == [0.0, 0.0]


def test_every_step_learns_with_what_it_drew():
    model, batch = built("tiny_classifier.yaml", *RANGE).train(), batch_for("tiny_classifier.yaml")
    for shift in (-2.0, 6.0):
        model.drawing = Drawing(shift, shift)
        with EventStorage():
            losses = model(batch)
        sum(losses.values()).backward()
        branch = model.block3.units[0].halting
        assert branch.shift == shift and branch.local_conv.bias.grad.abs() > 0


def test_what_is_no_range_is_refused(capsys):
    for value in ("(1.0,)", "(3.0, 1.0)", "(1, 2, 3)"):
        with pytest.raises(InputError, match=r"MODEL\.SACT\.BUDGET_TRAINING must list nothing, or two finite numbers"):
            load_config(str(CONFIGS / "tiny.yaml"), ["MODEL.SACT.BUDGET_TRAINING", value])
    train = load_tool("train_net").invoke_main
    words = ["--config-file", str(CONFIGS / "tiny.yaml"), *RANGE, "MODEL.SACT.HALTING", "none"]
    said = error_line(capsys, train, words)
    assert said == "MODEL.SACT.BUDGET_TRAINING needs a network that halts; HALTING is 'none'"
