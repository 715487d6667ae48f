"""Execution "perforated" in PyTorch: the runs of a block that compute active positions, or images, only.

The state is kept as rows, [positions, C], of what the coming units can still read: the active positions and the rings
around them. As positions halt, there are fewer rows. Halting state, FLOPs and ponder cost are the block's own and the
same for every run.

Shape shorthand in this module:
    N: images; C: channels; H, W: feature map, padding included; P = N * H * W.
"""

from typing import Optional, Sequence

import torch
from torch import Tensor
from typing_extensions import override

from sact_det.base.precision import exact_float32, widened
from sact_det.execution.positions.active_set import ActiveSet
from sact_det.execution.positions.gather_gemm import READS, residual, scores
from sact_det.network.branch import ImageHalting, SpatialHalting, learn_from_positions, mean_of_images
from sact_det.network.run import DenseRun, TensorRun
from sact_det.network.unit import HaltingBranch, ResidualUnit


class PositionRun(TensorRun):
    """SACT: units are evaluated at the active positions, which may only become fewer from unit to unit.

    The output is a sum of residuals, weighted by the open share of a position (sact_det/execution/cpu/run.py).

    Args:
        dense: the run so far; it has evaluated one unit at least.
        units: the units to come, all of one class of READS.
    """

    def __init__(self, dense: DenseRun, units: Sequence[ResidualUnit]):
        assert dense.output is not None and dense.remaining is not None
        self._valid = dense.valid
        self._shape = dense.x.shape
        self._dtype = dense.x.dtype
        self._rings = READS[type(units[0])]
        self._rows = _to_rows(dense.x)
        open_share = dense.remaining if self._valid is None else dense.remaining * self._valid[:, 0]
        self._output = _to_rows(torch.addcmul(dense.output, open_share[:, None], dense.x))
        self._remaining = dense.remaining.flatten()
        self._set: Optional[ActiveSet] = None
        self._halted: list[tuple[Tensor, Tensor]] = []  # (positions, their output)
        own = dense.x if self._valid is None else dense.x * self._valid
        own = widened(own)
        number, _, height, width = own.shape
        self._counts = (
            own.new_full((number,), height * width) if self._valid is None else self._valid.sum((1, 2, 3)).to(own.dtype)
        )
        self._sums = own.sum((2, 3))
        # Sums of squares over all positions, for norms that learn their moving statistics.
        self._squares: Optional[Tensor] = None
        if learn_from_positions(units):
            self._squares = own.detach().square().sum((0, 2, 3)).double()

    @override
    def evaluate(self, unit: ResidualUnit, active: Optional[Tensor]) -> None:
        assert active is not None
        active_set = ActiveSet(active, None if self._valid is None else self._valid[:, 0], self._rings)
        outer, inner = active_set.rings[self._rings], active_set.rings[0]
        if self._set is None:
            self._base_output = self._output
            self._rows, self._output = self._rows.index_select(0, outer), self._output.index_select(0, inner)
        elif len(inner) < len(self._set.rings[0]):
            self._rows = self._rows.index_select(0, self._set.index_of(outer, self._rings))
            self._set_halted_aside(active)
        places = active_set.index_in(0, self._rings)
        y = residual(unit, self._rows, active_set).to(self._rows.dtype)
        self._track(y, places, active_set)
        self._rows = self._rows.index_add(0, places, y)
        self._output = torch.addcmul(self._output, self._remaining.index_select(0, inner)[:, None], widened(y))
        self._set = active_set

    def _set_halted_aside(self, active: Tensor) -> None:
        """Moves the output of the positions that halted since the last unit to `_halted`. active: bool [N, H, W]."""
        assert self._set is not None
        positions = self._set.rings[0]
        goes_on = active.flatten().index_select(0, positions)
        halted = (~goes_on).nonzero()[:, 0]
        self._halted.append((positions.index_select(0, halted), self._output.index_select(0, halted)))
        self._output = self._output.index_select(0, goes_on.nonzero()[:, 0])

    def _track(self, y: Tensor, places: Tensor, active_set: ActiveSet) -> None:
        """Updates the sums over all positions that halting branches read. y: [a, C], to be added to rows[places]."""
        with exact_float32(y.device):
            images = torch.arange(len(self._sums), device=y.device)[:, None]
            self._sums = self._sums + (active_set.images == images).to(self._sums.dtype) @ widened(y)
        if self._squares is not None:
            with torch.no_grad():  # (x + y)^2 - x^2
                before = widened(self._rows.detach().index_select(0, places))
                self._squares = self._squares + (y * (2 * before + y)).sum(0).double()

    @override
    def scores(self, branch: HaltingBranch) -> Tensor:
        assert self._set is not None and isinstance(branch, SpatialHalting)
        if self._squares is not None:
            total = self._sums.detach().sum(0).double()
            branch.observe(self._counts.double().sum(), total, self._squares)
        rows = self._rows if self._rings == 1 else self._rows.index_select(0, self._set.index_in(1, self._rings))
        pooled = (self._sums / self._counts[:, None])[..., None, None]
        h = scores(branch, rows, pooled, self._set)
        number, _, height, width = self._shape
        return h.new_zeros(number * height * width).index_copy(0, self._set.rings[0], h).view(number, height, width)

    @override
    def add(self, weight: Tensor) -> None:
        self._remaining = self._remaining - weight.flatten()

    @override
    def result(self) -> Tensor:
        assert self._set is not None
        ends = [*self._halted, (self._set.rings[0], self._output)]
        positions, rows = (torch.cat(parts) for parts in zip(*ends))
        number, channels, height, width = self._shape
        base = self._base_output  # replaced in place, unless a gradient may need it
        output = (base.index_copy if torch.is_grad_enabled() else base.index_copy_)(0, positions, rows)
        return output.view(number, height, width, channels).permute(0, 3, 1, 2).to(self._dtype)


