"""Trainings that draw budgets: shifts follow what images spend, whatever the network makes of them."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from command_lines import error_line, load_tool
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from sact_det.base.errors import InputError
from sact_det.budget.budgeted import halting_blocks
from sact_det.budget.tracked import TrackedShifts
from sact_det.engine.tracked_budgets import TrackedBudgets
from sact_det.tasks import load_config

CONFIGS = Path(__file__).parents[2] / "configs/tests"
DRAWN = ("MODEL.SACT.BUDGET_TRAINING_DRAWS", "budget", "MODEL.SACT.BUDGET_TRAINING")
LOW, HIGH = 0.3, 0.9


def spend(shifts, scale, middle, floor=0.0):
    """FLOPs of images by a falling curve, some noise from image to image."""
    noise = 0.05 * torch.randn(len(shifts))
    return (floor + (1 - floor) * torch.sigmoid((middle - shifts) / scale) + noise).clamp(floor, 1)


def follow(tracked, steps, *curve, images=2):
    for _ in range(steps):
        budgets = tracked.low + (tracked.high - tracked.low) * torch.rand(images)
        tracked.observe(budgets, spend(tracked(budgets), *curve))


def errors(tracked, scale, middle, floor=0.0):
    budgets = torch.linspace(LOW, HIGH, 25)
    exact = floor + (1 - floor) * torch.sigmoid((middle - tracked(budgets)) / scale)
    return (exact - budgets).abs()


@pytest.mark.parametrize("scale", [0.5, 3.0, 25.0])
@pytest.mark.parametrize("middle", [-10.0, 0.0, 5.0])
def test_budgets_are_met_by_networks_of_any_logits_and_again_when_these_have_changed(scale, middle):
    torch.manual_seed(0)
    tracked = TrackedShifts(LOW, HIGH)
    assert tracked(torch.tensor([LOW, HIGH])).tolist() == [0, 0]
    follow(tracked, 600, scale, middle)
    assert errors(tracked, scale, middle).max() < 0.1 and errors(tracked, scale, middle).mean() < 0.04
    shifts = tracked.shifts
    assert (shifts[1:] <= shifts[:-1]).all()
    follow(tracked, 400, scale, middle - 2 * scale)
    assert errors(tracked, scale, middle - 2 * scale).mean() < 0.04


@pytest.mark.parametrize("scale", [0.5, 3.0, 25.0])
@pytest.mark.parametrize(("low", "high"), [(0.55, 0.55), (0.55, 0.551), (0.5, 0.6)])
@pytest.mark.parametrize("images", [2, 16])
def test_a_narrow_range_is_met_too_and_so_is_a_single_budget(scale, low, high, images):
    torch.manual_seed(0)
    tracked = TrackedShifts(low, high)
    follow(tracked, 400, scale, 2.0, images=images)
    spent = torch.sigmoid((2 - tracked(torch.tensor([low, high]))) / scale)
    assert (spent - torch.tensor([low, high])).abs().max() < 0.06


def test_a_budget_below_the_least_takes_the_least_and_spoils_no_other():
    torch.manual_seed(0)
    tracked = TrackedShifts(LOW, HIGH)
    follow(tracked, 1500, 1.0, 0.0, 0.5)
    budgets = torch.tensor([0.3, 0.4, 0.65, 0.75, 0.85])
    spent = 0.5 + 0.5 * torch.sigmoid(-tracked(budgets))
    assert (spent[:2] < 0.52).all() and ((spent - budgets)[2:].abs() < 0.06).all()
    assert float(tracked.shifts.abs().max()) <= 100


WIDE = ("MODEL.SACT.BASE_CHANNELS", "16")  # and many units in a large map, so that little is computed in any case
UNITS = {
    "tiny.yaml": (*WIDE, "MODEL.SACT.UNITS", "(8, 2, 2, 1)", "MODEL.SACT.REFERENCE_UNITS", "(8, 2, 2)"),
    "tiny_classifier.yaml": (*WIDE, "MODEL.SACT.UNITS", "(8, 2, 2, 1)", "MODEL.SACT.REFERENCE_UNITS", "(8, 2, 2, 1)"),
}


def built(config, per):
    torch.manual_seed(0)
    words = [*DRAWN, "(0.6, 0.95)", "MODEL.SACT.BUDGET_TRAINING_PER", per, *UNITS[config]]
    model = build_model(load_config(str(CONFIGS / config), words)).train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("local_conv.bias"):
                parameter.fill_(-1.0)
    return model


def step(model):
    """Budgets that were drawn, and what each image spent, in shares of the plain network's FLOPs."""
    images = torch.rand(2, 3, 96, 96).mul(255).byte()
    truth = Instances((96, 96), gt_boxes=Boxes(torch.tensor([[10.0, 10, 50, 60]])), gt_classes=torch.tensor([1]))
    noted, observe = [], model.tracked.observe
    model.tracked.observe = lambda *found: noted.extend(found) or observe(*found)
    with EventStorage() as storage:
        model([{"image": i, "instances": truth, "label": 1, "height": 96, "width": 96} for i in images])
        assert storage.latest()["sact/budget"][0] == pytest.approx(float(noted[0].mean()))
    del model.tracked.observe
    return noted


