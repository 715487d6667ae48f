"""What judges a training as it goes: the best checkpoint, early stopping, validation losses, memory."""

import json
import logging
from pathlib import Path

import pytest
import short_trainings
import torch
from coco_folder import TINY, write_coco_folder
from detectron2.utils.events import EventStorage
from labelled_folders import write_class_folders
from short_trainings import final_weights
from tiny_classifier import config

from sact_det.base.errors import InputError
from sact_det.classification.trainer import ClassificationTrainer
from sact_det.detection.trainer import DetectionTrainer
from sact_det.engine.config_checks import check_training
from sact_det.engine.peak_memory import peak_memory
from sact_det.engine.validation_loss import mean_losses
from sact_det.tasks import load_config

LOSS = "validation/total_loss"
LOWEST = ("TEST.LOSS_PERIOD", 1, "TEST.BEST_METRIC", LOSS, "TEST.BEST_METRIC_MODE", "min")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_class_folders(tmp_path_factory.mktemp("toy") / "data", per_class=2)


def train(data, output, *options, resume=False):
    cfg = config(data, "SOLVER.MAX_ITER", 6, "SOLVER.CHECKPOINT_PERIOD", 2, "OUTPUT_DIR", output, *options)
    short_trainings.train(ClassificationTrainer, cfg, resume=resume)


