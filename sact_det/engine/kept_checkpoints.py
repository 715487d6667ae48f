"""Only the last checkpoints of a training are kept, where disks are small."""

import re
from pathlib import Path

from detectron2.engine.hooks import PeriodicCheckpointer
from typing_extensions import override

_STEP = re.compile(r"model_(\d+)\.pth")


class KeptCheckpoints(PeriodicCheckpointer):
    """Detectron2's PeriodicCheckpointer, which counts the checkpoints that a resumed run has left behind, too.

    model_final.pth and model_best.pth are never deleted.

    Args:
        periodic: what it stands in for.
        most: checkpoints that are kept, at least 1.
    """

    def __init__(self, periodic: PeriodicCheckpointer, most: int):
        super().__init__(periodic.checkpointer, periodic.period, max_to_keep=most)

    @override
    def before_train(self) -> None:
        super().before_train()
        steps = {path: _STEP.fullmatch(path.name) for path in Path(self.checkpointer.save_dir).glob("model_*.pth")}
        ours = sorted((int(step[1]), path) for path, step in steps.items() if step)
        # A run that begins anew leaves what others have put into the folder.
        self.recent_checkpoints = [str(path) for step, path in ours if step < self.trainer.start_iter]
        for path in self.recent_checkpoints[: -self.max_to_keep]:
            Path(path).unlink(missing_ok=True)
        self.recent_checkpoints = self.recent_checkpoints[-self.max_to_keep :]
