"""SOLVER.EPOCHS: how long a training is follows the data set, and everything else follows that."""

import logging
import math
import re
from pathlib import Path

import pytest
import torch
from coco_folder import toy_config, write_coco_folder

import sact_det.detection  # noqa: F401
from sact_det.base.errors import InputError
from sact_det.detection.trainer import DetectionTrainer
from sact_det.engine.schedule import follow_epochs
from sact_det.tasks import load_config, task_of
from sact_det.weights.published import SCHEME, find_published

OWN_DATA = Path(__file__).parents[2] / "configs/own_data"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_coco_folder(tmp_path_factory.mktemp("toy"))


def test_lengths_stay_in_proportion_and_are_printed(files, caplog):
    lengths = ("SOLVER.MAX_ITER", "100", "SOLVER.STEPS", "(60, 80)", "SOLVER.WARMUP_ITERS", "10")
    periods = ("SOLVER.CHECKPOINT_PERIOD", "1", "TEST.EVAL_PERIOD", "0", "VIS_PERIOD", "50")
    cfg = toy_config(files, *lengths, *periods, "SOLVER.EPOCHS", "2.5", "SOLVER.IMS_PER_BATCH", "4")
    with caplog.at_level(logging.INFO, "sact_det"):
        scheduled = follow_epochs(cfg, 32)
    solver = scheduled.SOLVER
    assert (solver.MAX_ITER, solver.STEPS, solver.WARMUP_ITERS) == (20, (12, 16), 2)
    assert (solver.CHECKPOINT_PERIOD, scheduled.TEST.EVAL_PERIOD, scheduled.VIS_PERIOD) == (1, 0, 10)
    assert "SOLVER.EPOCHS 2.5: 32 images in steps of 4: SOLVER.MAX_ITER 20, SOLVER.STEPS (12, 16)" in caplog.text
    assert cfg.SOLVER.MAX_ITER == 100


def test_without_epochs_nothing_changes(files):
    cfg = toy_config(files)
    assert follow_epochs(cfg, 32) is cfg


def test_a_training_has_the_length_that_its_images_ask_for(files, tmp_path):
    options = ("SOLVER.EPOCHS", "1", "SOLVER.IMS_PER_BATCH", "2", "DATASETS.TRAIN", "('toy',)")
    cfg = toy_config(files, *options, "OUTPUT_DIR", str(tmp_path))
    trainer = task_of(cfg).trainer(cfg)
    assert trainer.max_iter == len(trainer.data_loader.dataset) // 2 == trainer.cfg.SOLVER.MAX_ITER


@pytest.mark.parametrize("epochs", ["-1", "1e999"])
def test_what_is_no_number_of_epochs_is_refused(files, epochs):
    with pytest.raises(InputError, match=re.escape("SOLVER.EPOCHS must")):
        toy_config(files, "SOLVER.EPOCHS", epochs)


@pytest.mark.parametrize("name", ["plain_R_50_C4", "sact_R_50_C4"])
def test_the_configs_for_own_data_start_from_published_weights_and_freeze_no_fresh_norm(files, name):
    json_file, images = files
    data = ["DATASETS.COCO_FORMAT", f"[('own', '{json_file}', '{images}')]", "DATASETS.TRAIN", "('own',)"]
    cfg = load_config(str(OWN_DATA / f"{name}.yaml"), [*data, "DATASETS.TEST", "('own',)"])
    assert find_published(cfg.MODEL.WEIGHTS.removeprefix(SCHEME)).conversion == "tf-slim"
    assert cfg.MODEL.SACT.HALTING_NORM != "FrozenBN" and cfg.MODEL.SACT.BOX_HEAD_HALTING_NORM != "FrozenBN"
    assert cfg.MODEL.SACT.EXECUTION == "auto" and cfg.MODEL.ROI_HEADS.NUM_CLASSES == 3
    assert 4 * cfg.SOLVER.CHECKPOINT_PERIOD <= cfg.SOLVER.MAX_ITER and cfg.SOLVER.EPOCHS > 0


def test_the_learning_rate_warms_up_and_falls_along_a_cosine(files):
    lengths = ("SOLVER.MAX_ITER", "20", "SOLVER.WARMUP_ITERS", "5", "SOLVER.WARMUP_FACTOR", "0.01")
    rates = ("SOLVER.BASE_LR", "0.1", "SOLVER.BASE_LR_END", "0.02", "SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR")
    cfg = toy_config(files, *lengths, *rates)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.SOLVER.BASE_LR)
    schedule = DetectionTrainer.build_lr_scheduler(cfg, optimizer)
    found = []
    for _ in range(20):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    cosine = [0.02 + 0.08 * (1 + math.cos(math.pi * step / 20)) / 2 for step in range(20)]
    begin = 0.01 * cosine[0]
    warming = [begin + (cosine[5] - begin) * step / 5 for step in range(5)]
    assert found == pytest.approx([*warming, *cosine[5:]])
