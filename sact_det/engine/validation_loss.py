"""The losses of a training on images that it does not learn from, now and then."""

import contextlib
import zlib
from contextlib import AbstractContextManager
from typing import Any, Callable, Iterable, Iterator

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from typing_extensions import override

PREFIX = "validation/"


class ValidationLoss(HookBase):
    """Logs "validation/total_loss" and every single loss every `period` steps, and behind the last one.

    Losses are those of training, on images as evaluations see them, each alone, and means over images. What the model
    draws is a function of the image. Nothing is learned: norms take their moving statistics and leave them as they
    are, like all other buffers.

    Args:
        period: in steps.
        batches: of this process: lists of inputs of the model, with what they are to be judged by. Asked for anew every
            time.
        averaged: a context in which the model has the weights that are to be judged.
    """

    def __init__(
        self,
        period: int,
        batches: Callable[[], Iterable[list[dict[str, Any]]]],
        averaged: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
    ):
        self._period, self._batches, self._averaged = period, batches, averaged

    @override
    def after_step(self) -> None:
        steps = self.trainer.iter + 1
        if steps % self._period == 0 or steps == self.trainer.max_iter:
            with self._averaged():
                means = mean_losses(self.trainer.checkpointer.model, self._batches())
            self.trainer.storage.put_scalars(**means, smoothing_hint=False)


def mean_losses(model: nn.Module, batches: Iterable[list[dict[str, Any]]]) -> dict[str, float]:
    """The mean losses over the images of all processes, which call it together; {} if there are none.

    Args:
        model: in training mode, without DistributedDataParallel's wrapper.
        batches: of this process.
    """
    rows: list[tuple[str, dict[str, float]]] = []
    with EventStorage(1), torch.random.fork_rng():  # 1: a step without pictures
        for image in (image for batch in batches for image in batch):
            torch.manual_seed(zlib.crc32(str(image["image_id"]).encode()))
            with _as_it_is(model):
                # With gradients, though nobody takes them: a part that has a price asks for them.
                losses = {name: float(loss.detach()) for name, loss in model([image]).items()}
            rows.append((image["file_name"], losses))
    everything = sorted((row for part in comm.all_gather(rows) for row in part), key=lambda row: row[0])
    sums: dict[str, float] = {}
    for _, losses in everything:  # in one order, whoever processed them
        for name, loss in (*losses.items(), ("total_loss", sum(losses.values()))):
            sums[name] = sums.get(name, 0.0) + loss
    return {f"{PREFIX}{name}": value / len(everything) for name, value in sums.items()}


@contextlib.contextmanager
def _as_it_is(model: nn.Module) -> Iterator[None]:
    """Norms are as in evaluation; buffers are afterwards what they were before."""
    norms = [part for part in model.modules() if isinstance(part, _BatchNorm) and part.training]
    buffers = [(part, *one, one[1].clone()) for part in model.modules() for one in part.named_buffers(recurse=False)]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()
        for part, name, buffer, before in buffers:
            buffer.copy_(before)
            setattr(part, name, buffer)  # Detectron2 puts new ones in the places of some
