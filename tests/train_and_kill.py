"""tools/train_net.py one of whose processes, of rank $KILLED or the second, is killed behind its fourth step, unless
torchrun has restarted it.
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))  # its functions are called in other processes by name

import train_net
from detectron2.engine import HookBase
from detectron2.utils import comm

from sact_det.engine.trainer import Trainer

FOURTH = 3


class KillOne(HookBase):
    def after_step(self) -> None:
        """Detectron2's interface."""
        restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
        if self.trainer.iter == FOURTH and comm.get_rank() == int(os.environ.get("KILLED", 1)) and not restarted:
            os.kill(os.getpid(), signal.SIGKILL)


build_hooks = Trainer.build_hooks
Trainer.build_hooks = lambda self: [*build_hooks(self), KillOne()]

if __name__ == "__main__":
    train_net.invoke_main()
