"""Trainings whose steps draw a price that the halting branches read: what each image pays, and what is kept of it."""

import math
from pathlib import Path

import pytest
import torch
from command_lines import error_line, load_tool
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from torch import Tensor

from sact_det.base.errors import InputError
from sact_det.budget import BudgetPoint, BudgetTable, weights_digest
from sact_det.budget.budgeted import halting_blocks
from sact_det.classification.checkpoint import ClassifierCheckpointer
from sact_det.rule import ledger
from sact_det.tasks import load_config

CONFIGS = Path(__file__).parents[2] / "configs/tests"
TAU, LOW, HIGH = 0.01, 0.001, 0.1
PRICES = ("MODEL.SACT.TAU", str(TAU), "MODEL.SACT.BUDGET_TRAINING", f"({LOW}, {HIGH})")
DRAWN = (*PRICES, "MODEL.SACT.BUDGET_TRAINING_DRAWS", "tau")
BOX_HEAD = ("MODEL.SACT.TAU_BOX_HEAD", "0.02", "MODEL.SACT.BOX_HEAD_HALTING", "act")


def built(config, *overrides):
    torch.manual_seed(0)
    return build_model(load_config(str(CONFIGS / config), overrides))


def batch_for(config):
    items = []
    for number in range(2):
        torch.manual_seed(number)
        image = torch.randint(0, 255, (3, 96, 96), dtype=torch.uint8)
        items.append({"image": image, "height": 96, "width": 96, "label": number})
        if config == "tiny.yaml":
            from detectron2.structures import Boxes, Instances

            boxes = Boxes(torch.tensor([[10.0, 10, 50, 60], [30.0, 20, 90, 80]])[: number + 1])
            items[-1]["instances"] = Instances((96, 96), gt_boxes=boxes, gt_classes=torch.arange(number + 1))
    return items


def step(model, batch, seed=0):
    """Losses of a step, and the shift that it was given, [N]."""
    torch.manual_seed(seed)
    with EventStorage() as storage:
        losses = model(batch)
        logged = storage.latest()["sact/shift"][0]
    shift = next(iter(halting_blocks(model).values())).shift
    shifts = shift if isinstance(shift, Tensor) else torch.full((len(batch),), shift)
    assert logged == pytest.approx(shifts.mean().item(), abs=1e-6)
    return losses, shifts


@pytest.mark.parametrize("per", ["batch", "image"])
def test_an_image_pays_the_price_that_was_drawn_for_it(per):
    model = built("tiny_classifier.yaml", *DRAWN, "MODEL.SACT.BUDGET_TRAINING_PER", per).train()
    batch = batch_for("tiny_classifier.yaml")
    losses, shifts = step(model, batch)
    taus = TAU * shifts.exp()
    assert len(set(taus.tolist())) == (2 if per == "image" else 1) and LOW <= taus.min() <= taus.max() <= HIGH
    with torch.no_grad():
        cost = model.classify(model.preprocess(batch)).ponder.mean_cost()  # at the same shifts
    torch.testing.assert_close(losses["loss_ponder"].detach(), (taus * cost).mean())


@pytest.mark.parametrize("per", ["batch", "image"])
def test_a_detector_scales_all_its_prices_alike(per, monkeypatch):
    model = built("tiny.yaml", *DRAWN, *BOX_HEAD, "MODEL.SACT.BUDGET_TRAINING_PER", per).train()
    ledgers = []
    monkeypatch.setattr(ledger, "Ledger", lambda sizes, made=ledger.Ledger: ledgers.append(made(sizes)) or ledgers[-1])
    losses, shifts = step(model, batch_for("tiny.yaml"))
    (spent,) = ledgers
    ratios, regions = shifts.exp(), torch.tensor(spent.regions("box_head"))
    (backbone,), (box_head,) = spent["backbone"], spent["box_head"]
    expected = TAU * (ratios * backbone.mean_cost()).mean()
    torch.testing.assert_close(losses["loss_ponder"], expected)
    of_regions = torch.cat([ratio.expand(number) for ratio, number in zip(ratios, regions.tolist())])
    torch.testing.assert_close(losses["loss_ponder_box_head"], 0.02 * (of_regions * box_head.mean_cost()).mean())
    assert per == "batch" or (regions.min() > 0 and ratios[0] != ratios[1])


@pytest.mark.parametrize("config", ["tiny.yaml", "tiny_classifier.yaml"])
@pytest.mark.parametrize("draws", ["tau", "shift"])
def test_draws_of_images_repeat_are_spread_evenly_and_end_with_the_training(config, draws):
    own = (*PRICES, "MODEL.SACT.BUDGET_TRAINING_DRAWS", draws, "MODEL.SACT.BUDGET_TRAINING_PER", "image")
    model, batch = built(config, *own).train(), batch_for(config)
    losses, shifts = step(model, batch)
    again, same = step(built(config, *own).train(), batch)
    assert torch.equal(shifts, same) and all(torch.equal(losses[name], again[name]) for name in losses)
    assert not torch.equal(step(model, batch, seed=1)[1], shifts)
    drawn = model.drawing.draw(4000)
    low, high = (math.log(LOW / TAU), math.log(HIGH / TAU)) if draws == "tau" else (LOW, HIGH)
    assert low <= drawn.min() and drawn.max() <= high
    for share in (0.25, 0.5, 0.75):
        assert (drawn < low + share * (high - low)).double().mean() == pytest.approx(share, abs=0.03)
    assert {block.shift for block in halting_blocks(model.eval()).values()} == {0.0}
    with torch.no_grad():
        model(batch)


