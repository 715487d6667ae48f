"""What a network did with its computation time: ponder cost, units, FLOPs and the ponder map.

Shape shorthand in this module:
    N: images; H, W: size of an image; h, w: size of a block's feature map (1, 1 under ACT); L: its residual units.
"""

from dataclasses import dataclass
from functools import reduce
from typing import Any, Optional, Sequence

import numpy as np
import torch
from torch import Tensor

from sact_det.base.transfer import to_host
from sact_det.rule.padding import Sizes, positions


@dataclass(frozen=True)
class BlockPonder:
    """The halting outcome of one block.

    Attributes:
        ponder_cost: rho = N + R, float32 [N, h, w] ([N, 1, 1] under ACT), or float64 of features that are; 2 at least,
            0 at padding. Differentiable.
        num_units: N, int64, same shape; 0 at padding.
        flops: int64 [N], by the paper's rule (sact_det/rule/flops.py).
        halting_distribution: p^l, likewise [N, L, h, w]; sums to 1 over L at every position, or to 1 - h^0 where a
            region may be rejected before the first unit (sact_det/detection/rejection.py).
        sizes: (height, width) of each image on the map, or None if every image fills it.
    """

    ponder_cost: Tensor
    num_units: Tensor
    flops: Tensor
    halting_distribution: Tensor
    sizes: Optional[Sizes] = None

    def mean_cost(self) -> Tensor:
        """float32 [N]: rho averaged over each image's own positions (alg. 2, line 37). Differentiable."""
        return self._mean(self.ponder_cost)

    def mean_units(self) -> Tensor:
        """float32 [N]: evaluated units averaged over each image's own positions."""
        return self._mean(self.num_units.float())

    def _mean(self, values: Tensor) -> Tensor:
        if self.sizes is None:
            return values.mean((1, 2))
        counts = positions(self.sizes, (values.shape[1], values.shape[2]), len(values), values.device)
        return values.sum((1, 2)) / counts.to(values.dtype)

    def image(self, index: int) -> "BlockPonder":
        """The outcome for one image, N = 1, without padding."""
        if self.sizes is None and index == 0 and len(self.flops) == 1:
            return self
        height, width = self.ponder_cost.shape[1:] if self.sizes is None else self.sizes[index]
        one = slice(index, index + 1)
        return BlockPonder(
            ponder_cost=self.ponder_cost[one, :height, :width],
            num_units=self.num_units[one, :height, :width],
            flops=self.flops[one],
            halting_distribution=self.halting_distribution[one, :, :height, :width],
        )

    def tensors(self) -> list[Tensor]:
        """Everything but the sizes, in a fixed order."""
        return [self.ponder_cost, self.num_units, self.flops, self.halting_distribution]

    def with_tensors(self, tensors: Sequence[Tensor]) -> "BlockPonder":
        """The same with others in the place of `tensors()`."""
        ponder_cost, num_units, flops, distribution = tensors
        return BlockPonder(ponder_cost, num_units, flops, distribution, self.sizes)


def legacy_nearest(size_in: int, size_out: int) -> Tensor:
    """Which of `size_in` cells each of `size_out` pixels shows: TensorFlow 1's nearest-neighbour resize.

    index = min(floor(pixel * float32(in / out)), in - 1), int64 [size_out]. The product is rounded to float32, which
    is part of the rule: exact division gives another cell for some sizes (198 pixels from 50 cells, for one).
    """
    pixels = torch.arange(size_out, dtype=torch.float32) * (size_in / size_out)
    return pixels.floor().long().clamp(max=size_in - 1)


def legacy_nearest_index(size_in: int, size_out: int) -> np.ndarray:
    """`legacy_nearest` in numpy."""
    return legacy_nearest(size_in, size_out).numpy()


