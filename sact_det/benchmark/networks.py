"""What is timed: consecutive blocks of an adaptive network, and the same units as a plain one."""

import copy
import math
from dataclasses import dataclass
from typing import Any, Optional, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sact_det.benchmark.executions import Executions
from sact_det.benchmark.masks import PrescribedBlock, depths_for_ratio, prescribed_flops, smooth_fields
from sact_det.execution import Executable, set_execution
from sact_det.network.block import AdaptiveBlock
from sact_det.network.norm import BatchNorm2d
from sact_det.network.resnet_v2 import EXTRACTOR_BLOCKS, BottleneckUnit, Stem
from sact_det.network.spec import NetworkSpec
from sact_det.network.unit import ResidualUnit
from sact_det.rule.padding import Mask, strided_size
from sact_det.rule.ponder import BlockPonder


class AdaptivePart(Executable, nn.Module):
    """Consecutive blocks under SACT, perhaps with the stem before them.

    Args:
        blocks: of which halting can be prescribed.
        stem: or None.
        stride: of the input: 1 for images.
    """

    blocks: Sequence[PrescribedBlock]

    def __init__(self, blocks: Sequence[AdaptiveBlock], stem: Optional[Stem] = None, stride: int = 1):
        super().__init__()
        self.stem = stem
        self.stride = stride
        self.blocks = nn.ModuleList([PrescribedBlock(block) for block in blocks])  # type: ignore[assignment]
        self._executions = Executions(self)

    def forward(self, x: Tensor) -> tuple[Tensor, list[BlockPonder]]:
        """x: [N, C, H, W], images or a feature map. Returns the features and each block's record."""
        x = x if self.stem is None else self.stem(x)
        ponders = []
        for block in self.blocks:
            x, ponder = block(x)
            ponders.append(ponder)
        return x, ponders

    def map_sizes(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """(height, width) of each block's input, and of the last one's output, for an input of `size`."""
        sizes = [size if self.stem is None else strided_size(size, self.stem.stride)]
        for block in self.blocks:
            sizes.append(strided_size(sizes[-1], block.units[0].stride))
        return sizes

    def stem_flops(self, shape: Sequence[int]) -> int:
        """FLOPs of the root convolution, if there is a stem, for an input of that shape."""
        if self.stem is None:
            return 0
        batch, _, height, width = shape
        return int(self.stem.flops(None, (height, width), batch, torch.device("cpu")).sum())

    def flops(self, shape: Sequence[int], depths: Sequence[Tensor]) -> int:
        """FLOPs with prescribed depths, one map [N, H, W] per block, for an input of that shape; nothing is run."""
        sizes = self.map_sizes((shape[2], shape[3]))
        parts = [prescribed_flops(block, own, size) for block, own, size in zip(self.blocks, depths, sizes)]
        return self.stem_flops(shape) + sum(int(part.sum()) for part in parts)

    def dense_flops(self, shape: Sequence[int]) -> int:
        """FLOPs of the plain network for an input of that shape."""
        sizes = self.map_sizes((shape[2], shape[3]))
        total = self.stem_flops(shape)
        for block, size_in, size_out in zip(self.blocks, sizes, sizes[1:]):
            dense_in, dense_out = (torch.tensor([shape[0] * math.prod(size)]) for size in (size_in, size_out))
            total += int(block.units[0].flops(dense_in, dense_out))
            total += sum(int(unit.flops(dense_out, dense_out)) for unit in block.units[1:])
        return total

    def least_ratio(self, shape: Sequence[int]) -> float:
        """The share of FLOPs that remains where every position halts behind the first unit of its block."""
        sizes = self.map_sizes((shape[2], shape[3]))[1:]
        depths = [torch.ones(shape[0], *size, dtype=torch.int64) for size in sizes]
        return self.flops(shape, depths) / self.dense_flops(shape)

    def depths_for_ratio(self, shape: Sequence[int], ratio: float, seed: int) -> tuple[list[Tensor], float]:
        """Smooth depth maps with which an input takes that share of the plain network's FLOPs.

        Args:
            shape: of the input, [N, C, H, W].
            ratio: the share.
            seed: of the maps.

        Returns:
            one map per block, int64 [N, h, w] on the CPU; the share that they reach.

        Raises:
            InputError: the share is out of reach.
        """
        fields = smooth_fields(shape[0], (shape[2] * self.stride, shape[3] * self.stride), seed)
        sizes, dense = self.map_sizes((shape[2], shape[3]))[1:], self.dense_flops(shape)
        units = [len(block.units) for block in self.blocks]
        return depths_for_ratio(fields, sizes, units, lambda depths: self.flops(shape, depths) / dense, ratio)

    def masks(self, shape: Sequence[int], ratios: Sequence[Optional[float]], seed: int) -> dict[Any, Any]:
        """For every ratio what `prescribe` takes: the maps of `depths_for_ratio`, or None for the branches' own."""
        return {one: None if one is None else self.depths_for_ratio(shape, one, seed)[0] for one in ratios}

    def prescribe(self, depths: Optional[Sequence[Tensor]]) -> None:
        """One depth map per block (PrescribedBlock.prescribe), or None: as the branches say."""
        device = next(self.parameters()).device
        for index, block in enumerate(self.blocks):
            block.prescribe(None if depths is None else depths[index].to(device))

    def set_execution(self, execution: str) -> None:
        """Executable's, but what an execution has packed is kept for the next time (executions.py)."""
        self._executions.choose(execution)

    def set_up(self, execution: str, depths: Optional[Sequence[Tensor]]) -> None:
        """set_execution and prescribe."""
        self.set_execution(execution)
        self.prescribe(depths)


class DensePart(nn.Module):
    """The units of a network one after the other: nothing halts, nothing is recorded.

    Args:
        units: copied without their halting branches.
        stem: copied, or None.
    """

    units: Sequence[ResidualUnit]

    def __init__(self, units: Sequence[ResidualUnit], stem: Optional[nn.Module] = None):
        super().__init__()
        self.stem = copy.deepcopy(stem)
        if self.stem is not None:
            set_execution(self.stem, "dense")
        self.units = nn.ModuleList([copy.deepcopy(unit) for unit in units])  # type: ignore[assignment]
        for unit in self.units:
            unit.halting = None

    def forward(self, x: Tensor) -> Tensor:
        """x: [N, C, H, W], images or a feature map -> features [N, D, h, w]."""
        if self.stem is not None:
            x = self.stem(x)
        for unit in self.units:
            x = unit(x)
        return x


def dense_part(part: AdaptivePart) -> DensePart:
    """The plain network with the weights of an adaptive one, copied."""
    return DensePart([unit for block in part.blocks for unit in block.units], part.stem)


class _FoldedNorm(nn.Module):
    """In the place of a norm that has been folded into the convolution before it."""

    def forward(self, x: Tensor, valid: Mask = None) -> Tensor:
        return x


def folded(network: nn.Module) -> nn.Module:
    """A copy with norms folded into the convolutions before them: the second and the third norm of every unit.

    The first one stands before a ReLU and behind an addition; no convolution can take it.
    """
    network = copy.deepcopy(network).eval()
    for part in network.modules():
        if isinstance(part, BatchNorm2d):
            part.running_mean, part.running_var = part.statistics  # fuse_conv_bn_eval reads these
            part.substitute()
    for unit in [part for part in network.modules() if isinstance(part, BottleneckUnit)]:
        for conv, norm in (("conv1", "norm1"), ("conv2", "norm2")):
            setattr(unit, conv, fuse_conv_bn_eval(getattr(unit, conv), getattr(unit, norm)))
            setattr(unit, norm, _FoldedNorm())
    return network


@dataclass(frozen=True)
class PartSettings:
    """A part with fresh weights, for whoever builds it.

    Attributes:
        spec: of the network.
        block: which one, counted from 1; 0: the extractor, stem and blocks 1-3.
        seed: of the weights.
    """

    spec: NetworkSpec
    block: int = 0
    seed: int = 0

    @property
    def stride(self) -> int:
        """The stride of the part's input: 1 for images."""
        return Stem.stride * 2 ** max(self.block - 2, 0) if self.block else 1

    def build(self) -> AdaptivePart:
        """Builds the part, in evaluation mode, on the CPU; weights depend on the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            if self.block:
                return AdaptivePart([self.spec.build_block(self.block)], stride=self.stride).eval()
            stem = self.spec.build_stem()
            assert isinstance(stem, Stem)
            return AdaptivePart([self.spec.build_block(index) for index in EXTRACTOR_BLOCKS], stem).eval()

    def input_shape(self, batch: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """The shape [N, C, H, W] of the part's input for a `batch` of images of `size` (height, width)."""
        if self.block == 0:
            return batch, 3, *size
        return batch, self.spec.out_channels(self.block - 1), *strided_size(size, self.stride)
