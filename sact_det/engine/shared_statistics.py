"""Moving statistics of norms that look at their own process's batch alone: one set of them for all processes."""

from typing import Iterator

import torch
import torch.distributed as dist
from detectron2.engine import HookBase
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from typing_extensions import override

from sact_det.network.norm import BatchNorm2d


class SharedStatistics(HookBase):
    """Behind every step, moving means and variances become their averages over the processes, in one all-reduce.

    An update is linear, so that these are the moving averages of what the batches of all processes have on average,
    whenever one looks. Every process then has the network that is evaluated and saved, and goes on from a checkpoint as
    if it had never stopped. What a step computes does not depend on it. With one process nothing is done.

    It stands before the hooks that evaluate and save.
    """

    @override
    def after_step(self) -> None:
        if dist.is_initialized() and dist.get_world_size() > 1:
            average_statistics(self.trainer.model)


@torch.no_grad()
def average_statistics(model: nn.Module) -> None:
    """Averages the moving statistics of all norms in training over the processes, which call it together.

    In double precision, so that statistics which are equal already ("SyncBN", whoever wrote it) stay as they are.
    """
    statistics = list(_own_statistics(model))
    if not statistics:
        return
    packed = torch.cat([values.double().flatten() for values in statistics])
    dist.all_reduce(packed)
    averages = (packed / dist.get_world_size()).split([values.numel() for values in statistics])
    for values, average in zip(statistics, averages):
        values.copy_(average.view_as(values))


def _own_statistics(model: nn.Module) -> Iterator[Tensor]:
    for norm in model.modules():
        shared = isinstance(norm, BatchNorm2d) and norm.synchronized
        if isinstance(norm, _BatchNorm) and norm.training and not shared:
            yield from (values for values in (norm.running_mean, norm.running_var) if values is not None)