def test_branches_learn_how_to_read_it():
    model, batch = built("tiny_classifier.yaml", *DRAWN).train(), batch_for("tiny_classifier.yaml")
    sum(step(model, batch)[0].values()).backward()
    weights = {name: p for name, p in model.named_parameters() if name.endswith("price_weight")}
    assert len(weights) == sum(len(block.units) - 1 for block in halting_blocks(model).values())
    assert all(p.shape == (1,) and p.item() == 0 and p.grad.abs() > 0 for p in weights.values())


def test_a_budget_chooses_the_price_and_what_lies_beyond_all_prices():
    model = built("tiny_classifier.yaml", *DRAWN).eval()
    with torch.no_grad():
        for block in halting_blocks(model).values():
            for unit in block.units[:-1]:
                unit.halting.price_weight.fill_(1.5)
    blocks = list(halting_blocks(model))
    points = [BudgetPoint(b, dict.fromkeys(blocks, shift), b) for b, shift in ((0.3, 6.0), (0.7, -1.0))]
    table = BudgetTable(weights_digest(model), "network", 0.2, tuple(points))
    branch = model.block3.units[0].halting
    high = math.log(HIGH / TAU)
    for budget, added in ((0.7, -1.5), (0.3, 1.5 * high + (6 - high)), (1, -math.inf), (None, 0.0)):
        model.set_budget(budget, table)
        assert float(torch.as_tensor(branch.added()).detach()) == pytest.approx(added)


def test_weights_without_it_start_a_training_and_its_weights_say_for_which_prices_they_are(tmp_path, caplog):
    plain, priced = built("tiny_classifier.yaml"), built("tiny_classifier.yaml", *DRAWN)
    assert set(priced.state_dict()) - set(plain.state_dict()) == {
        name for name in priced.state_dict() if name.endswith("halting.price_weight")
    }
    ClassifierCheckpointer(plain, tmp_path).save("old")
    with caplog.at_level("INFO"):
        ClassifierCheckpointer(priced).load(str(tmp_path / "old.pth"))
    assert "Starting fresh" in caplog.text and "block3.units.0.halting" in caplog.text
    with pytest.raises(InputError, match=r"not in the file: block\d\.units\.0\.halting\.price_weight"):
        ClassifierCheckpointer(priced, evaluate=True).load(str(tmp_path / "old.pth"))
    ClassifierCheckpointer(priced, tmp_path).save("priced")
    ClassifierCheckpointer(built("tiny_classifier.yaml", *DRAWN), evaluate=True).load(str(tmp_path / "priced.pth"))
    for others, said in (
        ((), r"not in the model: block\d\.units\.0\.halting\.price_weight"),
        (
            (*DRAWN, "MODEL.SACT.TAU", "0.02"),
            r"tau, with the lowest price, TAU and the highest \(0\.001, 0\.01, 0\.1\), the c",
        ),
    ):
        with pytest.raises(InputError, match=said):
            ClassifierCheckpointer(built("tiny_classifier.yaml", *others)).load(str(tmp_path / "priced.pth"))


def test_a_checkpoint_tells_the_shifts_that_its_weights_go_with(tmp_path):
    model = built("tiny_classifier.yaml")
    model.block2.shift = 1.5
    ClassifierCheckpointer(model, tmp_path).save("shifted")
    other = built("tiny_classifier.yaml")
    ClassifierCheckpointer(other, evaluate=True).load(str(tmp_path / "shifted.pth"))
    assert (other.block1.shift, other.block2.shift) == (0.0, 1.5)
    blocks = dict.fromkeys(halting_blocks(other), 3.0)
    table = BudgetTable(weights_digest(other), "network", 0.2, (BudgetPoint(0.5, blocks, 0.5),))
    other.set_budget(0.5, table)
    ClassifierCheckpointer(other, tmp_path).save("with_budget")
    other.set_budget(None)
    assert (other.block1.shift, other.block2.shift) == (0.0, 1.5)
    ClassifierCheckpointer(model, evaluate=True).load(str(tmp_path / "with_budget.pth"))
    assert model.block2.shift == 1.5
    drawn = built("tiny_classifier.yaml", *DRAWN).train()
    drawn.draw_shift(2)
    ClassifierCheckpointer(drawn, tmp_path).save("drawn")
    assert "shifts" not in torch.load(tmp_path / "drawn.pth", weights_only=True)["sact"]


def test_a_config_may_take_the_prices_from_the_weights(tmp_path):
    ClassifierCheckpointer(built("tiny_classifier.yaml", *DRAWN), tmp_path).save("priced")
    words = ["MODEL.WEIGHTS", str(tmp_path / "priced.pth"), "MODEL.SACT.FROM_WEIGHTS", "True"]
    sact = load_config(str(CONFIGS / "tiny_classifier.yaml"), words).MODEL.SACT
    assert (sact.TAU, tuple(sact.BUDGET_TRAINING), sact.BUDGET_TRAINING_DRAWS) == (TAU, (LOW, HIGH), "tau")


def test_prices_without_logarithm_are_refused(capsys):
    train = load_tool("train_net").invoke_main
    for values in (("MODEL.SACT.TAU", "0.0"), ("MODEL.SACT.BUDGET_TRAINING", "(0.0, 0.1)")):
        words = ["--config-file", str(CONFIGS / "tiny.yaml"), *DRAWN, *values]
        said = error_line(capsys, train, words)
        assert said.startswith(
            "MODEL.SACT.BUDGET_TRAINING_DRAWS 'tau' reads logarithms: TAU and BUDGET_TRAINING must be"
        )
