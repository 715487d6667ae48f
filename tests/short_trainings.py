"""Trainings of a few steps, and what is left of them."""

import os
import signal
from pathlib import Path
from typing import Optional, Union

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from torch import Tensor

from sact_det.engine.trainer import Trainer


class Kill(HookBase):
    """Kills the process without warning after a step."""

    def __init__(self, iteration: int):
        self.iteration = iteration

    def after_step(self) -> None:
        """Detectron2's interface."""
        if self.trainer.iter == self.iteration:
            os.kill(os.getpid(), signal.SIGKILL)


def train(trainer_class: type[Trainer], cfg: CfgNode, resume: bool = False, kill_at: Optional[int] = None) -> None:
    """Trains into OUTPUT_DIR, on one thread; fresh weights are the same in every process and run."""
    torch.set_num_threads(1)
    Path(cfg.OUTPUT_DIR).mkdir(exist_ok=True)
    torch.manual_seed(0)
    trainer = trainer_class(cfg)
    trainer.resume_or_load(resume=resume)
    if kill_at is not None:
        trainer.register_hooks([Kill(kill_at)])
    trainer.train()


def final_weights(output: Union[Path, str]) -> dict[str, Tensor]:
    """The state dict that a training ended with."""
    return torch.load(Path(output) / "model_final.pth", weights_only=True)["model"]


def fresh_parts(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the checkpointer said it started fresh."""
    (message,) = [r.getMessage() for r in caplog.records if "Starting fresh" in r.getMessage()]
    return message.partition("for them: ")[2].split(", ")
