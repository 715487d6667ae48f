"""How much memory a training takes, in its log: of the GPU, or of the process where it computes on CPUs."""

import resource
import sys

import torch
from detectron2.engine import HookBase
from typing_extensions import override

MEGABYTE = 2**20
NAME = "max_memory_mb"
_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes


def peak_memory(device: torch.device) -> float:
    """The most that was allocated on a GPU, or that the process has had resident, so far, in MB (2^20 bytes).

    Loading processes are not counted.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEGABYTE
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT / MEGABYTE


class PeakMemory(HookBase):
    """Puts `peak_memory` behind every step into the storage, as "max_memory_mb": for metrics.json and TensorBoard."""

    @override
    def after_step(self) -> None:
        device = next(self.trainer.model.parameters()).device
        self.trainer.storage.put_scalar(NAME, peak_memory(device), smoothing_hint=False)
