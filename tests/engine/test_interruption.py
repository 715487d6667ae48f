"""A training that is asked to end writes a checkpoint, from which it goes on as if nothing had been."""

import logging
import os
import signal

import pytest
import torch
from coco_folder import toy_config, write_coco_folder
from detectron2.engine import HookBase

import sact_det.detection  # noqa: F401
from sact_det.base.processes import command_line
from sact_det.detection.trainer import DetectionTrainer
from sact_det.engine.interruption import CheckpointAtSignal

STEPS = 4
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 138}


class Send(HookBase):
    """Sends this process a signal, so many times, in the middle of a step."""

    def __init__(self, number, step, times=1):
        self.number, self.step, self.times = number, step, times

    def before_step(self):
        if self.trainer.iter == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_coco_folder(tmp_path_factory.mktemp("toy"))


def train(files, output, *hooks, resume=False):
    output.mkdir(exist_ok=True)
    options = ("DATASETS.TRAIN", "('toy',)", "DATASETS.TEST", "()", "SOLVER.MAX_ITER", str(STEPS))
    cfg = toy_config(files, *options, "SOLVER.CHECKPOINT_PERIOD", "100", "OUTPUT_DIR", str(output))
    torch.manual_seed(0)
    trainer = DetectionTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.register_hooks([*hooks])
    trainer.train()


def end_of(files, output, *hooks):
    """The exit code of a training that ends by a signal."""
    with pytest.raises(SystemExit) as end, command_line():
        train(files, output, *hooks)
    return end.value.code


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_a_training_that_is_asked_to_end_goes_on_where_it_was(files, tmp_path, number, capsys, caplog):
    handlers = [signal.getsignal(one) for one in CODES]
    with caplog.at_level(logging.INFO, "sact_det"):
        assert end_of(files, tmp_path / "asked", Send(number, 1)) == CODES[number]
    assert f"Stopped behind step 2 of {STEPS}; --resume goes on from there" in caplog.text
    assert [signal.getsignal(one) for one in CODES] == handlers
    assert (tmp_path / "asked/last_checkpoint").read_text() == "model_0000001.pth"
    train(files, tmp_path / "asked", resume=True)
    train(files, tmp_path / "whole")
    asked, whole = (
        torch.load(tmp_path / name / "model_final.pth", weights_only=True)["model"] for name in ("asked", "whole")
    )
    assert asked.keys() == whole.keys() and all(torch.equal(asked[name], whole[name]) for name in whole)


def test_asked_twice_it_ends_at_once_and_writes_nothing(files, tmp_path):
    assert end_of(files, tmp_path / "output", Send(signal.SIGTERM, 1, times=2)) == CODES[signal.SIGTERM]
    assert not list((tmp_path / "output").glob("*.pth"))


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        hook = CheckpointAtSignal()
        hook.before_train()
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
        hook.after_train()
    finally:
        signal.signal(signal.SIGUSR1, before)
