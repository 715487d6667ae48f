"""MODEL.SACT.FREEZE_HALTING: units learn, what halts stays, and no gradient passes through a score."""

import copy
from pathlib import Path

import pytest
import torch
from command_lines import error_line, load_tool
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from trained_blocks import block_of, compare, inputs, step

from sact_det.network.freeze import freeze_halting
from sact_det.network.unit import ScoringBranch
from sact_det.tasks import load_config

CONFIGS = Path(__file__).parents[2] / "configs/tests"
PRICED_HEAD = ("MODEL.SACT.TAU_BOX_HEAD", "0.1", "MODEL.SACT.REJECTION", "True")
FIXED = ("MODEL.SACT.FREEZE_HALTING", "True", "MODEL.SACT.BUDGET_TRAINING", "(-3, 3)")
TASKS = {"tiny.yaml": PRICED_HEAD, "tiny_classifier.yaml": ()}


def built(config, *overrides):
    torch.manual_seed(0)
    model = build_model(load_config(str(CONFIGS / config), [*TASKS[config], *overrides])).train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("local_conv.bias", "rejection.bias")):
                parameter.fill_(-0.5)
    return model


def losses_of(model):
    generator = torch.Generator().manual_seed(0)
    batch = []
    for number in range(2):
        truth = Instances((96, 96), gt_boxes=Boxes(torch.tensor([[10.0, 10, 50, 60]])), gt_classes=torch.tensor([1]))
        image = torch.randint(0, 256, (3, 96, 96), generator=generator, dtype=torch.uint8)
        batch.append({"image": image, "instances": truth, "label": number, "height": 96, "width": 96})
    with EventStorage():
        return model(batch)


def scoring_state(model):
    branches = {name: part for name, part in model.named_modules() if isinstance(part, ScoringBranch)}
    assert branches
    return {f"{name}.{key}": value for name, part in branches.items() for key, value in part.state_dict().items()}


@pytest.mark.parametrize("config", TASKS)
@pytest.mark.parametrize("norm", ["FrozenBN", "MovingBN"])
def test_a_step_changes_units_and_of_what_halts_only_statistics_that_follow(config, norm):
    model = built(config, *FIXED, "MODEL.BACKBONE.FREEZE_AT", "0", "MODEL.SACT.HALTING_NORM", norm)
    before, units = copy.deepcopy(scoring_state(model)), copy.deepcopy(model.state_dict())
    losses = losses_of(model)
    assert not [name for name in losses if "ponder" in name]  # a price that nothing could lower is none
    sum(losses.values()).backward()
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert not [p for p in learning if p.grad is None]
    torch.optim.SGD(learning, 0.1).step()
    after = scoring_state(model)
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert before.keys() == after.keys()
    assert {key.rsplit(".", 1)[1] for key in moved} <= {"running_mean", "running_var", "num_batches_tracked"}
    assert norm == "FrozenBN" or any("block2.units.0" in key for key in moved)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, units[name])}
    assert any("block2.units.1.conv2" in name for name in changed)


@pytest.mark.parametrize("config", TASKS)
def test_weights_of_a_training_with_learning_branches_fit_and_halt_alike(config):
    learned, fixed = built(config), built(config, "MODEL.SACT.FREEZE_HALTING", "True")
    fixed.load_state_dict(learned.state_dict())
    of_fixed, of_learned = scoring_state(fixed), scoring_state(learned)
    assert all(torch.equal(value, of_learned[key]) for key, value in of_fixed.items())


def output_of_constant_weights(block, x):
    """The block by equations 9 to 11, with weights and masks that a run without gradients has found."""
    with torch.no_grad():
        distribution = block(x)[1].halting_distribution
    output, state, active = 0.0, x, None
    for index, unit in enumerate(block.units):
        state = unit(state, active)
        weight = distribution[:, index]
        output = output + weight[:, None] * state
        # A position is active until its weights sum to 1; the weight that completes them is its last.
        active = (distribution[:, : index + 1].sum(1) < 1 - 1e-6)[:, None]
    return output


def test_the_gradient_is_that_of_constant_weights():
    block = block_of()
    freeze_halting(block)
    x = inputs(block, 2, 20, 14)
    of_constants = torch.autograd.grad(
        output_of_constant_weights(block, x).square().mean(), [p for p in block.parameters() if p.requires_grad]
    )
    names = [name for name, p in block.named_parameters() if p.requires_grad]
    found = step(block, "dense", x, loss="features")
    assert names and not any("halting" in name for name in names)
    compare({name: found[name] for name in names}, dict(zip(names, of_constants)), 1e-5)
    free, fixed = (found["units.0.conv1.weight"] for found in (step(block_of(), "dense", x, loss="features"), found))
    assert (free - fixed).norm() > 1e-3 * fixed.norm()


def test_a_plain_network_has_nothing_to_fix(capsys):
    words = ["--config-file", str(CONFIGS / "tiny.yaml"), *FIXED[:2], "MODEL.SACT.HALTING", "none"]
    said = error_line(capsys, load_tool("train_net").invoke_main, words)
    assert said == "MODEL.SACT.FREEZE_HALTING needs a network that halts; HALTING is 'none'"
