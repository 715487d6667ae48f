"""A block: residual units run one after the other under a halting rule.

Shape shorthand in this module:
    N: images; C: channels; H, W: feature map, padding included; L: residual units of the block.
"""

import math
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Hashable, Optional, Sequence, Union

import torch
from torch import Tensor, nn

from sact_det.base.precision import score_type
from sact_det.network.block_flops import BlockFlops
from sact_det.network.halting_rule import halting_rule
from sact_det.network.plan import BlockInputs, Plan, PlannedBlock
from sact_det.network.run import Run
from sact_det.network.unit import HaltingBranch, ResidualUnit
from sact_det.rule.halting import DEFAULT_EPS, share_in_tiles
from sact_det.rule.limit import FlopsLimit
from sact_det.rule.padding import (
    Mask,
    Sizes,
    check_batch,
    own_sizes,
    positions,
    strided_size,
    strided_sizes,
    valid_mask,
)
from sact_det.rule.ponder import BlockPonder
from sact_det.rule.process import HaltingOutcome, HaltingProcess


class AdaptiveBlock(PlannedBlock):
    """Runs residual units under a halting rule (algorithms 1 and 2) and accounts for the computation.

    How it computes, its plan says (plan.py); parameters and results do not depend on it. Halting scores, and what is
    made of them, are float32 for features of 16 bits, and else of their type.

    A block whose `reads_products` has been set evaluates its first unit from products that were made elsewhere
    (SplitUnit in unit.py), and accounts for the rest alone.

    In evaluation a block stops as soon as every position has halted; in training all units run, so that their norms and
    every process see the same graph.

    Args:
        units: the residual units; the first may have a stride.
        halting: name of a rule (halting_rule.py): "none" (plain ResNet), "act" (one decision per image) or "sact" (one
            per position).
        eps: halts where the cumulative halting score reaches 1 - eps.
        tile: SACT shares halting scores in tile x tile cells.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, units: Sequence[ResidualUnit], halting: str = "none", eps: float = DEFAULT_EPS, tile: int = 1):
        super().__init__()
        self.rule = halting_rule(halting, eps, tile)
        if not units:
            raise ValueError("`units`: a block needs at least one residual unit")
        self.units = nn.ModuleList(units)  # type: ignore[assignment]
        self.eps = eps
        self.tile = tile
        self._flops = BlockFlops(units)
        self._shifts: Optional[Tensor] = None  # of images, if each has its own

    @property
    def shift(self) -> Union[float, Tensor]:
        """The `shift` of every halting branch (unit.py): the higher, the earlier positions halt; 0 unless it is set.

        In training it may be one number for each image of the batch, float32 [N].
        """
        if self._shifts is not None:
            return self._shifts
        return self._branches[0].shift if self._branches else 0.0

    @shift.setter
    def shift(self, shift: Union[float, Tensor]) -> None:
        if not isinstance(shift, Tensor):
            if math.isnan(shift):
                raise ValueError("`shift` must be a number; got nan")
            shift = float(shift)
        self._shifts = shift if isinstance(shift, Tensor) else None
        for branch in self._branches:
            branch.shift = shift

    def _shift_rows(self, shifts: Tensor, regions: Optional[Sequence[int]]) -> None:
        """Gives the branches the shift of every row of the batch; `regions`: how many each image has, None: one."""
        if regions is not None:
            shifts = shifts.repeat_interleave(torch.tensor(regions, device=shifts.device))
        for branch in self._branches:
            branch.shift = shifts

    @property
    def _branches(self) -> list[HaltingBranch]:
        return [unit.halting for unit in self.units if unit.halting is not None]

    def flops_bounds(
        self, size: tuple[int, int], sizes: Optional[Sizes], number: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """FLOPs at least, where everything halts behind the first unit, and those of the plain block: int64 [N] both.

        Args:
            size: (height, width) of the input.
            sizes: of each image's own part of it, or None.
            number: N.
            device: of the result.
        """
        stride = self.units[0].stride
        dense_in = positions(own_sizes(sizes, size), size, number, device)
        dense = positions(strided_sizes(own_sizes(sizes, size), stride), strided_size(size, stride), number, device)
        least, plain = self._flops.bounds(dense_in, dense, self.reads_products)
        return (least if self.rule.adaptive else plain), plain

    @property
    def settings(self) -> Hashable:
        """The threshold, the tile, what it reads and the shifts; see PlannedBlock."""
        return self.eps, self.tile, self.reads_products, tuple(branch.shift for branch in self._branches)

    def forward(
        self,
        x: Tensor,
        sizes: Optional[Sizes] = None,
        shortcut: Optional[Tensor] = None,
        allowance: Optional[Tensor] = None,
        regions: Optional[Sequence[int]] = None,
    ) -> tuple[Tensor, BlockPonder]:
        """Evaluates the block.

        Args:
            x: [N, C, H, W]; without images there is nothing to compute, and that is the result. If the block reads
                products, conv1's.
            sizes: (height, width) of each image's own part of x, or None.
            shortcut: if the block reads products, the projecting shortcut's, [N, D, h, w]; else None.
            allowance: int64 [N], the FLOPs that each image may take here, not below the first of `flops_bounds`; where
                they are spent, positions halt (sact_det/rule/limit.py). None: any number.
            regions: where x holds regions, how many each image has, in order: theirs is their image's shift.

        Returns:
            The features and the BlockPonder.

        Raises:
            ValueError: x is no batch, `sizes` does not fit it, or `shortcut` is missing or too much.
        """
        check_batch("x", x, sizes)
        if self._shifts is not None:
            self._shift_rows(self._shifts, regions)
        if self.reads_products != (shortcut is not None):
            found = "missing" if shortcut is None else "given"
            raise ValueError(f"`shortcut` is {found}, but `reads_products` is {self.reads_products}")
        sizes_in = own_sizes(sizes, (x.shape[2], x.shape[3]))
        valid_in = valid_mask(sizes_in, (x.shape[2], x.shape[3]), x.device)
        dense_in = positions(sizes_in, (x.shape[2], x.shape[3]), x.shape[0], x.device)
        stride = self.units[0].stride
        sizes_out = strided_sizes(sizes_in, stride)
        map_size = strided_size((x.shape[2], x.shape[3]), stride)
        valid = valid_mask(sizes_out, map_size, x.device)
        dense_out = positions(sizes_out, map_size, x.shape[0], x.device)

        spare = None
        if allowance is not None:
            spare = allowance - self.flops_bounds((x.shape[2], x.shape[3]), sizes, x.shape[0], x.device)[0]
        inputs = (x, valid_in, valid, dense_in, dense_out, shortcut, spare)
        features, ponder = self.present_plan.block(self, inputs)
        return features, replace(ponder, sizes=None if self.rule.per_image else sizes_out)

    def compute(self, *inputs: Optional[Tensor]) -> tuple[Tensor, BlockPonder]:
        """Evaluates the block by its present plan; arguments and result as of PlannedBlock.compute."""
        return self._run(self.present_plan, inputs)

    def _run(self, plan: Plan, inputs: BlockInputs) -> tuple[Tensor, BlockPonder]:
        x, valid_in, valid, dense_in, dense_out, shortcut, spare = inputs
        assert x is not None and dense_in is not None and dense_out is not None
        # A limit and tiles change the scores that the units themselves have.
        by_own_scores = spare is None and self.tile == 1
        done = plan.complete(self, x, valid_in, valid, shortcut) if by_own_scores else None
        features, outcome = done or self._run_units(plan, x, valid_in, valid, shortcut, spare)
        if outcome is None:
            outcome = _outcome_of_plain(self._exists(x, valid), dense_out, len(self.units), score_type(x.dtype))
        return features, BlockPonder(
            ponder_cost=outcome.ponder_cost,
            num_units=outcome.num_units,
            flops=self._flops.of(dense_in, dense_out, outcome, self.reads_products),
            halting_distribution=outcome.distribution,
        )

    def _exists(self, x: Tensor, valid: Mask) -> Tensor:
        """bool [N, H, W]: which positions of the output there are."""
        if valid is not None:
            return valid[:, 0]
        map_size = strided_size((x.shape[2], x.shape[3]), self.units[0].stride)
        return torch.ones(x.shape[0], *map_size, dtype=torch.bool, device=x.device)

    def _run_units(
        self,
        plan: Plan,
        x: Tensor,
        valid_in: Mask,
        valid: Mask,
        shortcut: Optional[Tensor],
        spare: Optional[Tensor],
    ) -> tuple[Tensor, Optional[HaltingOutcome]]:
        """The output, unit by unit, and what positions did; None in a plain block."""
        run = plan.start(self, x, valid_in, valid, shortcut)
        if not self.rule.adaptive:
            for unit in islice(self.units, 1, None):
                run.evaluate(unit, None)
            return run.result(), None
        exists = self._exists(x, valid)
        limit = None if spare is None else FlopsLimit(spare, exists, self.eps)
        process = run.start_halting(self.rule, exists, len(self.units), self.eps, score_type(x.dtype))
        run = self._halt_by_units(plan, run, process, exists, valid is not None, limit)
        return run.result(), process.outcome()

    def _halt_by_units(
        self,
        plan: Plan,
        run: Run,
        process: HaltingProcess,
        exists: Tensor,
        padded: bool,
        limit: Optional[FlopsLimit],
    ) -> Run:
        """Algorithm 2 (1 for ACT) from the first unit's output on. Returns the run that was the last to evaluate."""
        may_stop = plan.stops_early and not (self.training or run.bounded)
        for index, unit in enumerate(self.units):
            if may_stop and not process.any_active():
                break
            if index > 0:
                run = plan.proceed(self, run, index, process.active)
                run.evaluate(unit, process.active)
            h = None
            if unit.halting is not None:
                h = run.scores(unit.halting)
                h = share_in_tiles(h.detach() if unit.halting.fixed else h, self.tile, exists if padded else None)
                if limit is not None:
                    h = limit(h, process.active, partial(self._flops.of_unit, index + 1))
            p = process.step(h)
            run.add(p * exists if self.rule.per_image else p)
        return run


def _outcome_of_plain(exists: Tensor, dense: Tensor, num_units: int, dtype: torch.dtype) -> HaltingOutcome:
    """h^1 = ... = h^(L-1) = 0, h^L = 1 recovers the plain block: N = L, R = 1."""
    distribution = torch.zeros(exists.shape[0], num_units, *exists.shape[1:], dtype=dtype, device=exists.device)
    distribution[:, -1] = exists
    everywhere = dense[:, None].expand(-1, num_units)
    cost = (num_units + 1) * exists.to(dtype)
    return HaltingOutcome(cost, num_units * exists.long(), distribution, everywhere, everywhere)