@dataclass(frozen=True)
class PonderRecord:
    """The outcome of a whole network, or of the part of it that was run.

    Attributes:
        blocks: name ("block1", ...) -> BlockPonder, in order.
        dense_flops: int64 [N], what is computed everywhere: the root convolution, and the logits where there are any.
    """

    blocks: dict[str, BlockPonder]
    dense_flops: Tensor

    @property
    def flops(self) -> Tensor:
        """int64 [N]: FLOPs of each image."""
        return reduce(torch.add, [self.dense_flops, *(block.flops for block in self.blocks.values())])

    def units(self) -> Tensor:
        """int64 [N]: units evaluated in all blocks, summed over positions."""
        units = [block.num_units.sum((1, 2)) for block in self.blocks.values()]
        return reduce(torch.add, units) if units else torch.zeros_like(self.dense_flops)

    def mean_units(self) -> Tensor:
        """float32 [N]: sum over blocks of the evaluated units, averaged over each image's own positions."""
        units = [block.mean_units() for block in self.blocks.values()]
        return reduce(torch.add, units) if units else torch.zeros_like(self.dense_flops, dtype=torch.float32)

    def mean_cost(self) -> Tensor:
        """float32 [N]: sum over blocks of the mean ponder cost, what tau multiplies (eq. 13). Differentiable.

        Without blocks it is 0.
        """
        costs = [block.mean_cost() for block in self.blocks.values()]
        return torch.stack(costs).sum(0) if costs else torch.zeros_like(self.dense_flops, dtype=torch.float32)

    def numbers(self) -> dict[str, Any]:
        """What one image took (N = 1): flops, mean_ponder_cost; per block, ponder_cost and units (means)."""
        return {
            "flops": int(self.flops),
            "mean_ponder_cost": float(self.mean_cost()),
            "ponder_cost": {name: float(block.mean_cost()) for name, block in self.blocks.items()},
            "units": {name: float(block.mean_units()) for name, block in self.blocks.items()},
        }

    def map(self, size: tuple[int, int]) -> Tensor:
        """Ponder map float32 [N, H, W]: every block's rho enlarged to (H, W) by the original's rule, and summed.

        Raises:
            ValueError: the images of the batch differ in size; take `record.image(i).map(size)` of each.
        """
        if any(block.sizes is not None for block in self.blocks.values()):
            raise ValueError(
                "`map`: the images differ in size; use record.image(i).map((height, width)) for each of them"
            )
        return torch.stack([_resized(block.ponder_cost, size) for block in self.blocks.values()]).sum(0)

    def units_map(self, size: tuple[int, int]) -> Tensor:
        """int64 [N, H, W]: every block's units enlarged and summed likewise, for images of one size."""
        return torch.stack([_resized(block.num_units, size) for block in self.blocks.values()]).sum(0)

    def image(self, index: int) -> "PonderRecord":
        """The record of one image, N = 1, without padding."""
        blocks = {name: block.image(index) for name, block in self.blocks.items()}
        return PonderRecord(blocks, self.dense_flops[index : index + 1])

    def tensors(self) -> list[Tensor]:
        """Everything but the sizes, in a fixed order: what one copy brings elsewhere."""
        return [self.dense_flops, *(tensor for block in self.blocks.values() for tensor in block.tensors())]

    def with_tensors(self, tensors: Sequence[Tensor]) -> "PonderRecord":
        """The same with others in the place of `tensors()`."""
        dense_flops, *others = tensors
        rest = iter(others)
        blocks = {
            name: block.with_tensors([next(rest) for _ in block.tensors()]) for name, block in self.blocks.items()
        }
        return PonderRecord(blocks, dense_flops)

    def on_host(self) -> "PonderRecord":
        """Without gradient, on the CPU; a GPU is waited for once."""
        return self.with_tensors(to_host(self.tensors()))


def _resized(values: Tensor, size: tuple[int, int]) -> Tensor:
    """[N, h, w] -> [N, H, W] for `size` = (H, W), by the original's nearest-neighbour rule."""
    rows, columns = (legacy_nearest(n_in, n_out).to(values.device) for n_in, n_out in zip(values.shape[1:], size))
    return values[:, rows][:, :, columns]
