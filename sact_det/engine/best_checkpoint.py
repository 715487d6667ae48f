"""The checkpoint that a metric likes best is kept, and a training that no longer improves ends."""

import math
from pathlib import Path
from typing import Optional

from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from typing_extensions import override

from sact_det.base.errors import InputError
from sact_det.engine.divergence import check_weights
from sact_det.engine.validation_loss import PREFIX
from sact_det.weights.weight_file import load_torch

BEST = "model_best"


class StoppedEarly(Exception):
    """A metric has been no better for as many evaluations as it was given."""


class BestCheckpoint(HookBase):
    """Detectron2's BestCheckpointer, whose best survives a resumption, and which may end a training.

    model_best.pth says which metric it is the best of, its value and the number of steps; a resumed run goes on from
    there. It never is the checkpoint that --resume goes on with. NaN is never the best.

    It stands behind the hooks that evaluate, in all processes.

    Args:
        metric: of an evaluation, "bbox/AP" (with several data sets "NAME/bbox/AP"), or a validation loss.
        mode: "max" or "min" is the best.
        period: of the evaluations, in steps.
        patience: evaluations without a better value behind which the training ends (StoppedEarly), its last weights
            saved; 0: it never does.

    Raises:
        InputError: there is no such metric.
    """

    def __init__(self, metric: str, mode: str, period: int, patience: int = 0):
        self._metric, self._sign, self._period, self._patience = metric, 1 if mode == "max" else -1, period, patience
        self._value, self._steps = -math.inf, 0  # the higher, the better

    @override
    def before_train(self) -> None:
        path = Path(self.trainer.checkpointer.save_dir) / f"{BEST}.pth"
        if self.trainer.start_iter and path.exists():
            best = load_torch(path).get("best", {})
            if best.get("metric") == self._metric:
                self._value, self._steps = self._sign * best["value"], best["steps"]
        self._end_if_stale(self.trainer.start_iter)

    @override
    def after_step(self) -> None:
        steps = self.trainer.iter + 1
        if steps % self._period == 0 and steps != self.trainer.max_iter:
            self._look(steps)
            if self._is_stale(steps):
                self.trainer.checkpointer.save("model_final", iteration=self.trainer.iter)
            self._end_if_stale(steps)

    @override
    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:  # its evaluation has just been done
            self._look(self.trainer.max_iter)

    def _look(self, steps: int) -> None:
        """The value of the main process, which alone has it, counts in all."""
        value, known = comm.all_gather((self._measured(), self._known()))[0]
        if value is None:
            raise InputError(f"TEST.BEST_METRIC {self._metric!r}: there is no such number; there are {known}")
        if self._sign * value > self._value:  # not so if it is NaN
            self._value, self._steps = self._sign * value, steps
            check_weights(self.trainer.checkpointer.model.state_dict())  # in all processes
            best = {"metric": self._metric, "value": value, "steps": steps}
            self.trainer.checkpointer.save(BEST, is_last=False, best=best, iteration=steps - 1)

    def _measured(self) -> Optional[float]:
        latest = get_event_storage().latest().get(self._metric)
        return None if latest is None else float(latest[0])

    def _known(self) -> str:
        results = getattr(self.trainer, "_last_eval_results", None) or {}
        losses = [name for name in get_event_storage().latest() if name.startswith(PREFIX)]
        return ", ".join([*flatten_results_dict(results), *losses]) or "none"

    def _is_stale(self, steps: int) -> bool:
        known = self._steps > 0 and self._patience > 0
        return known and steps - self._steps >= self._patience * self._period

    def _end_if_stale(self, steps: int) -> None:
        if self._is_stale(steps):
            raise StoppedEarly(
                f"{self._metric} has been no better than {self._sign * self._value:.4f}, behind step {self._steps}, "
                f"for {self._patience} evaluations (TEST.PATIENCE); {BEST}.pth has it"
            )


def metric_period(metric: str, evaluations: int, losses: int) -> int:
    """How often a metric is measured: by evaluations, or, where it is a validation loss, with these."""
    return losses if metric.startswith(PREFIX) else evaluations
