"""Gradients accumulated over the parts of a step: those of the whole batch, and of as many more processes."""

import coco_folder
import pytest
import short_trainings
import torch
from coco_folder import TINY, write_coco_folder
from detectron2.utils import comm
from labelled_folders import write_class_folders
from short_trainings import final_weights
from tiny_classifier import config

from sact_det.base.errors import InputError
from sact_det.classification.trainer import ClassificationTrainer
from sact_det.data.stream import check_batch_size
from sact_det.detection.trainer import DetectionTrainer
from sact_det.engine.launch import launch
from sact_det.tasks import load_config

FROZEN = ("MODEL.SACT.NORM", "FrozenBN", "MODEL.SACT.HALTING_NORM", "FrozenBN", "MODEL.SACT.EXECUTION", "dense")
# Every anchor and proposal counts, so that nothing is left to the samplers, and images have as many of them.
ALL_COUNT = (
    *("MODEL.RPN.BATCH_SIZE_PER_IMAGE", "5000", "MODEL.RPN.POSITIVE_FRACTION", "1.0"),
    *("MODEL.RPN.POST_NMS_TOPK_TRAIN", "5", "MODEL.ROI_HEADS.POSITIVE_FRACTION", "1.0"),
)


@pytest.fixture(autouse=True)
def images_of_one_size(monkeypatch):
    """A batch has anchors in the padding of its smaller images, where a part without a larger one has none."""
    monkeypatch.setattr(coco_folder, "SIZES", ((96, 128),))


def classifier_config(data, output, *more):
    options = ("SOLVER.IMS_PER_BATCH", 6, "SOLVER.MAX_ITER", 3, "DATASETS.TEST", "()", "OUTPUT_DIR", output)
    return config(data, *FROZEN, *options, *more)


def detector_options(folder, output, *more):
    json_file, images = write_coco_folder(folder)
    return [
        *("DATASETS.COCO_FORMAT", f"[('toy', '{json_file}', '{images}')]", "DATASETS.TRAIN", "('toy',)"),
        *("DATASETS.TEST", "()", "OUTPUT_DIR", str(output), "SOLVER.IMS_PER_BATCH", "4", "SOLVER.MAX_ITER", "2"),
        *("SOLVER.WARMUP_ITERS", "0", "INPUT.MIN_SIZE_TRAIN", "(96,)", "MODEL.SACT.TAU", "0.5", *FROZEN, *more),
    ]


def detector_config(*arguments):
    return load_config(TINY, detector_options(*arguments))


def assert_equal_steps(one, two, start, share):
    """Weights moved, and alike to this share of the largest movement of a tensor."""
    assert any(not torch.equal(one[name], start[name]) for name in start)
    for name, value in one.items():
        moved = (value - start[name]).abs().max().item() if value.is_floating_point() else 0
        torch.testing.assert_close(two[name], value, atol=max(share * moved, 1e-7), rtol=1e-6, msg=name)


def start_of(trainer_class, cfg, path):
    """The same random weights for every run, norms included; returns them and what names them in a config."""
    torch.manual_seed(0)
    start = trainer_class.build_model(cfg).state_dict()
    torch.save({"model": start}, path)
    return start, ("MODEL.WEIGHTS", str(path))


def test_a_classifier_learns_in_parts_what_it_learns_at_once(tmp_path):
    data, runs = write_class_folders(tmp_path / "data"), {}
    start, weights = start_of(ClassificationTrainer, classifier_config(data, tmp_path), tmp_path / "start.pth")
    for parts in (1, 3):
        one_step = ("SOLVER.MAX_ITER", 1)  # several would amplify what rounding does
        cfg = classifier_config(data, tmp_path / f"{parts}", *weights, "SOLVER.ACCUMULATION_STEPS", parts, *one_step)
        short_trainings.train(ClassificationTrainer, cfg)
        runs[parts] = final_weights(cfg.OUTPUT_DIR)
    assert_equal_steps(runs[1], runs[3], start, 1e-4)


def test_a_detector_learns_in_parts_what_it_learns_at_once(tmp_path):
    start, weights = start_of(DetectionTrainer, detector_config(tmp_path, tmp_path), tmp_path / "start.pth")
    runs = {}
    for parts in (1, 2, 4):
        in_parts = ("SOLVER.ACCUMULATION_STEPS", str(parts))
        cfg = detector_config(tmp_path, tmp_path / f"{parts}", *ALL_COUNT, *weights, *in_parts)
        short_trainings.train(DetectionTrainer, cfg)
        runs[parts] = final_weights(cfg.OUTPUT_DIR)
    for parts in (2, 4):
        assert_equal_steps(runs[1], runs[parts], start, 1e-3)


def train_in_process(options):
    short_trainings.train(DetectionTrainer, load_config(TINY, options))
    comm.synchronize()


def test_parts_draw_what_more_processes_draw(tmp_path):
    """Anchors and proposals are sampled: two processes in two parts are one in four, and not one at once."""
    start, weights = start_of(DetectionTrainer, detector_config(tmp_path, tmp_path), tmp_path / "start.pth")
    weights += ("SOLVER.MAX_ITER", "1")
    runs = {}
    for name, parts in (("at once", "1"), ("in parts", "4")):
        cfg = detector_config(tmp_path, tmp_path / name, *weights, "SOLVER.ACCUMULATION_STEPS", parts)
        short_trainings.train(DetectionTrainer, cfg)
        runs[name] = final_weights(cfg.OUTPUT_DIR)
    options = detector_options(tmp_path, tmp_path / "processes", *weights, "SOLVER.ACCUMULATION_STEPS", "2")
    launch(train_in_process, 2, dist_url="auto", args=(options,))
    processes = final_weights(tmp_path / "processes")
    assert_equal_steps(processes, runs["in parts"], start, 1e-3)
    with pytest.raises(AssertionError):
        assert_equal_steps(processes, runs["at once"], start, 1e-3)


def test_losses_in_the_log_are_means_over_the_parts(tmp_path):
    _, weights = start_of(DetectionTrainer, detector_config(tmp_path, tmp_path), tmp_path / "start.pth")
    courses = []
    for parts in ("1", "4"):
        in_parts = ("SOLVER.ACCUMULATION_STEPS", parts)
        cfg = detector_config(tmp_path, tmp_path / parts, *ALL_COUNT, *weights, *in_parts)
        (tmp_path / parts).mkdir()
        trainer = DetectionTrainer(cfg)
        trainer.resume_or_load(resume=False)
        trainer.train()
        courses.append({name: history.values() for name, history in trainer.storage.histories().items()})
    for name in ("total_loss", "loss_rpn_cls", "loss_box_reg", "loss_ponder"):
        (one, _), (four, _) = courses[0][name][0], courses[1][name][0]
        assert four == pytest.approx(one, rel=1e-4), name


def test_a_batch_that_cannot_be_dealt_out_is_one_line():
    check_batch_size(12, 2, 3)
    with pytest.raises(InputError, match=r"SOLVER\.IMS_PER_BATCH .* SOLVER\.ACCUMULATION_STEPS, 2 x 4; got 12"):
        check_batch_size(12, 2, 4)
