"""What is said of one picture is what the model says, and a dial turns what it spends."""

from pathlib import Path

import numpy as np
import pytest
import torch
from random_detector import write_random_detector
from random_weights import write_random_weights

from sact_det.budget.budgeted import halting_blocks
from sact_det.budget.table import BudgetPoint, BudgetTable, weights_digest
from sact_det.classification.predictor import ClassPredictor
from sact_det.classification.preprocessing import whole_image
from sact_det.detection.analysis import counts
from sact_det.detection.predictor import Predictor
from sact_det.engine.failures import build_model
from sact_det.tasks import load_config
from sact_det.viewer.dial import Dial
from sact_det.viewer.look import viewer_of

CONFIGS = Path(__file__).parents[2] / "configs/tests"
IMAGE = np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    tiny = str(CONFIGS / "tiny.yaml")
    weights = write_random_detector(tmp_path_factory.mktemp("detector") / "model.pth", tiny)
    return load_config(tiny, ["MODEL.WEIGHTS", weights])


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    tiny, weights = str(CONFIGS / "tiny_classifier.yaml"), tmp_path_factory.mktemp("classifier") / "model.pth"
    write_random_weights(weights, load_config(tiny))
    return load_config(tiny, ["MODEL.WEIGHTS", str(weights)])


def write_table(viewer):
    """Two budgets, of shifts 3 and -3, beside the weights."""
    blocks = halting_blocks(viewer.model)
    points = [BudgetPoint(share, dict.fromkeys(blocks, shift), share) for share, shift in ((0.4, 3.0), (0.9, -3.0))]
    BudgetTable(weights_digest(viewer.model), "extractor", 0.3, tuple(points)).write(viewer.model.budget_file)
    return blocks


def test_a_detectors_price_is_the_models_account(detector):
    look, predictor = viewer_of(detector)(IMAGE), Predictor(detector)
    counted = counts(predictor.model, predictor.prepare(np.ascontiguousarray(IMAGE[:, :, ::-1])))
    assert look.flops == counted["spent"]
    assert look.flops_percent == pytest.approx(100 * counted["spent"] / counted["plain"])
    prediction = predictor(np.ascontiguousarray(IMAGE[:, :, ::-1]))
    assert look.extractor_percent == prediction.numbers["flops_percent"] and look.seconds > 0
    assert np.array_equal(look.ponder_map((90, 140)), prediction.ponder.map((90, 140))[0].numpy())
    above = int((prediction.instances.scores >= 0.3).sum())
    assert look.title(0.3) == f"{above} detection{'' if above == 1 else 's'}" and look.title(1) == "0 detections"
    assert np.array_equal(look.draw(1.0, 2), IMAGE.repeat(2, 0).repeat(2, 1))
    assert (look.draw(0.0) != look.draw(0.5)).any()


def test_a_classifiers_picture_is_resized_and_called_by_its_class(classifier):
    look, resized = viewer_of(classifier, 64)(IMAGE), whole_image(IMAGE, 64)
    prediction = ClassPredictor(classifier)(resized)
    assert look.image.shape == (41, 64, 3) and look.flops == int(prediction.ponder.flops)
    assert look.flops_percent == look.extractor_percent == prediction.numbers["flops_percent"]
    probability, label = prediction.probabilities.max(0)
    assert look.title(0) == f"class {int(label)} {float(probability):.0%}" and look.title(1) == "no class of 100%"


@pytest.mark.parametrize("kind", ["detector", "classifier"])
def test_costs_lie_within_the_colour_scale_and_reach_its_ends(request, kind):
    viewer = viewer_of(request.getfixturevalue(kind))
    dial, (low, high) = Dial.of(viewer.model), viewer.limits
    costs = []
    for value, shift in ((dial.low, -1000.0), (0, 0.0), (dial.high, 1000.0)):
        dial.turn(value)
        costs.append(viewer(IMAGE).ponder_map((90, 140)))
        assert low - 1e-4 <= costs[-1].min() and costs[-1].max() <= high + 1e-4
        for block in halting_blocks(viewer.model).values():
            block.shift = shift
        costs.append(viewer(IMAGE).ponder_map((90, 140)))
    assert costs[0].mean() > costs[2].mean() > costs[4].mean()
    assert costs[5].max() == pytest.approx(low) and costs[1].max() == pytest.approx(high, abs=0.02)


def test_the_dial_is_a_budget_where_a_table_of_the_weights_lies_beside_them(classifier, caplog):
    viewer = viewer_of(classifier)
    assert not Dial.of(viewer.model).is_budget
    try:
        blocks = write_table(viewer)
        dial = Dial.of(viewer.model)
        assert dial.is_budget and (dial.low, dial.high, dial.start) == (0.4, 0.9, 0.9)
        for value, shift in ((0.4, 3.0), (0.65, 0.0), (0.1, 3.0)):
            dial.turn(value)
            assert [block.shift for block in blocks.values()] == pytest.approx([shift] * len(blocks))
        other = viewer_of(classifier)
        with torch.no_grad():
            next(other.model.parameters()).add_(1)
        assert not Dial.of(other.model).is_budget and "budgets of other weights" in caplog.text
    finally:
        viewer.model.budget_file.unlink()


def test_a_plain_network_has_no_dial(classifier):
    cfg = classifier.clone()
    cfg.defrost()
    cfg.MODEL.SACT.HALTING, cfg.MODEL.WEIGHTS = "none", ""
    assert Dial.of(build_model(cfg)) is None
