"""What a trained classifier calls its classes where its data set is, and where it is not."""

import pytest
import short_trainings
from labelled_folders import write_class_folders
from tiny_classifier import config

from sact_det.classification.class_names import class_names
from sact_det.classification.trainer import ClassificationTrainer


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("named")
    cfg = config(write_class_folders(folder / "data"), "OUTPUT_DIR", folder, "SOLVER.MAX_ITER", 1)
    short_trainings.train(ClassificationTrainer, cfg)
    return folder / "model_final.pth"


def test_the_weights_know_the_names_where_the_data_set_is_not(weights):
    assert class_names(config("/nowhere", "MODEL.WEIGHTS", weights)) == ["apple", "leaf", "sky"]


@pytest.mark.parametrize("more", [("MODEL.CLASSIFIER.NUM_CLASSES", 9), ("MODEL.WEIGHTS", "/nowhere.pth")])
def test_names_that_do_not_fit_or_are_nowhere_are_none(weights, more):
    assert class_names(config("/nowhere", "MODEL.WEIGHTS", weights, *more)) is None
