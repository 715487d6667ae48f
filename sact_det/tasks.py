"""The tasks: what a command line needs to train and evaluate whatever a config's meta-architecture is."""

from typing import Callable, NamedTuple, Sequence

import sact_det.engine

# isort: split
from detectron2.config import CfgNode

import sact_det.classification.setup
import sact_det.detection.setup
from sact_det.base.errors import InputError
from sact_det.classification.trainer import ClassificationTrainer
from sact_det.detection.absent_data import do_without_absent_data
from sact_det.detection.trainer import DetectionTrainer
from sact_det.engine.setup import merge_config
from sact_det.engine.trainer import Trainer


class Task(NamedTuple):
    """`prepare` checks a config with its overrides and registers its data sets; `trainer` trains and evaluates."""

    prepare: Callable[[CfgNode, Sequence[str]], None]
    trainer: type[Trainer]


TASKS = {
    "SACTGeneralizedRCNN": Task(sact_det.detection.setup.prepare, DetectionTrainer),
    "SACTRetinaNet": Task(sact_det.detection.setup.prepare, DetectionTrainer),
    "SACTPanopticFPN": Task(sact_det.detection.setup.prepare, DetectionTrainer),
    "SACTClassifier": Task(sact_det.classification.setup.prepare, ClassificationTrainer),
}


def task_of(cfg: CfgNode) -> Task:
    """The task of MODEL.META_ARCHITECTURE. Raises InputError if there is none."""
    name = cfg.MODEL.META_ARCHITECTURE
    if name not in TASKS:
        raise InputError(f"MODEL.META_ARCHITECTURE must be one of {', '.join(TASKS)}; got {name!r}")
    return TASKS[name]


def load_config(config_file: str, overrides: Sequence[str] = (), data: bool = True) -> CfgNode:
    """A frozen, checked config: Detectron2's defaults, ours, the file's, then KEY VALUE overrides.

    The data sets that it lists are registered.

    Args:
        config_file: a yaml.
        overrides: keys and values, one after the other.
        data: the data sets must be there. False: a detector may do without them, if its weights know their classes.

    Raises:
        InputError: the file or an override cannot be used (engine/setup.py), the meta-architecture is no task of this
            project, or a value is out of range.
    """
    cfg = merge_config(config_file, overrides)
    task = task_of(cfg)
    if not data and task.trainer is DetectionTrainer:
        do_without_absent_data(cfg, overrides)
    task.prepare(cfg, overrides)
    cfg.freeze()
    return cfg
