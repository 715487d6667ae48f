"""Detectron2's trainer with repeatable runs and our checkpoints."""

import contextlib
import inspect
import itertools
import logging
import weakref
from pathlib import Path
from typing import Any, Iterator, Optional

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, create_ddp_model
from detectron2.engine.hooks import EvalHook, PeriodicCheckpointer, PeriodicWriter
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, TensorboardXWriter
from detectron2.utils.logger import setup_logger
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler

from sact_det.base.errors import InputError, naming, one_line
from sact_det.base.files import write_json
from sact_det.data.stream import check_batch_size
from sact_det.engine.averaged_weights import AveragedWeights
from sact_det.engine.best_checkpoint import BestCheckpoint, StoppedEarly, metric_period
from sact_det.engine.checkpoint import SACTCheckpointer
from sact_det.engine.config_checks import check_common, check_training
from sact_det.engine.divergence import FiniteCheckpoints
from sact_det.engine.failures import build_model, built, sizes_fit, with_others
from sact_det.engine.interruption import CheckpointAtSignal
from sact_det.engine.introduction import Introduction
from sact_det.engine.kept_checkpoints import KeptCheckpoints
from sact_det.engine.optimizer import build_optimizer
from sact_det.engine.peak_memory import PeakMemory
from sact_det.engine.schedule import follow_epochs
from sact_det.engine.shared_statistics import SharedStatistics
from sact_det.engine.spec import extractor_units
from sact_det.engine.step import Step
from sact_det.engine.step_printer import StepPrinter
from sact_det.engine.tracked_budgets import TrackedBudgets
from sact_det.engine.validation_loss import ValidationLoss
from sact_det.engine.wandb_writer import WandbWriter
from sact_det.engine.writers import DeferredWriter, json_writer
from sact_det.execution import keep_half_states
from sact_det.weights.values import check_values

logger = logging.getLogger(__name__)

# Buffers are every process's own in a forward pass: SharedStatistics sees to norms. PyTorch 2.13 has a new name for it.
_NAMES = inspect.signature(DistributedDataParallel).parameters
_OWN_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers": False
}


def _shorten(record: logging.LogRecord) -> bool:
    """A log filter: Detectron2 shows the traceback of whatever ends a training; errors.py leaves that to the log."""
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        record.msg, record.args, record.exc_info = f"Training ends: {one_line(error)}", (), None
    return True


logging.getLogger("detectron2.engine.train_loop").addFilter(_shorten)


