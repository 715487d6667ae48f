"""The one way in which norms talk to other processes: sums over the positions of all of them."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def spans_processes() -> bool:
    """Whether there are processes beside this one."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class _SumOfProcesses(torch.autograd.Function):
    """What all processes have, added up, and gradients likewise: torch's own is deprecated, fvcore's gathers copies."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        """own: of one shape in all processes."""
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """gradient: of the sum, as this process uses it."""
        return _SumOfProcesses.apply(gradient.contiguous())


def of_all_processes(count: Tensor, total: Tensor, squares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and biased variance over the positions of all processes; differentiable.

    It takes one sum of float64 [1 + 2C]. Processes may run a block in different ways, depending on where positions
    halt (execution "auto"); the collectives must be the same.

    Args:
        count: float64 [], number of positions of this process; 0 is no error.
        total, squares: float64 [C], sums of the features and of their squares over these positions.
    """
    if spans_processes():
        packed = _SumOfProcesses.apply(torch.cat([count[None], total, squares]))
        count, (total, squares) = packed[0], packed[1:].chunk(2)
    mean = total / count.clamp(min=1)
    return count, mean, (squares / count.clamp(min=1) - mean.square()).clamp(min=0)
