"""From a config file and command-line overrides to a config; what every task checks in it."""

import contextlib
import math
import re
from typing import Iterator, Sequence

import torch
from detectron2.config import CfgNode, get_cfg
from fvcore.common.registry import Registry

from sact_det.block import EXECUTIONS, check_choice
from sact_det.config import add_sact_config, spec_from_config
from sact_det.engine.config_file import read_config_files
from sact_det.errors import InputError, one_line
from sact_det.network_spec import NetworkSpec, are_positive_integers
from sact_det.norm import NORMS


def merge_config(config_file: str, overrides: Sequence[str] = ()) -> CfgNode:
    """Detectron2's defaults, ours, the file's, then KEY VALUE overrides; not frozen.

    MODEL.DEVICE falls back to the CPU where there is no GPU.

    Raises:
        InputError: the file, or one that it builds on, is missing or not yaml, a key does not exist, or a value has the
            wrong type.
    """
    cfg = get_cfg()
    add_sact_config(cfg)
    for name, tree in read_config_files(config_file) if config_file else ():
        if tree.get("VERSION", cfg.VERSION) != cfg.VERSION:
            raise InputError(f"{name}: VERSION must be {cfg.VERSION}; got {tree['VERSION']!r}")
        try:
            cfg.merge_from_other_cfg(CfgNode(tree))
        except Exception as error:  # yacs raises whatever it likes
            raise InputError(f"{name}: {one_line(error)}") from error
    if len(overrides) % 2:
        raise InputError(f"overrides come as KEY VALUE pairs; got {' '.join(overrides)}")
    for key, value in zip(overrides[::2], overrides[1::2]):
        try:
            cfg.merge_from_list([key, value])
        except Exception as error:
            raise InputError(f"{key} {value}: {one_line(error)}") from error
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    return cfg


@contextlib.contextmanager
def arguments_are_keys(node: str) -> Iterator[None]:
    """Turns a ValueError that names an `argument` into an InputError that names the key NODE.ARGUMENT."""
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        message = re.sub(r"`(\w+)`", lambda name: f"{node}.{name[1].upper()}", str(error), count=1)
        raise InputError(message) from error


def check_sact(cfg: CfgNode, family: type[NetworkSpec], reference_blocks: int) -> None:
    """Has the network's own checks judge MODEL.SACT, before any work is done.

    Args:
        cfg: the config.
        family: of networks.
        reference_blocks: how many blocks REFERENCE_UNITS describes.

    Raises:
        InputError: a value is out of range.
    """
    sact = cfg.MODEL.SACT
    if cfg.MODEL.BACKBONE.FREEZE_AT < 0:
        raise InputError(f"MODEL.BACKBONE.FREEZE_AT must be 0 or more; got {cfg.MODEL.BACKBONE.FREEZE_AT}")
    for key in ("HALTING_LR_FACTOR", "BACKBONE_LR_FACTOR"):
        if not 0 < cfg.SOLVER[key] < math.inf:
            raise InputError(f"SOLVER.{key} must be a finite positive number; got {cfg.SOLVER[key]}")
    with arguments_are_keys("MODEL.SACT"):
        spec_from_config(cfg, family)
        check_choice("box_head_norm", sact.BOX_HEAD_NORM, ("", *NORMS))
        check_choice("box_head_halting_norm", sact.BOX_HEAD_HALTING_NORM, ("", *NORMS))
        check_choice("execution", sact.EXECUTION, EXECUTIONS)
        if not 0 <= sact.TAU < math.inf:
            raise ValueError(f"`tau` must be a finite number, 0 or more; got {sact.TAU}")
        if len(sact.REFERENCE_UNITS) != reference_blocks or not are_positive_integers(sact.REFERENCE_UNITS):
            raise ValueError(
                f"`reference_units` must list {reference_blocks} positive integers; got {sact.REFERENCE_UNITS}"
            )


def check_registered(key: str, name: str, registry: Registry) -> None:
    """Raises InputError, naming the key, if `name` is not in one of Detectron2's registries."""
    if name not in registry:
        known = sorted(entry for entry, _ in registry)
        raise InputError(f"{key} must be one of {', '.join(known)}; got {name!r}")
