"""What the runs of a block in training share, whether C++ computes them or Triton.

Features do not go through PyTorch's graph: kernels read and write rows, [., C], that PyTorch does not know of. What it
knows are *placeholders*, tensors [P, C] of stride 0, without memory of their own, which stand for the state and for the
output so far. The gradient of a placeholder is a real tensor: that of the features it stands for. Units and halting
branches form a chain in which one node reads each placeholder, so that a gradient can be updated in place. The sums of
the state over each image, which branches read, and all that is [N, H, W] are PyTorch's as usual.

Shape shorthand in this module:
    N: images; C: channels; H, W: feature map, padding included; P = N * H * W.
"""

from abc import abstractmethod
from typing import Any, Optional, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from typing_extensions import override

from sact_det.base.precision import exact_float32
from sact_det.execution.folded import keeps_shape, why_not_foldable
from sact_det.network.branch import SpatialHalting
from sact_det.network.halting_rule import SACT
from sact_det.network.norm import learns_from_batch, norm_affine
from sact_det.network.plan import PlannedBlock
from sact_det.network.resnet_v2 import BottleneckUnit
from sact_det.network.run import TensorRun
from sact_det.network.unit import HaltingBranch, ResidualUnit


def why_not_trained(block: PlannedBlock, units: Sequence[ResidualUnit]) -> Optional[str]:
    """Why kernels for training cannot evaluate units of a block, whatever their input; or None."""
    if type(block.rule) is not SACT:
        return "those for training are for SACT"
    for unit in units:
        refused = why_not_foldable(unit)
        if refused is not None:
            return refused
        assert isinstance(unit, BottleneckUnit)
        if any(map(_learns, (unit.preact, unit.norm1, unit.norm2))):
            return "norms that learn need PyTorch: freeze them (NORM FrozenBN)"
        if unit is not block.units[0] and not keeps_shape(unit):
            return "units behind the first must keep the shape and must not be dilated"
    return None


def _learns(norm: Any) -> bool:
    return learns_from_batch(norm) or norm.weight.requires_grad or norm.bias.requires_grad


@torch.no_grad()
def fixed_affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and shift of a norm that does not learn: float32 [C], computed in double precision."""
    scale, shift = norm_affine(norm, torch.float64)
    return scale.float(), shift.float()


def placeholder(shape: Sequence[int], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor [P, C] of stride 0, whose one number means nothing, in the place of features; dtype: of its gradient."""
    return torch.empty_strided(shape, (0, 0), dtype=dtype, device=device)


class ResultFunction(torch.autograd.Function):
    """The output of a block in the graph: a placeholder becomes the features it stands for."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, features: Tensor) -> Tensor:
        """output: placeholder; features: [N, C, H, W], channels last; returned as they are, now part of the graph."""
        ctx.mark_dirty(features)
        return features

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """gradient: [N, C, H, W] -> that of the placeholder, [P, C]."""
        rows = gradient.permute(0, 2, 3, 1).resolve_neg().contiguous()
        return rows.view(-1, gradient.shape[1]), None


class RowsTrainingRun(TensorRun):
    """A run of SACT in training whose features are rows that kernels read and write.

    The output is a sum of residuals, weighted by the open share of a position.

    Attributes:
        _output, _out: the output so far: its placeholder, and the features, [N, C, H, W], channels last. No view of
            other memory: PyTorch treats those differently where they enter its graph.
        _sums, _counts: the state summed over each image, [N, C], and its positions, [N, 1].
        _squares: float64 [C], sums of squares of the state over all positions, for norms that learn their moving
            statistics; or None.
        _remaining: float32 [N, H, W], the open share of each position; None before the first unit's weight.
    """

    _output: Optional[Tensor]
    _out: Tensor
    _sums: Optional[Tensor]
    _counts: Tensor
    _squares: Optional[Tensor]
    _remaining: Optional[Tensor]

    @abstractmethod
    def _local_logits(self, taps: Tensor, bias: Tensor) -> Tensor:
        """The local convolution of a halting branch behind the unit evaluated last.

        Args:
            taps, bias: float32 [TAPS, C] and [TAPS], its norm folded in.

        Returns:
            float32 [N, H, W], zero where the unit was not evaluated.
        """

    @override
    def scores(self, branch: HaltingBranch) -> Tensor:
        assert isinstance(branch, SpatialHalting) and self._sums is not None
        if self._squares is not None:
            total = self._sums.detach().double().sum(0)
            branch.observe(self._counts.sum().double(), total, self._squares)
        with exact_float32(self._out.device):
            scale, shift = norm_affine(branch.local_norm)
            weights = branch.local_conv.weight[0].flatten(1)
            taps, bias = (scale[:, None] * weights).T.contiguous(), shift @ weights
            logits = self._local_logits(taps, bias)
            pooled = (self._sums / self._counts).float()[:, :, None, None]
            return torch.sigmoid(logits + branch.offset(pooled)[:, None, None])

    @override
    def add(self, weight: Tensor) -> None:
        assert self._remaining is not None
        self._remaining = (self._remaining - weight).contiguous()

    @override
    def result(self) -> Tensor:
        return ResultFunction.apply(self._output, self._out)
