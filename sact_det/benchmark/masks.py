"""Prescribed halting: smooth depth maps under which a network needs a wanted share of its dense FLOPs.

The halting branches compute their scores as ever, so that their time is paid; then the prescribed ones take their
place. Nothing else in a block differs from what a trained network does.

Shape shorthand in this module:
    N: images; H, W: feature map; L: residual units of the block.
"""

import math
from typing import Callable, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from sact_det.base.errors import InputError
from sact_det.network.block import AdaptiveBlock
from sact_det.network.halting_rule import HaltingRule
from sact_det.network.plan import BlockInputs, Plan, PlannedBlock, PlannedStem
from sact_det.network.run import Run
from sact_det.network.unit import HaltingBranch, ResidualUnit
from sact_det.rule.flops import active_positions
from sact_det.rule.padding import Mask, Sizes
from sact_det.rule.ponder import BlockPonder
from sact_det.rule.process import HaltingProcess

KNOT_DISTANCE = 100  # pixels of the image between the knots of a smooth field: about the size of things in photographs
DEPTH_SPREAD = 0.3  # standard deviation of the depth over positions, in units of L, before it is cut at 1 and L
BISECTIONS = 14


class PrescribedRun(Run):
    """A run whose halting scores are computed and then replaced.

    Args:
        run: the real run.
        scores: float32 [L - 1, N, H, W], what replaces the scores of each unit.
    """

    def __init__(self, run: Run, scores: Tensor):
        self.run = run
        self._scores = scores
        self._unit = 0

    @property
    def bounded(self) -> bool:
        """As the real run: no wait is added, and none is taken away."""
        return self.run.bounded

    @override
    def start_halting(
        self, rule: HaltingRule, exists: Tensor, num_units: int, eps: float, dtype: torch.dtype
    ) -> HaltingProcess:
        return self.run.start_halting(rule, exists, num_units, eps, dtype)

    @override
    def evaluate(self, unit: ResidualUnit, active: Optional[Tensor]) -> None:
        self.run.evaluate(unit, active)

    def scores(self, branch: HaltingBranch) -> Tensor:
        """The prescribed scores, with the gradient of the branch."""
        own, prescribed = self.run.scores(branch), self._scores[self._unit]
        self._unit += 1
        return own + (prescribed - own).detach() if own.requires_grad else prescribed

    @override
    def add(self, weight: Tensor) -> None:
        self.run.add(weight)

    @override
    def result(self) -> Tensor:
        return self.run.result()


class PrescribedPlan(Plan):
    """A plan whose runs halt where they are told to.

    Args:
        plan: the real plan.
        scores: float32 [L - 1, N, H, W], what replaces the scores of each unit.
    """

    def __init__(self, plan: Plan, scores: Tensor):
        super().__init__()
        self.plan = plan
        self._scores = scores
        self.stops_early = plan.stops_early

    @override
    def start(
        self, block: PlannedBlock, x: Tensor, valid_in: Mask, valid: Mask, shortcut: Optional[Tensor] = None
    ) -> Run:
        return PrescribedRun(self.plan.start(block, x, valid_in, valid, shortcut), self._scores)

    @override
    def block(self, block: PlannedBlock, inputs: BlockInputs) -> tuple[Tensor, BlockPonder]:
        # An input like the others: what is recorded of a block holds for other scores.
        return self.plan.block(block, (*inputs, self._scores.transpose(0, 1)))

    @override
    def proceed(self, block: PlannedBlock, run: Run, index: int, active: Tensor) -> Run:
        assert isinstance(run, PrescribedRun)
        run.run = self.plan.proceed(block, run.run, index, active)
        return run

    @override
    def stem(self, stem: PlannedStem, x: Tensor, sizes: Optional[Sizes]) -> Tensor:
        return self.plan.stem(stem, x, sizes)


class PrescribedBlock(AdaptiveBlock):
    """A block that halts where it is told to, or, as long as `depths` is None, as its branches say.

    Args:
        block: whose units these are, from now on of both; it must halt by position ("sact"), without tiles.

    Attributes:
        depths: N of every position, int64 [N, H, W], or None.
    """

    def __init__(self, block: AdaptiveBlock):
        if not block.rule.by_position or block.tile != 1:
            raise ValueError(f"`block` must halt by 'sact' with tile 1; got {block.rule.name!r} with {block.tile}")
        super().__init__(list(block.units), block.rule.name, block.eps, block.tile)
        self.plan = block.plan
        self.reads_products = block.reads_products
        self.train(block.training)
        self.depths: Optional[Tensor] = None
        self._scores: Optional[Tensor] = None

    def prescribe(self, depths: Optional[Tensor]) -> None:
        """Has every position halt behind unit depths, int64 [N, H, W], from 1 to L; None ends that."""
        self.depths = depths
        self._scores = None if depths is None else prescribed_scores(depths, len(self.units), self.eps)

    @property
    @override
    def present_plan(self) -> Plan:
        plan = super().present_plan
        return plan if self._scores is None else PrescribedPlan(plan, self._scores)

    @override
    def compute(self, *inputs: Optional[Tensor]) -> tuple[Tensor, BlockPonder]:
        if self._scores is None:
            return super().compute(*inputs)
        scores = inputs[-1]
        assert scores is not None
        return self._run(PrescribedPlan(super().present_plan, scores.transpose(0, 1)), inputs[:-1])


