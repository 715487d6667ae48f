"""A plan says how a part computes: stem, block, pooler of regions, RPN head. What it computes does not depend on it.

The network knows the dense plans. Others live above it (sact_det/execution) and are installed from outside.
"""

from abc import ABC, abstractmethod
from typing import Any, Callable, Hashable, Optional, Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from sact_det.base.recording import is_recording
from sact_det.network.halting_rule import HaltingRule
from sact_det.network.run import DenseRun, Run
from sact_det.network.unit import ResidualUnit, SplitUnit
from sact_det.rule.padding import Mask, Sizes, strided_size
from sact_det.rule.ponder import BlockPonder
from sact_det.rule.process import HaltingOutcome

# What a block is evaluated at, all on one device, each beginning with N: x, [N, C, H, W]; valid_in and valid, bool
# [N, 1, ., .] at input and output resolution, False at padding, or None; dense_in and dense_out, int64 [N], how many
# positions every image has there; the shortcut of a block that reads products, or None; int64 [N], the FLOPs that every
# image may spend beyond the least, or None.
BlockInputs = Sequence[Optional[Tensor]]


class Plan(nn.Module, ABC):
    """How one part of a network, a stem, a block, a pooler of regions or a layer of a head, computes.

    A plan is a module without parameters below its part, so that it hears of train() and eval(), and is copied with it.
    It keeps what it makes of the part's weights.

    Attributes:
        stops_early: whether a block in evaluation ends as soon as every position has halted, which asks for the values
            of a tensor.
    """

    stops_early = True

    def block(self, block: "PlannedBlock", inputs: BlockInputs) -> tuple[Tensor, BlockPonder]:
        """A block's output; arguments and result as of PlannedBlock.compute."""
        return block.compute(*inputs)

    def complete(
        self, block: "PlannedBlock", x: Tensor, valid_in: Mask, valid: Mask, shortcut: Optional[Tensor] = None
    ) -> Optional[tuple[Tensor, Optional[HaltingOutcome]]]:
        """All units of a block at once, halting by their own scores, where the plan can.

        Args: as of `start`.

        Returns:
            The block's output, and what its positions did, None for a plain one's; or None: it goes by units.
        """
        return None

    @abstractmethod
    def start(
        self, block: "PlannedBlock", x: Tensor, valid_in: Mask, valid: Mask, shortcut: Optional[Tensor] = None
    ) -> Run:
        """A run of the block that has evaluated the first unit.

        Args:
            block: the part.
            x: its input, [N, C, H, W].
            valid_in, valid: bool [N, 1, ., .] at input and output resolution, False at padding; None: no padding.
            shortcut: for a block that reads products, and x, as of SplitUnit.behind_products (unit.py).
        """

    def proceed(self, block: "PlannedBlock", run: Run, index: int, active: Tensor) -> Run:
        """The run that evaluates unit `index`, counted from 0: the present one, or another that takes over from it.

        Args:
            block: the part.
            run: the present run.
            index: of the next unit.
            active: bool [N, H, W] (ACT: [N, 1, 1]), what evaluates it.
        """
        return run

    @abstractmethod
    def stem(self, stem: "PlannedStem", x: Tensor, sizes: Optional[Sizes]) -> Tensor:
        """The stem's output; arguments and result as of Stem.forward, `sizes` None where every image fills x."""

    def pool(self, pooler: "PlannedPooler", x: Tensor, boxes: Tensor) -> Tensor:
        """Regions of a feature map; arguments and result as of PlannedPooler.compute."""
        return pooler.compute(x, boxes)

    def pool_levels(
        self, poolers: Sequence["PlannedPooler"], maps: Sequence[Tensor], boxes: Tensor, levels: Tensor
    ) -> Tensor:
        """Regions of several feature maps, each of one of them, [R, C, *output_size].

        Args:
            poolers: one for each map, of one output size.
            maps: [N, C, H, W] each.
            boxes: [R, 5], as of PlannedPooler.compute.
            levels: int64 [R], the index of each region's map; a region of any other has zeros.
        """
        regions = maps[0].new_zeros(boxes.shape[0], maps[0].shape[1], *poolers[0].output_size)
        for level, (pooler, x) in enumerate(zip(poolers, maps)):
            own = (levels == level).nonzero()[:, 0]
            regions.index_put_((own,), self.pool(pooler, x, boxes[own]))
        return regions

    def project(self, linear: "PlannedProjection", x: Tensor) -> Tensor:
        """A linear layer of a head; arguments and result as of PlannedProjection.compute."""
        return linear.compute(x)

    def convolve(self, conv: nn.Conv2d, x: Tensor, active: Optional[Tensor] = None) -> Tensor:
        """A convolution of a head or a pyramid, [N, C, H, W] -> [N, D, H, W].

        Args:
            conv: its weights; Detectron2's class has a norm and an activation behind them, too.
            x: what it reads.
            active: bool [N, H, W], where the result is read; elsewhere it may be anything. None: everywhere.
        """
        return conv.compute(x) if isinstance(conv, PlannedConvolution) else conv(x)

    def merge(self, conv: nn.Conv2d, x: Tensor, coarser: Tensor) -> Tensor:
        """A lateral convolution of a pyramid, [N, C, H, W] -> [N, D, H, W], plus a coarser level.

        Args:
            conv: its weights, as of `convolve`.
            x: what it reads.
            coarser: [N, D, H / 2, W / 2]; each of its positions is added to 2x2 of them.
        """
        return self.convolve(conv, x) + F.interpolate(coarser, scale_factor=2.0, mode="nearest")

    def predict(self, conv: nn.Conv2d, x: Tensor, active: Optional[Tensor], elsewhere: float) -> Tensor:
        """A 1x1 convolution of a head, [N, C, H, W] -> [N, D, H, W].

        Args:
            conv: its weights.
            x: what it reads, with values where it is active.
            active: bool [N, H, W]; None: everywhere.
            elsewhere: the result where it is not active.
        """
        y = self.convolve(conv, x)
        return y if active is None else y.masked_fill(~active[:, None], elsewhere)

    def recorded(self) -> "Plan":
        """The plan in whose place PyTorch records a part (sact_det/base/recording.py): one without branches."""
        return EXPORT


