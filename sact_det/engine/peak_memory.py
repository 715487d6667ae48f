"""How much memory a training takes, in its log: of the GPU, or of the process where it computes on CPUs."""

import resource
import sys

import torch
from detectron2.engine import HookBase
from detectron2.utils.events import CommonMetricPrinter, get_event_storage
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


class MemoryPrinter(CommonMetricPrinter):
    """Detectron2's line in the log, which names memory on GPUs alone, with that of a process on CPUs."""

    @override
    def write(self) -> None:
        super().write()
        storage = get_event_storage()
        if not torch.cuda.is_available() and storage.iter != self._max_iter and NAME in storage.histories():
            self.logger.info(" iter: %d  max_mem: %.0fM of the process", storage.iter, storage.history(NAME).latest())