class ImageRun(DenseRun):
    """ACT: units are evaluated for the active images, which may only become fewer from unit to unit.

    Args:
        dense: the run so far; it has evaluated one unit at least.
    """

    def __init__(self, dense: DenseRun):
        super().__init__(dense.x, dense.valid)
        self.output = dense.output
        self._images = torch.arange(len(self.x), device=self.x.device)
        self._pooled = mean_of_images(widened(self.x), self.valid)
        self._halted: list[tuple[Tensor, Tensor]] = []  # (images, their output)

    @override
    def evaluate(self, unit: ResidualUnit, active: Optional[Tensor]) -> None:
        assert active is not None and self.output is not None
        goes_on = active.flatten().index_select(0, self._images)
        keep, halted = goes_on.nonzero()[:, 0], (~goes_on).nonzero()[:, 0]
        self._halted.append((self._images.index_select(0, halted), self.output.index_select(0, halted)))
        self.x, self.output = self.x.index_select(0, keep), self.output.index_select(0, keep)
        self.valid = None if self.valid is None else self.valid.index_select(0, keep)
        self._images = self._images.index_select(0, keep)
        self.x = unit(self.x, None, self.valid, self.valid)
        self._pooled = self._pooled.index_copy(0, self._images, mean_of_images(widened(self.x), self.valid))

    @override
    def scores(self, branch: HaltingBranch) -> Tensor:
        assert isinstance(branch, ImageHalting)
        with exact_float32(self.x.device):
            return branch.scores(self._pooled)[:, None, None]

    @override
    def add(self, weight: Tensor) -> None:
        assert self.output is not None
        self.output = self.output + weight.index_select(0, self._images)[:, None] * self.x

    @override
    def result(self) -> Tensor:
        ends = [*self._halted, (self._images, self.output)]
        images, outputs = (torch.cat(parts) for parts in zip(*ends))
        return outputs.index_select(0, images.argsort()).to(self.x.dtype)


def _to_rows(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [P, C]."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