class DensePlan(Plan):
    """Every position of every unit, in PyTorch: the reference."""

    @override
    def start(
        self, block: "PlannedBlock", x: Tensor, valid_in: Mask, valid: Mask, shortcut: Optional[Tensor] = None
    ) -> Run:
        return DenseRun(block.evaluate_first(x, valid_in, valid, shortcut), valid)

    @override
    def stem(self, stem: "PlannedStem", x: Tensor, sizes: Optional[Sizes]) -> Tensor:
        return stem.compute(x, sizes)


class ExportPlan(DensePlan):
    """Dense and never early at its end: nothing depends on the values of a tensor, as recordings need it."""

    stops_early = False


EXPORT = ExportPlan()


class Planned(nn.Module, ABC):
    """A part of a network that computes by a plan; a mixin before a module of other arguments.

    Attributes:
        plan: a Plan of its own, at first a DensePlan.
    """

    plan: Plan

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.plan = DensePlan()

    @property
    def present_plan(self) -> Plan:
        """The plan of this call: another one while PyTorch records it."""
        return self.plan.recorded() if is_recording() else self.plan


class PlannedBlock(Planned):
    """What plans see of a block (block.py).

    Attributes:
        units: the first may be strided, or split.
        rule: when positions halt.
        eps: halts where the cumulative halting score reaches 1 - eps.
        reads_products: whether the first unit's products come from elsewhere, and only its second part is evaluated
            (SplitUnit).
    """

    units: Sequence[ResidualUnit]
    rule: HaltingRule
    eps: float
    reads_products: bool = False

    @property
    def reader(self) -> nn.Conv2d:
        """The convolution that is the first to read the block's input."""
        return self.units[0].conv2 if self.reads_products else self.units[0].conv1

    def evaluate_first(self, x: Tensor, valid_in: Mask, valid: Mask, shortcut: Optional[Tensor]) -> Tensor:
        """The first unit in PyTorch; arguments as of Plan.start."""
        unit = self.units[0]
        if shortcut is None:
            return unit(x, None, valid_in, valid)
        assert isinstance(unit, SplitUnit)
        return unit.behind_products(x, shortcut, valid_in, valid)

    @property
    @abstractmethod
    def settings(self) -> Hashable:
        """The numbers that its output depends on beside inputs and weights: what is recorded of it holds for these."""

    @abstractmethod
    def compute(self, *inputs: Optional[Tensor]) -> tuple[Tensor, BlockPonder]:
        """The output in runs of the plan, a function of tensors alone.

        Args:
            inputs: BlockInputs.

        Returns:
            The features and the BlockPonder, without sizes.
        """


class PlannedStem(Planned):
    """What plans see of a stem (resnet_v2.py)."""

    stride: int
    conv: nn.Conv2d
    pool: Callable[[Tensor], Tensor]

    @abstractmethod
    def compute(self, x: Tensor, sizes: Optional[Sizes]) -> Tensor:
        """The output in PyTorch, without checks; arguments as of Plan.stem."""


class PlannedPooler(Planned):
    """What plans see of RoIAlign on one feature map (sact_det/detection/pooler.py).

    Attributes:
        bins: (height, width) of a region.
        max_pool: whether 2x2 max pooling of stride 2 follows, without padding.
        step: of the bins along either axis every step-th is pooled, the first one on: what a strided 1x1 convolution
            reads; 1 with max pooling.
        spatial_scale: from the coordinates of boxes to positions.
        sampling_ratio: samples of a bin along either axis; 0 or less: as many as it spans positions, rounded up.
        aligned: whether the centre of a position lies half a position behind its index.
    """

    bins: tuple[int, int]
    max_pool: bool
    step: int
    spatial_scale: float
    sampling_ratio: int
    aligned: bool

    @property
    def output_size(self) -> tuple[int, int]:
        """(height, width) of what comes out."""
        height, width = self.bins
        return (height // 2, width // 2) if self.max_pool else strided_size(self.bins, self.step)

    @abstractmethod
    def compute(self, x: Tensor, boxes: Tensor) -> Tensor:
        """The regions in PyTorch.

        Args:
            x: [N, C, H, W].
            boxes: [R, 5]: index of the image, x0, y0, x1, y1.

        Returns:
            [R, C, *output_size], of the type of x.
        """


class PlannedConvolution(Planned, nn.Conv2d):
    """What plans see of a convolution of a pyramid or a head (sact_det/detection/layers.py)."""

    @abstractmethod
    def compute(self, x: Tensor) -> Tensor:
        """Convolution, norm and activation in PyTorch, [N, C, H, W] -> [N, D, H, W]."""


class PlannedProjection(Planned, nn.Linear):
    """What plans see of a linear layer that reads regions (sact_det/detection/layers.py)."""

    def compute(self, x: Tensor) -> Tensor:
        """The layer in PyTorch, [R, C, H, W] -> [R, D], whose weights are numbered as C, H and W are."""
        return nn.Linear.forward(self, x.flatten(1))


def planned_parts(model: nn.Module) -> list[Planned]:
    """The parts of a model that compute by plans."""
    return [part for part in model.modules() if isinstance(part, Planned)]