class Trainer(DefaultTrainer):
    """DefaultTrainer whose runs are repeatable: killed and resumed, or split over processes, with SEED >= 0.

    A task is a subclass with `checkpointer_class`, the config's keys that say how large a step's and an evaluation's
    tensors are (`training_sizes`, `test_sizes`), `table_row` and, as in DefaultTrainer, `build_train_loader` (whose
    batch sampler is a BatchStream), `build_test_loader` and `build_evaluator`; `build_validation_loader` gives images
    of a test set with what losses judge them by.

    Raises:
        InputError: a data set cannot be used (those in DATASETS.TEST are looked at before training, not after), or
            what the config describes cannot be built or needs a GPU that there is not.
    """

    checkpointer_class: type[SACTCheckpointer]
    training_sizes: tuple[str, ...]
    test_sizes: tuple[str, ...]

    def __init__(self, cfg: CfgNode):
        # As DefaultTrainer.__init__, but for the checkpointer, and for processes without a GPU.
        super(DefaultTrainer, self).__init__()
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger(distributed_rank=comm.get_rank())
        check_training(cfg)
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        check_common(cfg)  # what was scaled may have become 0
        check_batch_size(cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size(), cfg.SOLVER.ACCUMULATION_STEPS)
        with built("the loader of DATASETS.TEST"):
            for name in cfg.DATASETS.TEST:
                self.build_test_loader(cfg, name)
        model = self.build_model(cfg)
        with built("the optimizer"):
            optimizer = self.build_optimizer(cfg, model)
        with built("the loader of DATASETS.TRAIN"):
            loader = self.build_train_loader(cfg)
        cfg = follow_epochs(cfg, len(loader.dataset))
        if comm.get_world_size() > 1 and cfg.MODEL.DEVICE == "cpu":
            model = DistributedDataParallel(model, **_OWN_BUFFERS)
        else:
            model = create_ddp_model(model, **_OWN_BUFFERS)
        parts, amp = cfg.SOLVER.ACCUMULATION_STEPS, cfg.SOLVER.AMP.ENABLED
        self._trainer = Step(model, loader, optimizer, parts=parts, seed=cfg.SEED, amp=amp)
        with built("the schedule of the learning rate"):
            self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        classes = self.class_names(cfg)
        self.checkpointer = self.checkpointer_class(model, cfg.OUTPUT_DIR, classes=classes, trainer=weakref.proxy(self))
        if cfg.SOLVER.EMA_DECAY:
            self.checkpointer.average(AveragedWeights(self.checkpointer.model, cfg.SOLVER.EMA_DECAY))
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    @classmethod
    def class_names(cls, cfg: CfgNode) -> Optional[list[str]]:
        """Names of the classes in the order of the model's outputs; None: they are unknown."""
        return None

    @classmethod
    def build_model(cls, cfg: CfgNode) -> torch.nn.Module:
        """Builds and logs the model. Raises InputError if it cannot be built or does not fit into memory."""
        model = build_model(cfg)
        keep_half_states(model, cfg.SOLVER.AMP.HALF_STATES)
        logger.debug("Model:\n%s", model)
        return model

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRScheduler:
        """As in DefaultTrainer, but a step in SOLVER.STEPS that the training does not reach is only warned of."""
        steps = tuple(step for step in cfg.SOLVER.STEPS if step < cfg.SOLVER.MAX_ITER)
        if len(steps) < len(cfg.SOLVER.STEPS):
            logger.warning(
                "SOLVER.STEPS %s: MAX_ITER %d comes first", cfg.SOLVER.STEPS[len(steps) :], cfg.SOLVER.MAX_ITER
            )
            cfg = cfg.clone()
            cfg.defrost()
            cfg.SOLVER.STEPS = steps
        return super().build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        """As of optimizer.py."""
        return build_optimizer(cfg, model)

    def build_hooks(self) -> list[Optional[HookBase]]:
        """DefaultTrainer's hooks, and these: processes share the statistics of norms and the shifts of drawn budgets,
        weights are looked at before they are saved, their averages are evaluated, and a signal waits for a checkpoint.
        """
        finite, averages = FiniteCheckpoints(self.cfg.SOLVER.CHECKPOINT_PERIOD), self.checkpointer.averages
        hooks = super().build_hooks()
        if most := self.cfg.SOLVER.CHECKPOINTS_KEPT:
            hooks = [KeptCheckpoints(hook, most) if isinstance(hook, PeriodicCheckpointer) else hook for hook in hooks]
        if averages is not None:
            for hook in hooks:
                if isinstance(hook, EvalHook):
                    hook._func = averages.during(hook._func)
        # The writers come last, so that what is measured behind a step is written with it.
        writers = [hooks.pop()] if isinstance(hooks[-1], PeriodicWriter) else []
        tracked = getattr(self.checkpointer.model, "tracked", None)  # of a model of any trainer's
        shared = [Introduction(), SharedStatistics(), tracked and TrackedBudgets(tracked)]
        shared += [averages and averages.hook(), finite]
        return [*shared, *hooks, *self._judges(), PeakMemory(), *writers, CheckpointAtSignal()]

    def _judges(self) -> Iterator[HookBase]:
        """What looks at images of DATASETS.TEST beside the evaluation, and what follows from both."""
        test, averages = self.cfg.TEST, self.checkpointer.averages
        if test.LOSS_PERIOD:
            loaders = [self.build_validation_loader(self.cfg, name) for name in self.cfg.DATASETS.TEST]
            averaged = contextlib.nullcontext if averages is None else averages.applied
            yield ValidationLoss(test.LOSS_PERIOD, lambda: itertools.chain(*loaders), averaged)
        if test.BEST_METRIC:
            period = metric_period(test.BEST_METRIC, test.EVAL_PERIOD, test.LOSS_PERIOD)
            yield BestCheckpoint(test.BEST_METRIC, test.BEST_METRIC_MODE, period, test.PATIENCE)

    def build_writers(self) -> list[EventWriter]:
        """As in DefaultTrainer, but what earlier runs wrote into OUTPUT_DIR of the steps to come no longer counts."""
        trainer, folder = weakref.proxy(self), self.cfg.OUTPUT_DIR
        return [
            StepPrinter(self.max_iter, extractor_units(self.cfg)),
            DeferredWriter(lambda: json_writer(folder, trainer.start_iter)),
            # TensorBoard hides what earlier runs wrote of these steps.
            DeferredWriter(lambda: TensorboardXWriter(folder, purge_step=trainer.start_iter)),
            *([DeferredWriter(lambda: WandbWriter(trainer.cfg, trainer.start_iter))] if self.cfg.WANDB.PROJECT else []),
        ]

    def resume_or_load(self, resume: bool = True) -> None:
        """As in DefaultTrainer; the data stream continues where the checkpoint was written."""
        super().resume_or_load(resume)
        if self.start_iter >= self.max_iter:
            logger.warning(
                "Nothing is left to train: the run in OUTPUT_DIR %s has done %d steps, SOLVER.MAX_ITER is %d; it is "
                "evaluated",
                self.cfg.OUTPUT_DIR,
                self.start_iter,
                self.max_iter,
            )
        self.data_loader.batch_sampler.start = self.start_iter

    def train(self) -> Any:
        """As in DefaultTrainer.

        Raises:
            InputError: the training diverged (in every process), does not fit into memory, or ended with other results
                than expected.
        """
        try:
            stopped = contextlib.suppress(StoppedEarly)  # the log has said so
            with with_others(), sizes_fit(self.cfg, "a step of the training", self.training_sizes), stopped:
                super(DefaultTrainer, self).train(self.start_iter, self.max_iter)
        except FloatingPointError as error:
            raise InputError(self._diverged(error)) from error
        results = getattr(self, "_last_eval_results", {})
        if comm.is_main_process():
            check_expected_results(self.cfg, results)
        return results

    def after_train(self) -> None:
        """As in DefaultTrainer, but a training that was broken off in its last step is not evaluated."""
        self.storage.iter = self.iter
        for hook in self._hooks:
            if self.iter >= self.max_iter or not isinstance(hook, EvalHook):
                hook.after_train()

    def _diverged(self, error: FloatingPointError) -> str:
        last = self.checkpointer.get_checkpoint_file() if self.checkpointer.has_checkpoint() else ""
        before = f"the last good checkpoint is {last}" if last else "there is no good checkpoint"
        solver, reason = self.cfg.SOLVER, one_line(error).rstrip(".")
        precision = ", or set SOLVER.AMP.ENABLED False" if solver.AMP.ENABLED else ""
        return (
            f"training diverged in step {self.iter}: {before}; lower SOLVER.BASE_LR {solver.BASE_LR:g}, raise "
            f"SOLVER.WARMUP_ITERS {solver.WARMUP_ITERS} or set SOLVER.CLIP_GRADIENTS{precision} ({reason})"
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in DefaultTrainer. Raises InputError if the state is none, or that of an optimiser for another config."""
        another = (
            f"the run in OUTPUT_DIR {self.cfg.OUTPUT_DIR} cannot go on with other parameters that learn or other "
            "learning rate factors than it was begun with (SOLVER, FREEZE_AT, NORM)"
        )
        with naming(another, AttributeError, IndexError, KeyError, TypeError, ValueError):
            super().load_state_dict(state_dict)
        of_run = f"the checkpoint in OUTPUT_DIR {self.cfg.OUTPUT_DIR}"
        if type(self.iter) is not int or self.iter < 0:
            raise InputError(f"{of_run}: its iteration is {self.iter!r}; expected a number of steps")
        for state in self._trainer.optimizer.state.values():
            for name, value in state.items():
                if isinstance(value, Tensor):
                    check_values(f"{of_run}: {name}", value)

    @classmethod
    def table_row(cls, cfg: CfgNode, results: dict[str, Any]) -> str:
        """The results of one data set as a table, in text."""
        raise NotImplementedError

    @classmethod
    def test(cls, cfg: CfgNode, model: torch.nn.Module, evaluators: Any = None) -> dict[str, Any]:
        """DefaultTrainer.test; logs the table row of each data set and writes inference/results.json."""
        with sizes_fit(cfg, "the evaluation", cls.test_sizes):
            results = super().test(cfg, model, evaluators)
        if results and comm.is_main_process():
            by_dataset = results if len(cfg.DATASETS.TEST) > 1 else dict.fromkeys(cfg.DATASETS.TEST, results)
            for name, result in by_dataset.items():
                logger.info("%s:\n%s", name, cls.table_row(cfg, result))
            write_json(Path(cfg.OUTPUT_DIR) / "inference" / "results.json", by_dataset)
        return results


def check_expected_results(cfg: CfgNode, results: dict[str, Any]) -> None:
    """Raises InputError unless an evaluation's results are those of TEST.EXPECTED_RESULTS, within its tolerances."""
    for task, metric, expected, tolerance in cfg.TEST.EXPECTED_RESULTS:
        found = results.get(task, {}).get(metric)
        if found is None or not abs(found - expected) <= tolerance:
            said = "there is none" if found is None else f"got {found}"
            raise InputError(f"TEST.EXPECTED_RESULTS: {task} {metric} must be {expected} to within {tolerance}; {said}")
