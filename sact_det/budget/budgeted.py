"""A model that is told at run time which share of the plain network's FLOPs it may take."""

import bisect
import logging
import statistics
import time
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence, Union

import numpy as np
import torch
from torch import Tensor, nn

from sact_det.base.errors import InputError
from sact_det.budget.drawing import Drawing
from sact_det.budget.statistics import Substitutes, budgeted_norms
from sact_det.budget.table import FILE_NAME, BudgetTable, check_budget, weights_digest
from sact_det.budget.tracked import TrackedShifts
from sact_det.network.block import AdaptiveBlock

_RUNS = 3
_TRACKED = "tracked_shifts"

logger = logging.getLogger(__name__)


def halting_blocks(model: nn.Module) -> dict[str, AdaptiveBlock]:
    """The blocks of a model in which something halts, by the last part of their names: "block1", ..."""
    parts = ((name.rsplit(".", 1)[-1], part) for name, part in model.named_modules())
    blocks = {name: part for name, part in parts if isinstance(part, AdaptiveBlock)}
    return {name: block for name, block in blocks.items() if block.rule.adaptive and len(block.units) > 1}


def seconds_of(model: Any, image: Any) -> float:
    """The seconds that a model takes for an image: the median of a few runs, behind one that is not timed."""
    times = []
    for _ in range(1 + _RUNS):
        start = time.perf_counter()
        model([image])
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


