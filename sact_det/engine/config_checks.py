"""Checks of a config's values, by the tables of config_table.py and between keys; before anything is built."""

import re
from importlib.util import find_spec
from typing import Any, Iterator, Mapping, Sequence

import torch
from detectron2.config import CfgNode, get_cfg

from sact_det.base.errors import InputError, shown
from sact_det.base.value_rules import Rule
from sact_det.config import add_sact_config
from sact_det.engine.config_table import COMMON


def leaves(cfg: CfgNode, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a config in full, with its value."""
    for name, value in cfg.items():
        if isinstance(value, CfgNode):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def defaults() -> CfgNode:
    """A new config: Detectron2's keys and ours, all with their default values."""
    cfg = get_cfg()
    add_sact_config(cfg)
    return cfg


def value_of(cfg: CfgNode, key: str) -> Any:
    """The value of a full key, such as "MODEL.SACT.TAU"."""
    for name in key.split("."):
        cfg = cfg[name]
    return cfg


def check_ranges(cfg: CfgNode, rules: Mapping[str, Rule]) -> None:
    """Raises InputError, naming key, value and what is expected, unless every rule allows the value of its key."""
    for key, rule in rules.items():
        value = value_of(cfg, key)
        if not rule.allows(value):
            raise InputError(f"{key} must {rule.expected}; got {shown(repr(value))}")


def check_no_effect(cfg: CfgNode, unused: Sequence[str], model: str) -> None:
    """Raises InputError if one of these keys, or of the keys below them, has another value than by default.

    Whoever sets a key expects something of it; without effect, a run would be another one than it says.
    """
    expected = dict(leaves(defaults()))
    below = re.compile("|".join(f"{re.escape(key)}(\\..*)?" for key in unused))
    for key, value in leaves(cfg):
        if _plain(value) != _plain(expected[key]) and below.fullmatch(key):
            raise InputError(f"{key} has no effect on {model}: leave it at {expected[key]!r}; got {shown(repr(value))}")


def _plain(value: Any) -> Any:
    """The value with lists for tuples, as yaml has them."""
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def check_common(cfg: CfgNode) -> None:
    """What every task asks of the keys that both read. Raises InputError."""
    check_ranges(cfg, COMMON)
    solver = cfg.SOLVER
    if solver.REFERENCE_WORLD_SIZE and solver.IMS_PER_BATCH % solver.REFERENCE_WORLD_SIZE:
        raise InputError(
            "SOLVER.IMS_PER_BATCH must be a multiple of SOLVER.REFERENCE_WORLD_SIZE, "
            f"{solver.REFERENCE_WORLD_SIZE}; got {solver.IMS_PER_BATCH}"
        )
    if solver.NESTEROV and not solver.MOMENTUM:
        raise InputError("SOLVER.NESTEROV needs a SOLVER.MOMENTUM above 0; got 0")
    if solver.LR_SCHEDULER_NAME == "WarmupCosineLR" and solver.BASE_LR_END > solver.BASE_LR:
        raise InputError(
            f"SOLVER.BASE_LR_END must be at most SOLVER.BASE_LR, {solver.BASE_LR}; got {solver.BASE_LR_END}"
        )


def check_training(cfg: CfgNode) -> None:
    """What a training needs, beyond an evaluation. Raises InputError."""
    if cfg.MODEL.SACT.BUDGET:
        raise InputError(
            f"MODEL.SACT.BUDGET {cfg.MODEL.SACT.BUDGET:g} is for evaluation: a training changes the weights that it is "
            "calibrated for"
        )
    if cfg.SOLVER.AMP.ENABLED and torch.device(cfg.MODEL.DEVICE).type != "cuda":
        raise InputError(f"SOLVER.AMP.ENABLED: mixed precision needs a GPU; MODEL.DEVICE is {cfg.MODEL.DEVICE!r}")
    if cfg.SOLVER.AMP.HALF_STATES and not cfg.SOLVER.AMP.ENABLED:
        raise InputError("SOLVER.AMP.HALF_STATES True needs SOLVER.AMP.ENABLED True: without it nothing is 16 bits")
    if cfg.SOLVER.RESCALE_INTERVAL and cfg.SOLVER.WARMUP_ITERS >= cfg.SOLVER.MAX_ITER:
        raise InputError(
            "SOLVER.RESCALE_INTERVAL needs steps behind the warm-up: SOLVER.MAX_ITER must be more than "
            f"SOLVER.WARMUP_ITERS, {cfg.SOLVER.WARMUP_ITERS}; got {cfg.SOLVER.MAX_ITER}"
        )
    _check_judges(cfg)
    if cfg.WANDB.PROJECT and find_spec("wandb") is None:
        raise InputError(f"WANDB.PROJECT {cfg.WANDB.PROJECT!r} needs wandb: pip install wandb")


def _check_judges(cfg: CfgNode) -> None:
    """What is measured during a training must be measured now and then, on images."""
    test = cfg.TEST
    if test.PATIENCE and not test.BEST_METRIC:
        raise InputError(f"TEST.PATIENCE {test.PATIENCE} needs a TEST.BEST_METRIC")
    period = "LOSS_PERIOD" if test.BEST_METRIC.startswith("validation/") else "EVAL_PERIOD"
    if test.BEST_METRIC and not test[period]:
        raise InputError(f"TEST.BEST_METRIC {test.BEST_METRIC!r} needs a TEST.{period} above 0")
    for key in ("LOSS_PERIOD", "BEST_METRIC"):
        if test[key] and not cfg.DATASETS.TEST:
            raise InputError(f"TEST.{key} {test[key]!r} needs images: DATASETS.TEST is empty")
