"""A block: residual units run one after the other under a halting rule.

Shape shorthand in this module:
    N: images; C: channels; H, W: feature map, padding included; L: residual units of the block.
"""

from typing import TYPE_CHECKING, Callable, Optional, Protocol, Sequence

import torch
from torch import Tensor, nn

from sact_det.base.checks import check_choice
from sact_det.base.precision import score_type
from sact_det.base.recording import is_recording
from sact_det.execution.packing import WeightCache, refuse_released
from sact_det.rule.halting import DEFAULT_EPS, share_in_tiles
from sact_det.rule.padding import Sizes, check_batch, own_sizes, positions, strided_size, strided_sizes, valid_mask
from sact_det.rule.ponder import BlockPonder
from sact_det.rule.process import HaltingProcess, TensorHalting

if TYPE_CHECKING:
    from sact_det.network.resnet_v2 import Stem

HALTING_RULES = ("none", "act", "sact")
EXECUTIONS = ("dense", "perforated", "auto")


def check_halting(halting: str, eps: float, tile: int) -> None:
    """Raises ValueError, naming the argument, if there is no such halting rule."""
    check_choice("halting", halting, HALTING_RULES)
    if not 0 < eps < 1:
        raise ValueError(f"`eps` must lie in (0, 1); got {eps}")
    if tile < 1 or (tile > 1 and halting != "sact"):
        raise ValueError(f"`tile` must be 1, or more with halting 'sact'; got {tile} with {halting!r}")


def computes_dense(part: "AdaptiveBlock | Stem") -> bool:
    """Whether a part with an `execution` computes every position in PyTorch: as it is told to, or as it is recorded.

    Raises:
        RuntimeError: it is recorded, and its weights are gone (sact_det/execution/release.py).
    """
    if part.execution == "dense":
        return True
    recording = is_recording()
    if recording:
        refuse_released(part, "to trace, export or compile the model")
    return recording


