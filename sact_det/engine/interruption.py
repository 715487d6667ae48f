"""A training that is asked to end writes a checkpoint first, so that it can go on from there."""

import logging
import os
import signal
import threading
from types import FrameType
from typing import Any, Optional

import torch
import torch.distributed as dist
from detectron2.engine import HookBase
from detectron2.utils import comm

from sact_det.base.torchrun import place_by_torchrun

# Ctrl-C; what schedulers send before they kill a job; what SLURM can be told to send first (sbatch --signal).
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

logger = logging.getLogger(__name__)


class CheckpointAtSignal(HookBase):
    """At a signal the step is finished, a checkpoint is written, and then the signal does what it does otherwise.

    The same signal a second time does it at once, but under torchrun: it passes on to its processes what a scheduler
    has sent to them already, and kills those that have not ended half a minute later. Processes of one training end
    behind the same step, whichever of them was asked: they agree in one small sum a step.
    """

    def __init__(self) -> None:
        self._asked = 0
        self._before: dict[int, Any] = {}

    def before_train(self) -> None:
        """Detectron2's interface."""
        if threading.current_thread() is not threading.main_thread():
            return  # signals are not for it
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._ask)

    def after_train(self) -> None:
        """Detectron2's interface."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def after_step(self) -> None:
        """Detectron2's interface. Raises what the signal's own handler raises, or SystemExit, behind the checkpoint."""
        number = self._of_all_processes()
        if not number:
            return
        step = self.trainer.iter
        if step + 1 < self.trainer.max_iter:  # behind the last step comes a checkpoint in any case
            self.trainer.checkpointer.save(f"model_{step:07d}", iteration=step)
            logger.info("Stopped behind step %d of %d; --resume goes on from there", step + 1, self.trainer.max_iter)
        self._end(number)

    def _ask(self, number: int, frame: Optional[FrameType]) -> None:
        if self._asked == number and not place_by_torchrun(os.environ):
            self._end(number)
        self._asked = number

    def _of_all_processes(self) -> int:
        """The signal that this process, or another one, was sent; 0: none."""
        if comm.get_world_size() == 1:
            return self._asked
        asked = torch.tensor(self._asked)
        dist.all_reduce(asked, dist.ReduceOp.MAX, group=comm._get_global_gloo_group())
        return int(asked)

    def _end(self, number: int) -> None:
        handler = self._before.get(number)
        self.after_train()
        if callable(handler):
            handler(number, None)
        raise SystemExit(128 + number)  # as shells have it
