"""MODEL.SACT.FREEZE_NETWORK: a trained network learns where its positions can halt, and is otherwise what it was."""

import copy
import math
from pathlib import Path

import pytest
import torch
from command_lines import error_line, load_tool
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from small_networks import images, randomize

from sact_det import build_classifier
from sact_det.budget.budgeted import halting_blocks
from sact_det.budget.statistics import budgeted_norms, estimate_statistics
from sact_det.engine.optimizer import build_optimizer
from sact_det.network.freeze import freeze_network, halting_branches
from sact_det.tasks import load_config

CONFIGS = Path(__file__).parents[2] / "configs/tests"
FIXED = ("MODEL.SACT.FREEZE_NETWORK", "True")
TASKS = {
    "tiny.yaml": (),
    "tiny.yaml, box head": ("MODEL.SACT.TAU_BOX_HEAD", "0.1", "MODEL.SACT.REJECTION", "True"),
    "tiny_classifier.yaml": ("MODEL.BACKBONE.FREEZE_AT", "0"),
}


def configured(task, *overrides):
    return load_config(str(CONFIGS / task.split(",")[0]), [*TASKS[task], *overrides])


def built(cfg):
    torch.manual_seed(0)
    model = build_model(cfg).train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("local_conv.bias", "rejection.bias")):
                parameter.fill_(-0.5)
    return model


def batch():
    generator = torch.Generator().manual_seed(0)
    truth = Instances((96, 96), gt_boxes=Boxes(torch.tensor([[10.0, 10, 50, 60]])), gt_classes=torch.tensor([1]))
    drawn = (torch.randint(0, 256, (3, 96, 96), generator=generator, dtype=torch.uint8) for _ in range(2))
    return [
        {"image": image, "instances": truth, "label": number, "height": 96, "width": 96}
        for number, image in enumerate(drawn)
    ]


def train(model, cfg):
    """Two steps; returns the last losses."""
    optimizer = build_optimizer(cfg, model)
    for _ in range(2):
        with EventStorage():
            losses = model(batch())
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    return losses


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
def test_steps_change_halting_branches_and_nothing_else(task, norm):
    cfg = configured(task, *FIXED, "MODEL.SACT.NORM", norm, "MODEL.SACT.BOX_HEAD_NORM", norm)
    model = built(cfg)
    before = copy.deepcopy(model.state_dict())
    losses = train(model, cfg)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    branches = halting_branches(model)
    assert changed and all(name.startswith(branches) for name in changed)
    assert [name for name in losses if "ponder" in name]
    parameters = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert parameters and all(name.startswith(branches) for name in parameters)


@pytest.mark.parametrize("task", ["tiny.yaml", "tiny_classifier.yaml"])
def test_where_nothing_halts_it_is_the_plain_network_that_it_was(task):
    cfg = configured(task, *FIXED)
    model, plain = built(cfg), built(configured(task, "MODEL.SACT.HALTING", "none")).eval()
    missing, unexpected = model.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and all(name.startswith(halting_branches(model)) for name in missing)
    train(model, cfg)
    model.eval()
    for block in halting_blocks(model).values():
        block.shift = -math.inf
    with torch.no_grad():
        for own, expected in zip(model(batch()), plain(batch())):
            if "logits" in own:
                torch.testing.assert_close(own["logits"], expected["logits"], rtol=1e-5, atol=1e-5)
                continue
            fields, known = own["instances"].get_fields(), expected["instances"].get_fields()
            assert len(own["instances"]) > 0 and torch.equal(fields["pred_classes"], known["pred_classes"])
            torch.testing.assert_close(fields["scores"], known["scores"], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(fields["pred_boxes"].tensor, known["pred_boxes"].tensor, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("task", TASKS)
def test_weights_are_those_of_a_training_that_fixes_nothing(task):
    free, fixed = built(configured(task)), built(configured(task, *FIXED))
    assert {name: value.shape for name, value in free.state_dict().items()} == {
        name: value.shape for name, value in fixed.state_dict().items()
    }
    free.load_state_dict(fixed.state_dict())
    assert budgeted_norms(free).keys() == budgeted_norms(fixed).keys()


@torch.no_grad()
def test_budgets_may_have_statistics_of_their_own():
    free = randomize(build_classifier((2, 3, 2, 2), base_channels=8, num_classes=5), images(4, 64, 64)).eval()
    fixed, batches = copy.deepcopy(free), [images(3, 64, 64, seed=5)]
    freeze_network(fixed)
    fixed.train().eval()
    found, expected = estimate_statistics(fixed, batches), estimate_statistics(free, batches)
    assert found.keys() == expected.keys() and found
    assert all((found[name] == expected[name]).all() for name in found)
    assert not any(norm.training for norm in budgeted_norms(fixed.train()).values())


@pytest.mark.parametrize(
    "overrides, said",
    [
        (("MODEL.SACT.HALTING", "none"), "MODEL.SACT.FREEZE_NETWORK needs a network that halts; HALTING is 'none'"),
        (
            ("MODEL.SACT.FREEZE_HALTING", "True"),
            "MODEL.SACT.FREEZE_NETWORK and FREEZE_HALTING together leave nothing to learn",
        ),
    ],
)
def test_what_leaves_nothing_to_learn_is_refused(overrides, said, capsys):
    words = ["--config-file", str(CONFIGS / "tiny.yaml"), *FIXED, *overrides]
    assert error_line(capsys, load_tool("train_net").invoke_main, words) == said


def test_a_box_head_alone_may_halt():
    words = ("MODEL.SACT.HALTING", "none", "MODEL.SACT.BOX_HEAD_HALTING", "sact", "MODEL.SACT.TAU_BOX_HEAD", "0.1")
    model = built(configured("tiny.yaml", *FIXED, *words))
    assert {name for name, p in model.named_parameters() if p.requires_grad}
