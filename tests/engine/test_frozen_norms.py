"""Norms that nobody has given statistics, and that cannot learn them, are named."""

import logging

import pytest
from tiny_classifier import config

from sact_det.classification.checkpoint import ClassifierCheckpointer
from sact_det.classification.trainer import ClassificationTrainer


def classifier(norm):
    return ClassificationTrainer.build_model(config(None, "MODEL.SACT.NORM", norm, "MODEL.SACT.HALTING", "none"))


@pytest.mark.parametrize(("norm", "warned"), [("FrozenBN", True), ("BN", False)])
def test_a_training_from_nothing_under_frozen_norms_is_warned_of(norm, warned, caplog):
    with caplog.at_level(logging.WARNING, "sact_det"):
        ClassifierCheckpointer(classifier(norm)).load("")
    assert ("norms start fresh (MODEL.WEIGHTS is empty) and are frozen" in caplog.text) == warned
    if warned:
        assert "block1.units.0." in caplog.text and ", ..." in caplog.text


def test_frozen_norms_that_weights_have_are_not(tmp_path, caplog):
    ClassifierCheckpointer(classifier("FrozenBN"), str(tmp_path)).save("weights")
    with caplog.at_level(logging.WARNING, "sact_det"):
        ClassifierCheckpointer(classifier("FrozenBN")).load(str(tmp_path / "weights.pth"))
    assert "start fresh" not in caplog.text