class Budgeted:
    """A mixin before nn.Module: a network of AdaptiveBlocks, anywhere inside it, whose budget can be chosen.

    Attributes:
        budget: the present one; None: as trained.
        image_scale: in evaluation the network sees images so much smaller, in (0, 1]; the budget says it.
        trained_shifts: block -> its shift without a budget, where not 0, by the weights' description; None: all 0.
        asked_budget: that a config wants (MODEL.SACT.BUDGET), for whoever loads weights; None: as trained.
        deadline: seconds that an image may take in evaluation; None: any number. `meet_deadline` sees to it.
        drawing: what `draw_shift` draws; None: nothing. `begin_drawing` sets it.
        budget_file: where `set_budget` looks for the table of the present weights. A checkpointer that loads a file
            says so; None: nowhere.
    """

    budget: Optional[float] = None
    image_scale: float = 1.0
    trained_shifts: Optional[Mapping[str, float]] = None
    asked_budget: Optional[float] = None
    deadline: Optional[float] = None
    drawing: Optional[Drawing] = None
    budget_file: Optional[Path] = None
    _table: Optional[BudgetTable] = None
    _substitutes: Optional[Substitutes] = None  # statistics of norms that are not those of the training
    _fitting: Optional[dict[tuple[int, ...], float]] = None  # (height, width) -> the budget that meets the deadline

    def set_budget(self, budget: Optional[float], table: Union[BudgetTable, str, Path, None] = None) -> None:
        """Spends this share of the plain network's FLOPs from now on.

        It sets the shifts of the blocks' halting scores and, where the table has them, the scale of images and the
        statistics of norms.

        Between calibrated budgets all are interpolated; outside of them the nearest is taken, with a warning. At 1
        nothing halts early, so that features are the plain network's (with these statistics), while halting scores are
        still computed.

        Args:
            budget: in (0, 1], of the network's own plain counterpart; which part is counted, the table says. None: as
                trained.
            table: of the present weights, or its file; default: that of the last call, else `budget_file`.

        Raises:
            InputError: the budget is out of range, nothing in the model halts, or there is no table of its weights.
        """
        assert isinstance(self, nn.Module)
        if budget is not None:
            check_budget("budget", budget)
        blocks = halting_blocks(self)
        if budget is not None and not blocks:
            raise InputError(f"a budget of {budget:g} needs a network that halts; this one is plain")
        shifts = {name: (self.trained_shifts or {}).get(name, 0.0) for name in blocks}
        statistics: Mapping[str, np.ndarray] = {}
        scale = 1.0
        if budget is not None:
            of_weights = self._table_of_weights(table)
            shifts |= of_weights.shifts(budget)
            scale, statistics = of_weights.scale(budget), of_weights.statistics(budget)
        self.normalize_by(statistics)
        self.image_scale = scale
        for name, block in blocks.items():
            block.shift = shifts[name]
        self.budget = budget

    @property
    def present_scale(self) -> float:
        """What the network's images are scaled by now: `image_scale` in evaluation, 1 in training."""
        assert isinstance(self, nn.Module)
        return 1.0 if self.training else self.image_scale

    def normalize_by(self, statistics: Mapping[str, np.ndarray]) -> None:
        """In evaluation norms have these statistics from now on, means and variances [2, C] by name.

        The others have those of the training. What was packed of the weights for one of the last budgets is found
        again.
        """
        assert isinstance(self, nn.Module)
        norms = budgeted_norms(self)
        self._substitutes = self._substitutes or Substitutes()
        substitutes = self._substitutes.of(statistics, norms)
        for name, norm in norms.items():
            norm.substitute(*substitutes.get(name, ()))

    def _table_of_weights(self, table: Union[BudgetTable, str, Path, None]) -> BudgetTable:
        """The table, after a look whether it is of the present weights."""
        assert isinstance(self, nn.Module)
        if table is None and self._table is not None:
            return self._table
        source = self.budget_file if table is None else table
        if source is None:
            raise InputError(f"no budgets are known of these weights: name their {FILE_NAME}")
        where = "the table" if isinstance(source, BudgetTable) else str(source)
        found = source if isinstance(source, BudgetTable) else BudgetTable.read(source)
        own, blocks = weights_digest(self), set(halting_blocks(self))
        norms = {name: norm.num_features for name, norm in budgeted_norms(self).items()}
        fits = blocks.issuperset(found.points[0].shifts) and all(norms.get(name) == c for name, c in found.channels())
        if found.weights != own or not fits:
            raise InputError(
                f"{where}: budgets of other weights (digest {found.weights[:12]}; expected {own[:12]}): "
                "tools/calibrate_budget.py measures those of these"
            )
        self._table = found
        return found

    def meet_deadline(self, inputs: Sequence[Any]) -> None:
        """Takes the largest calibrated budget that meets `deadline` at the size of these images, on this machine.

        It is measured where a size is met for the first time, one image at a time, and logged. Where no budget meets
        the deadline, the least is taken, with a warning.

        Args:
            inputs: of the model, Detectron2's list of dicts; the first one counts.

        Raises:
            InputError: as of `set_budget`.
        """
        deadline = self.deadline
        if deadline is None or not inputs:
            return
        size = tuple(inputs[0]["image"].shape[-2:])
        self._fitting = {} if self._fitting is None else self._fitting
        if size not in self._fitting:
            self.deadline = None  # what is measured has none
            try:
                self._fitting[size] = self._largest_within(deadline, inputs[0], size)
            finally:
                self.deadline = deadline
        self.set_budget(self._fitting[size])

    def _largest_within(self, deadline: float, image: Any, size: tuple[int, ...]) -> float:
        budgets = [point.budget for point in self._table_of_weights(None).points]
        seconds: dict[float, float] = {}

        def is_late(budget: float) -> bool:
            self.set_budget(budget)
            seconds[budget] = seconds_of(self, image)
            return seconds[budget] > deadline

        fitting = bisect.bisect_left(budgets, True, key=is_late)
        budget = budgets[max(fitting - 1, 0)]
        said = f"{1000 * seconds[budget]:.0f} ms at {size[0]}x{size[1]} pixels"
        if fitting == 0:
            logger.warning(
                "No budget meets the deadline of %g ms: the least, %g, takes %s", 1000 * deadline, budget, said
            )
        else:
            logger.info("Budget %g meets the deadline of %g ms: it takes %s", budget, 1000 * deadline, said)
        return budget

    def begin_drawing(self, drawing: Optional[Drawing]) -> None:
        """Draws this in every step of a training from now on; None: nothing."""
        assert isinstance(self, nn.Module)
        self.drawing = drawing
        self._modules.pop(_TRACKED, None)
        if drawing is not None and drawing.draws == "budget":
            self.add_module(_TRACKED, TrackedShifts(drawing.low, drawing.high))

    @property
    def tracked(self) -> Optional[TrackedShifts]:
        """The shifts of drawn budgets; None: shifts are drawn, or prices, or nothing."""
        assert isinstance(self, nn.Module)
        return self._modules.get(_TRACKED)  # type: ignore[return-value]

    def draw_shift(self, images: int) -> Optional[Tensor]:
        """For a step of a training that is to make a network good at every budget: draws the shift of all its blocks.

        It is even over the range of `drawing`, by PyTorch's generator of the CPU, or that of a budget which is, and
        lasts until the next one is drawn or the model is evaluated, which has the shifts of its budget.

        Args:
            images: N, of the step.

        Returns:
            The shift or the budget of each image, float32 [N] on the CPU; None if nothing is drawn.
        """
        if self.drawing is None:
            return None
        assert isinstance(self, nn.Module)
        drawn = self.drawing.draw(images)
        device = next(self.parameters()).device
        shift: Union[float, Tensor] = float(drawn[0])
        if self.tracked is not None:
            shift = self.tracked(drawn.to(device))
        elif self.drawing.per_image:
            shift = drawn.to(device)
        for block in halting_blocks(self).values():
            block.shift = shift
        return drawn

    def observe_spent(self, drawn: Tensor, spent: Tensor) -> None:
        """Tells the shifts of drawn budgets what they did; does nothing where others are drawn.

        Args:
            drawn: as `draw_shift` returned it, [N].
            spent: FLOPs of each image in shares of the plain network's, [N].
        """
        if self.tracked is not None:
            self.tracked.observe(drawn, spent)

    def own_shifts(self) -> dict[str, float]:
        """Block -> its shift, of those that have one which is neither a budget's nor drawn: what weights go with."""
        assert isinstance(self, nn.Module)
        if self.budget is not None or self.drawing is not None:
            return dict(self.trained_shifts or {})
        shifts = {name: block.shift for name, block in halting_blocks(self).items()}
        return {name: shift for name, shift in shifts.items() if isinstance(shift, float) and shift}

    def train(self, mode: bool = True) -> Any:
        """nn.Module's; an evaluation has no shift that was drawn."""
        module = super().train(mode)  # type: ignore[misc]
        if not mode and self.drawing is not None:
            self.set_budget(self.budget)
        return module

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """nn.Module's; the budget of the weights before goes with them, and so does its table."""
        loaded = super().load_state_dict(*args, **kwargs)  # type: ignore[misc]
        self.trained_shifts = None
        self.set_budget(None)
        self._table = self.budget_file = self._fitting = None
        return loaded
