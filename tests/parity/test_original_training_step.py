"""One training step of the original program, from its variables before to its variables after."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracle import Case, read_case, training_state
from torch import Tensor

from sact_det.classification.model import Classifier

WEIGHT_DECAY = 1e-4
MOMENTUM = 0.9
LOSS_TOLERANCE = 1e-5  # relative; 1e-6 is reached
TOLERANCE = 5e-4  # of the norm of a tensor; 2e-4 is reached, where the gradient is smallest

# A bias of the root, or of the first unit of a block, adds the same number to a channel at every position. Whatever
# reads it, through identity shortcuts too, is a batch norm, which subtracts it again: its true gradient is 0, and both
# programs compute nothing but rounding errors. (Later units are not evaluated everywhere, so their biases do matter.)
FEEDS_ONLY_NORMS = re.compile(r"stem\.conv\.bias|block\d\.units\.0\.(conv3|shortcut)\.bias")


@pytest.fixture(scope="module")
def case() -> Case:
    return read_case("train_sact_small")


def fresh(case: Case) -> Classifier:
    case.model.load_state_dict(training_state(case, "before"))
    case.model.zero_grad()
    return case.model.train()


def losses(case: Case) -> dict[str, Tensor]:
    output = case.model(case.images)
    weights = [parameter for parameter in case.model.parameters() if parameter.ndim == 4]
    labels = torch.from_numpy(case.expected["labels"])
    return {
        "cross_entropy": F.cross_entropy(output.logits, labels, label_smoothing=0.1),
        "ponder_times_tau": case.settings["tau"] * output.ponder.mean_cost().mean(),
        "regularization": WEIGHT_DECAY * sum(weight.square().sum() / 2 for weight in weights),
    }


def optimizer(case: Case, **options: float) -> torch.optim.SGD:
    return torch.optim.SGD(case.model.parameters(), lr=case.settings["lr"], momentum=MOMENTUM, **options)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


def test_losses_are_the_same(case: Case):
    fresh(case)
    ours = losses(case)
    for name, loss in {**ours, "total": sum(ours.values())}.items():
        assert loss.item() == pytest.approx(float(case.expected[f"loss/{name}"]), rel=LOSS_TOLERANCE), name


def test_gradients_are_the_same(case: Case):
    model = fresh(case)
    sum(losses(case).values()).backward()
    expected = training_state(case, "grad")
    compared = {name: p.grad for name, p in model.named_parameters() if not FEEDS_ONLY_NORMS.fullmatch(name)}
    assert len(compared) == sum(name.startswith("grad/") for name in case.expected) - 9
    errors = {name: relative_error(grad, expected[name]) for name, grad in compared.items()}
    assert max(errors.values()) < TOLERANCE, max(errors, key=errors.get)


def test_biases_that_feed_only_norms_have_gradients_of_rounding_size_in_both_programs(case: Case):
    model = fresh(case)
    sum(losses(case).values()).backward()
    expected = training_state(case, "grad")
    left_out = {name: p.grad for name, p in model.named_parameters() if FEEDS_ONLY_NORMS.fullmatch(name)}
    assert len(left_out) == 9
    assert max(float(max(grad.norm(), expected[name].norm())) for name, grad in left_out.items()) < 1e-5


def test_variables_after_a_momentum_step_are_the_same(case: Case):
    model = fresh(case)
    before, after = training_state(case, "before"), training_state(case, "after1")
    sum(losses(case).values()).backward()
    optimizer(case).step()
    for name, value in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert relative_error(value, after[name]) < 1e-6, name
            if not FEEDS_ONLY_NORMS.fullmatch(name):  # the step itself, of which a value is mostly not made
                assert relative_error(value - before[name], after[name] - before[name]) < TOLERANCE, name


def test_weight_decay_of_the_optimizer_is_the_originals_regularization(case: Case):
    model = fresh(case)
    after = training_state(case, "after1")
    ours = losses(case)
    (ours["cross_entropy"] + ours["ponder_times_tau"]).backward()
    decayed = [p for p in model.parameters() if p.ndim == 4]
    others = [p for p in model.parameters() if p.ndim != 4]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others}]
    torch.optim.SGD(groups, lr=case.settings["lr"], momentum=MOMENTUM).step()
    assert all(relative_error(p, after[name]) < 1e-6 for name, p in model.named_parameters())


def test_the_second_step_starts_from_the_originals_loss(case: Case):
    fresh(case)
    step = optimizer(case)
    for number in (1, 2):
        step.zero_grad()
        total = sum(losses(case).values())
        total.backward()
        step.step()
        assert total.item() == pytest.approx(float(case.expected[f"train_op_loss/{number}"]), rel=1e-5)


def test_halting_scores_features_and_units_in_training_are_the_same(case: Case):
    model = fresh(case)
    with torch.no_grad():
        output = model(case.images)
    for name, block in output.ponder.blocks.items():
        np.testing.assert_array_equal(block.num_units.numpy(), case.expected[f"{name}/num_units"])
        np.testing.assert_allclose(block.ponder_cost.numpy(), case.expected[f"{name}/ponder_cost"], rtol=1e-5)
    np.testing.assert_allclose(output.logits.numpy(), case.expected["logits"], rtol=1e-4, atol=1e-5)