def read(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def model_of(data, path: Path):
    model = ClassificationTrainer.build_model(config(data))
    model.load_state_dict(read(path)["model"])
    return model.train()


def losses_of(data, *paths: Path) -> list[float]:
    """Of checkpoints, on all images, computed once more."""
    loader = ClassificationTrainer.build_validation_loader(config(data), "toy")
    return [mean_losses(model_of(data, path), loader)[LOSS] for path in paths]


def test_validation_losses_are_those_of_the_weights_at_that_step(data, tmp_path):
    train(data, tmp_path / "run", "TEST.LOSS_PERIOD", 2)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.json").read_text().splitlines()]
    (final,) = {line[LOSS] for line in lines if LOSS in line}
    assert final == pytest.approx(losses_of(data, tmp_path / "run/model_final.pth")[0], rel=1e-6)


def test_validation_losses_change_nothing_of_what_is_learned(data, tmp_path):
    for name, options in (("plain", ()), ("judged", ("TEST.LOSS_PERIOD", 2))):
        train(data, tmp_path / name, *options)
    plain, judged = final_weights(tmp_path / "plain"), final_weights(tmp_path / "judged")
    assert all(torch.equal(value, judged[name]) for name, value in plain.items())


@pytest.mark.parametrize("kind", ["tiny.yaml", "tiny_retinanet.yaml"])
@pytest.mark.parametrize("execution", ["dense", "auto"])
def test_a_detectors_losses_are_judged_without_a_trace(tmp_path, kind, execution):
    files = write_coco_folder(tmp_path, num_images=4)
    data = ["DATASETS.COCO_FORMAT", str([("toy", *files)]), "DATASETS.TEST", "('toy',)"]
    cfg = load_config(str(Path(TINY).with_name(kind)), [*data, "MODEL.SACT.EXECUTION", execution])
    torch.manual_seed(0)
    model = DetectionTrainer.build_model(cfg).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loader = DetectionTrainer.build_validation_loader(cfg, "toy")
    state = torch.get_rng_state()
    first, second = (mean_losses(model, loader) for _ in range(2))
    assert first == second and first["validation/loss_ponder"] > 0
    assert first[LOSS] == pytest.approx(sum(loss for name, loss in first.items() if name != LOSS))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(part.training for part in model.modules())
    with EventStorage(0):
        (sum(model(next(iter(loader))).values())).backward()  # and training goes on


def test_the_best_checkpoint_is_kept_and_survives_a_resumption(data, tmp_path):
    everything = ("SOLVER.CHECKPOINT_PERIOD", 1)
    train(data, tmp_path / "whole", *LOWEST, *everything)
    names = [*(f"model_{step:07d}.pth" for step in range(5)), "model_final.pth"]
    losses = losses_of(data, *(tmp_path / "whole" / name for name in names))
    best = read(tmp_path / "whole/model_best.pth")
    assert best["best"]["value"] == pytest.approx(min(losses), rel=1e-6)
    assert best["best"]["steps"] == losses.index(min(losses)) + 1
    assert (tmp_path / "whole/last_checkpoint").read_text() == "model_final.pth"
    train(data, tmp_path / "parts", *LOWEST, *everything, "SOLVER.MAX_ITER", 4)
    train(data, tmp_path / "parts", *LOWEST, *everything, resume=True)
    resumed = read(tmp_path / "parts/model_best.pth")
    assert resumed["best"] == best["best"]
    assert all(torch.equal(value, resumed["model"][name]) for name, value in best["model"].items())


def test_a_training_that_gets_no_better_ends(data, tmp_path, caplog):
    # At this learning rate nothing changes but the statistics of norms.
    options = ("SOLVER.BASE_LR", "1e-12", "TEST.EVAL_PERIOD", 1, "TEST.BEST_METRIC", "classification/accuracy")
    with caplog.at_level(logging.INFO):
        train(data, tmp_path / "run", *options, "TEST.PATIENCE", 2, "SOLVER.MAX_ITER", 30)
    found = read(tmp_path / "run/model_best.pth")["best"]
    steps = read(tmp_path / "run/model_final.pth")["iteration"] + 1
    assert steps == found["steps"] + 2 < 30
    assert f"Training ends: classification/accuracy has been no better than {found['value']:.4f}" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        train(data, tmp_path / "run", *options, "TEST.PATIENCE", 2, "SOLVER.MAX_ITER", 30, resume=True)
    assert "Training ends: " in caplog.text
    assert read(tmp_path / "run/model_final.pth")["iteration"] + 1 == steps


def test_a_metric_that_is_not_measured_is_named(data, tmp_path):
    options = ("TEST.EVAL_PERIOD", 2, "TEST.BEST_METRIC", "bbox/AP")
    with pytest.raises(InputError, match=r"TEST\.BEST_METRIC 'bbox/AP': .* classification/accuracy"):
        train(data, tmp_path / "run", *options)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("TEST.PATIENCE", 3), r"TEST\.PATIENCE 3 needs a TEST\.BEST_METRIC"),
        (("TEST.BEST_METRIC", "classification/accuracy"), r"needs a TEST\.EVAL_PERIOD above 0"),
        (("TEST.BEST_METRIC", LOSS, "TEST.EVAL_PERIOD", 1), r"needs a TEST\.LOSS_PERIOD above 0"),
        (("TEST.LOSS_PERIOD", 1, "DATASETS.TEST", "()"), r"TEST\.LOSS_PERIOD 1 needs images"),
    ],
)
def test_what_could_not_be_measured_is_one_line(data, options, named):
    with pytest.raises(InputError, match=named):
        check_training(config(data, *options))


def test_a_finished_training_says_so_in_one_line(data, tmp_path, caplog):
    train(data, tmp_path / "run")
    weights = (tmp_path / "run/model_final.pth").read_bytes()
    with caplog.at_level(logging.WARNING, "sact_det"):
        train(data, tmp_path / "run", "SOLVER.MAX_ITER", 4, resume=True)
    (line,) = [record.getMessage() for record in caplog.records if "Nothing is left" in record.getMessage()]
    assert "has done 6 steps, SOLVER.MAX_ITER is 4" in line
    assert (tmp_path / "run/model_final.pth").read_bytes() == weights


def test_memory_is_in_the_log_and_in_the_records(data, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        train(data, tmp_path / "run", "DATASETS.TEST", "()")
    (line,) = (tmp_path / "run/metrics.json").read_text().splitlines()
    assert 100 < json.loads(line)["max_memory_mb"] <= peak_memory(torch.device("cpu"))
    assert torch.cuda.is_available() or "M of the process" in caplog.text
