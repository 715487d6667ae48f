"""Where a training stops being one: losses or weights that are no finite numbers."""

import math
from typing import Mapping

import torch
import torch.distributed as dist
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import Tensor
from typing_extensions import override


def check_losses(losses: Mapping[str, Tensor]) -> None:
    """Raises FloatingPointError, in every process, if in one of them a loss (a scalar by its name) is not finite."""
    values = torch.stack([loss.detach().float() for loss in losses.values()])
    diverged = (~values.isfinite()).any().float()
    if dist.is_initialized():
        dist.all_reduce(diverged, dist.ReduceOp.MAX)
    if diverged:
        found = {name: value for name, value in zip(losses, values.tolist()) if not math.isfinite(value)}
        found = {name: value for process in comm.all_gather(found) for name, value in process.items()}
        raise FloatingPointError(", ".join(f"{name} is {value:g}" for name, value in sorted(found.items())))


def check_weights(state_dict: Mapping[str, Tensor]) -> None:
    """Raises FloatingPointError, naming the first, if values are NaN or infinite."""
    found = [name for name, value in state_dict.items() if value.is_floating_point() and not value.isfinite().all()]
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise FloatingPointError(f"{found[0]}{more} holds NaN or infinite values")


class FiniteCheckpoints(HookBase):
    """Ends a training in every process, before the main one would write weights that are not finite.

    There is a checkpoint every `period` steps and behind the last one.

    Raises:
        FloatingPointError: a weight is NaN or infinite behind a step with a checkpoint.
    """

    def __init__(self, period: int):
        self._period = period

    @override
    def after_step(self) -> None:
        behind = self.trainer.iter + 1
        if behind % self._period == 0 or behind >= self.trainer.max_iter:
            check_weights(self.trainer.checkpointer.model.state_dict())
