"""SOLVER.EPOCHS: a training as long as its data set asks for."""

import logging
from typing import Any

from detectron2.config import CfgNode

from sact_det.engine.config_checks import value_of

# Numbers of steps, beside MAX_ITER and STEPS, that stay in proportion to the length of a training.
_PERIODS = ("SOLVER.CHECKPOINT_PERIOD", "TEST.EVAL_PERIOD", "TEST.LOSS_PERIOD", "VIS_PERIOD")
_STRETCHES = ("SOLVER.WARMUP_ITERS",)

logger = logging.getLogger(__name__)


def follow_epochs(cfg: CfgNode, images: int) -> CfgNode:
    """The config with the schedule that SOLVER.EPOCHS stands for, which is logged; at 0 epochs, the config itself.

    MAX_ITER becomes the number of steps in which every image is seen EPOCHS times, and all other lengths (STEPS,
    WARMUP_ITERS, CHECKPOINT_PERIOD, EVAL_PERIOD, LOSS_PERIOD, VIS_PERIOD) stay in proportion to it, to the nearest
    step; what was more than 0 stays at least 1.

    Args:
        cfg: with SOLVER.IMS_PER_BATCH of all processes together.
        images: in the training set.
    """
    solver = cfg.SOLVER
    if not solver.EPOCHS:
        return cfg
    steps = max(1, round(solver.EPOCHS * images / solver.IMS_PER_BATCH))
    factor = steps / solver.MAX_ITER

    def scaled(length: int) -> int:
        return max(1, round(factor * length)) if length > 0 else length

    changes: dict[str, Any] = {"SOLVER.MAX_ITER": steps, "SOLVER.STEPS": tuple(map(scaled, solver.STEPS))}
    changes.update({key: scaled(value_of(cfg, key)) for key in (*_STRETCHES, *_PERIODS)})
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list([part for pair in changes.items() for part in pair])
    cfg.freeze()
    logger.info(
        "SOLVER.EPOCHS %g: %d images in steps of %d: %s",
        solver.EPOCHS,
        images,
        solver.IMS_PER_BATCH,
        ", ".join(f"{key} {value}" for key, value in changes.items()),
    )
    return cfg