def prescribed_scores(depths: Tensor, num_units: int, eps: float) -> Tensor:
    """Halting scores with which positions halt behind unit `depths`.

    They are 1 there and a little before, so that every unit has its share in the output, as usual.

    Args:
        depths: int64 [N, H, W].
        num_units: L.
        eps: the threshold is 1 - eps.

    Returns:
        float32 [L - 1, N, H, W].
    """
    units = torch.arange(1, num_units, device=depths.device)[:, None, None, None]
    return torch.where(units >= depths, 1.0, (1 - eps) / (2 * num_units))


def prescribed_flops(block: AdaptiveBlock, depths: Tensor, size_in: tuple[int, int]) -> Tensor:
    """FLOPs of a block whose positions halt behind unit `depths`, int64 [N]; what BlockPonder.flops will say.

    Args:
        block: may as well be plain: then halting branches cost nothing.
        depths: int64 [N, H, W].
        size_in: height and width of the block's input.
    """
    exists = torch.ones_like(depths, dtype=torch.bool)
    dense_in = torch.full_like(depths[:, 0, 0], size_in[0] * size_in[1])
    dense = torch.full_like(dense_in, exists[0].numel())
    total = torch.zeros_like(dense)
    for index, unit in enumerate(block.units):
        active = depths > index
        evaluated, dilated = active_positions(active, exists)
        total += unit.flops(dense_in, dense) if index == 0 else unit.flops(dense, dense, evaluated, dilated)
        if unit.halting is not None:
            total += unit.halting.flops(evaluated, active.flatten(1).any(1))
    return total


def smooth_fields(number: int, size: tuple[int, int], seed: int) -> Tensor:
    """A random field for every image, smooth in space, mean 0 and deviation 1: float32 [N, 1, H, W].

    Args:
        number: N.
        size: (H, W) of the image, in pixels; the field comes at a stride of 4.
        seed: of the randomness.
    """
    knots = [max(2, round(side / KNOT_DISTANCE)) for side in size]
    noise = torch.randn(number, 1, *knots, generator=torch.Generator().manual_seed(seed))
    fields = F.interpolate(noise, tuple(-(-side // 4) for side in size), mode="bicubic", align_corners=False)
    deviation = fields.std((2, 3), correction=0, keepdim=True).clamp(min=1e-6)
    return (fields - fields.mean((2, 3), keepdim=True)) / deviation


def depth_map(fields: Tensor, size: tuple[int, int], num_units: int, level: float) -> Tensor:
    """Depths from 1 to L on a feature map of `size`, int64 [N, H, W]; they grow with the level."""
    values = F.interpolate(fields, size, mode="bilinear", align_corners=False)[:, 0]
    return ((level + DEPTH_SPREAD * values) * num_units).ceil().clamp(1, num_units).long()


def depths_for_ratio(
    fields: Tensor,
    sizes: Sequence[tuple[int, int]],
    num_units: Sequence[int],
    ratio_of: Callable[[list[Tensor]], float],
    wanted: float,
) -> tuple[list[Tensor], float]:
    """Depth maps, one per block, with which a network needs the wanted share of FLOPs, and the share they reach.

    The maps of all blocks follow one field. The level at which it is cut is found by bisection. A share above that of
    all positions at full depth gives full depth.

    Args:
        fields: float32 [N, 1, h, w].
        sizes: (H, W) of each block's output.
        num_units: L of each block.
        ratio_of: share of FLOPs that depth maps need.
        wanted: the share.

    Raises:
        InputError: less than every block's first unit needs.
    """

    def at(level: float) -> tuple[list[Tensor], float]:
        depths = [depth_map(fields, size, units, level) for size, units in zip(sizes, num_units)]
        return depths, ratio_of(depths)

    extent = 1 + DEPTH_SPREAD * float(fields.abs().max())
    low, high = -extent, extent  # every position at depth 1, and at full depth
    below, above = at(low), at(high)
    if wanted >= above[1]:
        return above
    if wanted < below[1]:
        least = math.ceil(1000 * below[1]) / 1000
        raise InputError(f"a FLOP ratio of {wanted:g} is out of reach: one unit per block takes {least:g}")
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        found = at(middle)
        if found[1] < wanted:
            low, below = middle, found
        else:
            high, above = middle, found
    return min(below, above, key=lambda end: abs(end[1] - wanted))