@pytest.mark.parametrize(("config", "per"), [("tiny.yaml", "image"), ("tiny_classifier.yaml", "batch")])
def test_images_of_a_training_spend_what_was_drawn_for_them(config, per):
    model = built(config, per)
    first, *_, last = [[step(model) for _ in range(15)] for _ in range(6)]
    off = [torch.cat([(spent - asked).abs() for asked, spent in steps]).mean() for steps in (first, last)]
    assert off[1] < 0.08 and off[1] < off[0]
    asked = torch.cat([asked for asked, _ in last])
    assert 0.6 <= asked.min() < 0.7 and 0.85 < asked.max() <= 0.95
    assert all(bool(budgets[0] == budgets[1]) == (per == "batch") for budgets, _ in last)
    assert not [name for name in model.state_dict() if "tracked_shifts" in name]
    assert {block.shift for block in halting_blocks(model.eval()).values()} == {0.0}


@pytest.mark.parametrize("drawn", ["(0.0, 0.5)", "(0.5, 1.5)", "(-1.0, 0.5)", "(0.0, 0.0)"])
def test_what_is_no_budget_is_refused(capsys, drawn):
    words = ["--config-file", str(CONFIGS / "tiny.yaml"), *DRAWN, drawn]
    said = error_line(capsys, load_tool("train_net").invoke_main, words)
    assert said.startswith(
        "MODEL.SACT.BUDGET_TRAINING_DRAWS 'budget': BUDGET_TRAINING must be two shares of the plain network's FLOPs"
    )


def test_budgets_that_are_shares_of_nothing_are_refused():
    model = built("tiny.yaml", "image")
    parts = {name: getattr(model, name) for name in ("backbone", "proposal_generator", "roi_heads")}
    with pytest.raises(ValueError, match="`reference` is missing"):
        type(model)(**parts, prices={}, drawing=model.drawing, pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3)


ASKED, SPENT = torch.tensor([0.35, 0.5, 0.62, 0.9]), torch.tensor([0.5, 0.45, 0.8, 0.7])


def steps_of(images):
    tracked = TrackedShifts(LOW, HIGH)
    hook = TrackedBudgets(tracked)
    for _ in range(3):
        tracked(ASKED[images])
        tracked.observe(ASKED[images], SPENT[images])
        hook.after_step()
    return hook


def of_one(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(steps_of([2 * rank, 2 * rank + 1]).state_dict(), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_have_the_shifts_of_one_that_sees_all_images(tmp_path):
    whole = steps_of([0, 1, 2, 3])
    torch.multiprocessing.spawn(of_one, (tmp_path,), nprocs=2)
    shifts = whole.state_dict()["shifts"]
    assert shifts.unique().numel() > 4
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt", weights_only=True)["shifts"], shifts)
    other = steps_of([0])
    other.load_state_dict(whole.state_dict())
    assert torch.equal(other.state_dict()["shifts"], shifts)
    with pytest.raises(InputError, match="the shifts of drawn budgets"):
        other.load_state_dict({"shifts": shifts / 0})
    with pytest.raises(InputError, match="the checkpoint has shifts of 1 budgets, this range has 9; go on with"):
        other.load_state_dict({"shifts": shifts[:1]})
