"""Only so many checkpoints stay, those of the run before a resumption among them; nothing else is deleted."""

import short_trainings
import torch
from coco_folder import toy_config, write_coco_folder

from sact_det.detection.trainer import DetectionTrainer


def files_of(output):
    return sorted(path.name for path in output.glob("*.pth"))


def test_the_last_checkpoints_are_kept_and_a_resumed_run_counts_the_earlier_ones(tmp_path):
    files, output = write_coco_folder(tmp_path), tmp_path / "output"
    output.mkdir()
    for name in ("model_0000000.pth", "model_best.pth", "mine.pth"):  # of others
        torch.save({}, output / name)

    def train(steps, kept, resume):
        options = ("DATASETS.TRAIN", "('toy',)", "DATASETS.TEST", "()", "SOLVER.MAX_ITER", str(steps))
        periods = ("SOLVER.CHECKPOINT_PERIOD", "1", "SOLVER.CHECKPOINTS_KEPT", str(kept))
        cfg = toy_config(files, *options, *periods, "OUTPUT_DIR", str(output))
        short_trainings.train(DetectionTrainer, cfg, resume=resume)

    others = ["mine.pth", "model_best.pth", "model_final.pth"]
    train(4, 2, resume=False)
    assert files_of(output) == sorted([*others, "model_0000002.pth", "model_0000003.pth"])
    train(5, 2, resume=True)
    assert files_of(output) == sorted([*others, "model_0000003.pth", "model_0000004.pth"])
    train(7, 0, resume=True)
    last = [f"model_000000{step}.pth" for step in (3, 4, 5, 6)]
    assert files_of(output) == sorted([*others, *last])
    train(8, 1, resume=True)
    assert files_of(output) == sorted([*others, "model_0000007.pth"])
