"""The line of a step in the log and on the terminal."""

from typing import Optional

import torch
from detectron2.utils.events import CommonMetricPrinter, EventStorage, get_event_storage
from typing_extensions import override

from sact_det.engine.logged import FLOPS_PERCENT, UNITS
from sact_det.engine.peak_memory import NAME as MEMORY


class StepPrinter(CommonMetricPrinter):
    """Detectron2's line: time that is left, losses, seconds, learning rate, memory; and between them what images took.

    "flops" are those of the extractor (of a classifier: the network) in percent of the plain one's; "units" are those
    that an image's positions evaluated on average, of all that there are. As losses are, both are medians over the last
    steps.

    Args:
        max_iter: steps of the training.
        units: of the extractor, in all blocks.
    """

    def __init__(self, max_iter: int, units: int):
        super().__init__(max_iter)
        self._units = units

    @override
    def write(self) -> None:
        storage = get_event_storage()
        if storage.iter == self._max_iter:  # as there: the training is done
            return
        eta = self._get_eta(storage)
        words = [f"eta: {eta}"] if eta else []
        words.append(f"iter: {storage.iter}")
        words += [f"{name}: {self._median(storage, name):.4g}" for name in storage.histories() if "loss" in name]
        if FLOPS_PERCENT in storage.histories():
            words.append(f"flops: {self._median(storage, FLOPS_PERCENT):.1f}%")
        if UNITS in storage.histories():
            words.append(f"units: {self._median(storage, UNITS):.1f} of {self._units}")
        words += self._seconds(storage)
        rate = self._latest(storage, "lr")
        words.append(f"lr: {'N/A' if rate is None else f'{rate:.5g}'}")
        memory = self._latest(storage, MEMORY)
        whose = "" if torch.cuda.is_available() else " of the process"
        words += [] if memory is None else [f"max_mem: {memory:.0f}M{whose}"]
        self.logger.info(" %s", "  ".join(words))

    def _median(self, storage: EventStorage, name: str) -> float:
        return storage.history(name).median(storage.count_samples(name, self._window_size))

    @staticmethod
    def _latest(storage: EventStorage, name: str) -> Optional[float]:
        return storage.history(name).latest() if name in storage.histories() else None

    def _seconds(self, storage: EventStorage) -> list[str]:
        words = []
        for name in ("time", "data_time"):
            latest = self._latest(storage, name)
            if latest is not None:
                history, window = storage.history(name), storage.count_samples(name, self._window_size)
                mean = history.global_avg() if name == "time" else history.avg(window)
                words += [f"{name}: {mean:.4f}", f"last_{name}: {latest:.4f}"]
        return words