class HaltingBranch(nn.Module):
    """H^l: scores the output of a unit (eq. 4).

    Its parameters do not follow where a module is cast to 16 bits: scores are computed in float32 at least.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "HaltingBranch":
        def keep_precision(t: Tensor) -> Tensor:
            changed = fn(t)
            narrow = changed.dtype in (torch.float16, torch.bfloat16)
            return t.to(changed.device, score_type(changed.dtype)) if narrow else changed

        return super()._apply(keep_precision, recurse)

    def forward(self, x: Tensor, valid: Optional[Tensor] = None) -> Tensor:
        """x: [N, C, H, W] -> h^l in (0, 1), of score_type [N, H, W] or, one per image, [N, 1, 1]."""
        raise NotImplementedError

    def flops(self, evaluated: Tensor, image_active: Tensor) -> Tensor:
        """FLOPs of the branch, int64 [N].

        Args:
            evaluated: int64 [N], positions at which the unit is evaluated.
            image_active: bool [N], whether the image evaluates the unit at all.
        """
        raise NotImplementedError


class ResidualUnit(nn.Module):
    """F^l: one residual unit (eq. 2) and, behind all but the last of a block, its halting branch."""

    in_channels: int
    conv1: nn.Conv2d
    stride: int
    halting: Optional[HaltingBranch]

    def forward(
        self,
        x: Tensor,
        active: Optional[Tensor] = None,
        valid_in: Optional[Tensor] = None,
        valid: Optional[Tensor] = None,
    ) -> Tensor:
        """The unit everywhere; halted positions keep their state.

        Args:
            x: [N, C, H, W].
            active: bool [N, 1, H or 1, W or 1]; the residual is zero elsewhere (fig. 5). None: active everywhere.
            valid_in, valid: bool [N, 1, ., .] at input and output resolution, False at padding; None: no padding.
        """
        raise NotImplementedError

    def flops(
        self, dense_in: Tensor, dense_out: Tensor, active: Optional[Tensor] = None, dilated: Optional[Tensor] = None
    ) -> Tensor:
        """FLOPs of the unit without its halting branch, int64 [N].

        Args:
            dense_in, dense_out: int64 [N], positions of each image at input and output resolution.
            active, dilated: int64 [N], active positions and their dilation; None for a unit computed everywhere.
        """
        raise NotImplementedError


class Run(Protocol):
    """An evaluation of a block that computes what the halting rule asks for, unit by unit.

    It starts behind the block's first unit.

    Attributes:
        bounded: a unit at no position costs next to nothing and needs no check beforehand, which would wait for a GPU.
    """

    bounded: bool = False

    def start_halting(
        self, exists: Tensor, num_units: int, eps: float, per_image: bool, dtype: torch.dtype
    ) -> HaltingProcess:
        """What halts the positions of this run, and of any that takes over; arguments as of TensorHalting."""
        return TensorHalting(exists, num_units, eps, per_image, dtype)

    def evaluate(self, unit: ResidualUnit, active: Optional[Tensor]) -> None:
        """Updates the state by a unit where active, bool [N, H, W] (ACT: [N, 1, 1]; a plain block: None)."""

    def scores(self, branch: HaltingBranch) -> Tensor:
        """h^l of the state, of its score_type, [N, H, W] (ACT: [N, 1, 1]); anything finite where no longer active.

        The branch is that of the unit evaluated last.
        """

    def add(self, weight: Tensor) -> None:
        """Adds the state, weighted by p^l, [N, H, W], to the output; in the end the weights sum to 1."""

    def result(self) -> Tensor:
        """The output of the block, [N, C, H, W]; where nothing was added (a plain block), the state. Ends the run."""


class DenseRun(Run):
    """Execution "dense": every position of every unit; the residual is masked where a position has halted.

    Args:
        x: output of the first unit, [N, C, H, W].
        valid: bool [N, 1, H, W], False at padding, or None.
    """

    def __init__(self, x: Tensor, valid: Optional[Tensor]):
        self.x = x
        self.valid = valid
        self.output: Optional[Tensor] = None
        self.remaining: Optional[Tensor] = None  # 1 - sum of the weights so far

    def evaluate(self, unit: ResidualUnit, active: Optional[Tensor]) -> None:
        """See Run."""
        self.x = unit(self.x, None if active is None else active[:, None], self.valid, self.valid)

    def scores(self, branch: HaltingBranch) -> Tensor:
        """See Run."""
        return branch(self.x, self.valid)

    def add(self, weight: Tensor) -> None:
        """See Run."""
        weighted = weight[:, None] * self.x
        self.output = weighted if self.output is None else self.output + weighted
        self.remaining = (1.0 if self.remaining is None else self.remaining) - weight

    def result(self) -> Tensor:
        """See Run."""
        if self.output is None:
            return self.x if self.valid is None else self.x * self.valid
        return self.output.to(self.x.dtype)


class AdaptiveBlock(nn.Module):
    """Runs residual units under a halting rule (algorithms 1 and 2) and accounts for the computation.

    Execution "dense" is the reference: batch statistics see what they saw in the original program. "perforated"
    computes the active positions only (of all units but the first), where no norm depends on the batch: in evaluation,
    and in training with frozen norms. "auto" perforates a unit where that is faster. In float32 on a CPU, inference
    and training with frozen norms run in kernels of our own under both (sact_det/execution/cpu); inference of plain
    blocks too. Halting scores, and what is made of them, are float32 for features of 16 bits, and else of their type.

    In evaluation a block stops as soon as every position has halted; in training all units run, so that their norms and
    every process see the same graph. Where PyTorch records it (sact_det/base/recording.py), a block computes dense and
    runs all units, so that the recording holds for any input.

    Args:
        units: the residual units; the first may have a stride.
        halting: "none" (plain ResNet), "act" (one decision per image) or "sact" (one per position).
        eps: halts where the cumulative halting score reaches 1 - eps.
        tile: SACT shares halting scores in tile x tile cells.

    Raises:
        ValueError: an argument is out of range.
    """

    units: Sequence[ResidualUnit]

    def __init__(self, units: Sequence[ResidualUnit], halting: str = "none", eps: float = DEFAULT_EPS, tile: int = 1):
        super().__init__()
        check_halting(halting, eps, tile)
        if not units:
            raise ValueError("`units`: a block needs at least one residual unit")
        self.units = nn.ModuleList(units)  # type: ignore[assignment]
        self.halting = halting
        self.eps = eps
        self.tile = tile
        self.execution = "dense"
        self.weight_cache = WeightCache()  # what runs make of the weights

    def train(self, mode: bool = True) -> "AdaptiveBlock":
        """See nn.Module."""
        if mode:
            refuse_released(self, "for training")
        self.weight_cache.clear()
        return super().train(mode)

    def set_execution(self, execution: str) -> None:
        """How the block computes: one of EXECUTIONS. Parameters and results do not depend on it."""
        check_choice("execution", execution, EXECUTIONS)
        if execution == "dense":
            refuse_released(self, 'for execution "dense"')
        self.execution = execution

    def forward(self, x: Tensor, sizes: Optional[Sizes] = None) -> tuple[Tensor, BlockPonder]:
        """Evaluates the block.

        Args:
            x: [N, C, H, W]; without images there is nothing to compute, and that is the result.
            sizes: (height, width) of each image's own part of x, or None.

        Returns:
            The features and the BlockPonder.

        Raises:
            ValueError: x is no batch, or `sizes` does not fit it.
        """
        check_batch("x", x, sizes)
        sizes_in = own_sizes(sizes, (x.shape[2], x.shape[3]))
        valid_in = valid_mask(sizes_in, (x.shape[2], x.shape[3]), x.device)
        dense_in = positions(sizes_in, (x.shape[2], x.shape[3]), x.shape[0], x.device)
        stride = self.units[0].stride
        sizes_out = strided_sizes(sizes_in, stride)
        map_size = strided_size((x.shape[2], x.shape[3]), stride)
        valid = valid_mask(sizes_out, map_size, x.device)
        dense_out = positions(sizes_out, map_size, x.shape[0], x.device)

        exists = torch.ones(x.shape[0], *map_size, dtype=torch.bool, device=x.device) if valid is None else valid[:, 0]
        total = self.units[0].flops(dense_in, dense_out)
        run = self._start(x, valid_in, valid)
        if self.halting == "none":
            return self._run_plain(run, exists, sizes_out, dense_out, total, score_type(x.dtype))
        return self._run_adaptive(run, exists, sizes_out, dense_out, total, score_type(x.dtype))

    def _run_plain(
        self, run: Run, exists: Tensor, sizes: Optional[Sizes], dense: Tensor, total: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, BlockPonder]:
        for unit in self.units[1:]:
            run.evaluate(unit, None)
            total = total + unit.flops(dense, dense)
        # h^1 = ... = h^(L-1) = 0, h^L = 1 recovers the plain block: N = L, R = 1.
        shape = (exists.shape[0], len(self.units), *exists.shape[1:])
        distribution = torch.zeros(shape, dtype=dtype, device=exists.device)
        distribution[:, -1] = exists
        ponder = BlockPonder(
            ponder_cost=(len(self.units) + 1) * exists.to(dtype),
            num_units=len(self.units) * exists.long(),
            flops=total,
            halting_distribution=distribution,
            sizes=sizes,
        )
        return run.result(), ponder

    def _run_adaptive(
        self, run: Run, exists: Tensor, sizes: Optional[Sizes], dense: Tensor, total: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, BlockPonder]:
        """Algorithm 2 (1 for ACT) from the first unit's output on."""
        per_image = self.halting == "act"
        process = run.start_halting(exists, len(self.units), self.eps, per_image, dtype)
        may_stop = not (self.training or run.bounded or is_recording())
        for index, unit in enumerate(self.units):
            if may_stop and not process.any_active():
                break
            if index > 0:
                run = self._continue(run, index, process.active)
                run.evaluate(unit, process.active)
            h = None
            if unit.halting is not None:
                h = share_in_tiles(run.scores(unit.halting), self.tile, None if sizes is None else exists)
            p = process.step(h)
            run.add(p * exists if per_image else p)
        outcome = process.outcome()
        # Units that nobody evaluated count, too: what counts dense does so whatever else is in the batch.
        counts = zip(outcome.evaluated.unbind(1), outcome.dilated.unbind(1))
        for index, (unit, (evaluated, dilated)) in enumerate(zip(self.units, counts)):
            if index > 0:
                total = total + unit.flops(dense, dense, evaluated, dilated)
            if unit.halting is not None:
                total = total + unit.halting.flops(evaluated, evaluated > 0)
        ponder = BlockPonder(
            ponder_cost=outcome.ponder_cost,
            num_units=outcome.num_units,
            flops=total,
            halting_distribution=outcome.distribution,
            sizes=None if per_image else sizes,
        )
        return run.result(), ponder

    def _start(self, x: Tensor, valid_in: Optional[Tensor], valid: Optional[Tensor]) -> Run:
        """The run that evaluates the first unit at x."""
        if not computes_dense(self):
            from sact_det.execution.choice import start_run  # late: it knows the units, which know this module

            run = start_run(self, x, valid_in, valid)
            if run is not None:
                return run
        return DenseRun(self.units[0](x, None, valid_in, valid), valid)

    def _continue(self, run: Run, index: int, active: Tensor) -> Run:
        """The run that evaluates unit `index`: the present one, or a perforated one that takes over from it."""
        if type(run) is not DenseRun or computes_dense(self):
            return run
        from sact_det.execution.choice import continue_run  # late, as above

        return continue_run(self, run, index, active)
