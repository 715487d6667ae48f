"""Trainings of a few steps, and what is left of them."""

import os
import signal
from pathlib import Path
from typing import Any, Optional, Union

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from torch import Tensor

from sact_det.engine.trainer import Trainer
from sact_det.execution import perforated
from sact_det.execution.cpu import library
from sact_det.execution.cpu.training import TrainingRun

# With norms that the kernels for CPUs can train under.
IN_KERNELS = (
    *("MODEL.SACT.EXECUTION", "auto", "MODEL.SACT.NORM", "FrozenBN", "MODEL.SACT.HALTING_NORM", "MovingBN"),
    *("SOLVER.BASE_LR", "0.001"),
)
NEEDS_KERNELS = pytest.mark.skipif(library.why_unavailable() is not None, reason=str(library.why_unavailable()))


class Kill(HookBase):
    """Kills the process without warning after a step."""

    def __init__(self, iteration: int):
        self.iteration = iteration

    def after_step(self) -> None:
        """Detectron2's interface."""
        if self.trainer.iter == self.iteration:
            os.kill(os.getpid(), signal.SIGKILL)


def train(
    trainer_class: type[Trainer], cfg: CfgNode, resume: bool = False, kill_at: Optional[int] = None, threads: int = 1
) -> None:
    """Trains into OUTPUT_DIR; fresh weights are the same in every process and run."""
    torch.set_num_threads(threads)
    Path(cfg.OUTPUT_DIR).mkdir(exist_ok=True)
    torch.manual_seed(0)
    trainer = trainer_class(cfg)
    trainer.resume_or_load(resume=resume)
    if kill_at is not None:
        trainer.register_hooks([Kill(kill_at)])
    trainer.train()
    torch.set_num_threads(1)


def count_runs_in_kernels(monkeypatch: pytest.MonkeyPatch) -> list[TrainingRun]:
    """A list that grows with every block that is trained in kernels."""
    runs: list[TrainingRun] = []

    def start(*arguments: Any) -> TrainingRun:
        runs.append(TrainingRun(*arguments))
        return runs[-1]

    monkeypatch.setattr(perforated, "TrainingRun", start)
    return runs


def final_weights(output: Union[Path, str]) -> dict[str, Tensor]:
    """The state dict that a training ended with."""
    return torch.load(Path(output) / "model_final.pth", weights_only=True)["model"]


def fresh_parts(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the checkpointer said it started fresh."""
    (message,) = [r.getMessage() for r in caplog.records if "Starting fresh" in r.getMessage()]
    return message.partition("for them: ")[2].split(", ")
