"""From a config file and command-line overrides to a config; what every task checks in it."""

import contextlib
import difflib
import logging
import re
from pathlib import Path
from typing import Any, Iterator, Sequence

import torch
from detectron2.config import CfgNode
from fvcore.common.registry import Registry

from sact_det.base.checks import are_positive_integers
from sact_det.base.errors import InputError, one_line, shown
from sact_det.engine.config_checks import check_common, check_ranges, defaults, leaves
from sact_det.engine.config_file import read_config_files
from sact_det.engine.config_table import COMMON
from sact_det.engine.from_weights import take_description
from sact_det.engine.spec import spec_from_config
from sact_det.network.halting_rule import HALTING_RULES
from sact_det.network.spec import NetworkSpec

logger = logging.getLogger(__name__)

_DRAWN = ("MODEL.SACT.TAU", *(f"MODEL.SACT.BUDGET_TRAINING{of}" for of in ("", "_DRAWS", "_PER")))
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")  # on Linux, where the driver is loaded


def merge_config(config_file: str, overrides: Sequence[str] = ()) -> CfgNode:
    """Detectron2's defaults, ours, the file's, then KEY VALUE overrides; not frozen.

    A whole number does for a key that takes any. Under MODEL.SACT.FROM_WEIGHTS the weights say what the network is
    (from_weights.py). Where there is no GPU, MODEL.DEVICE falls back to the CPU, unless it
    is overridden.

    Raises:
        InputError: the file, or one that it builds on, is missing or not yaml, a key does not exist, or a value has the
            wrong type; or a GPU is asked for by name where there is none; or the weights need another config.
    """
    cfg, given = defaults(), set(overrides[::2])
    for name, tree in read_config_files(config_file) if config_file else ():
        if tree.get("VERSION", cfg.VERSION) != cfg.VERSION:  # what it says has another meaning
            raise InputError(f"{name}: VERSION must be {cfg.VERSION}; got {tree['VERSION']!r}")
        for key, value in _keys_of(tree, cfg):
            _set(cfg, key, value, f"{name}: ")
            given.add(key)
    if len(overrides) % 2:
        raise InputError(f"overrides come as KEY VALUE pairs; got {' '.join(overrides)}")
    for key, value in zip(overrides[::2], overrides[1::2]):
        _set(cfg, key, value, f"{key} {shown(str(value))}: ")
    if cfg.MODEL.SACT.FROM_WEIGHTS:
        take_description(cfg, given, overrides[::2])
    if re.fullmatch(r"cuda(:\d+)?", cfg.MODEL.DEVICE) and not torch.cuda.is_available():
        _fall_back_to_the_cpu(cfg, asked="MODEL.DEVICE" in overrides[::2])
    return cfg


def _fall_back_to_the_cpu(cfg: CfgNode, asked: bool) -> None:
    """For a machine without a GPU that PyTorch can use. Raises InputError if somebody `asked` for one by name."""
    why = "PyTorch sees no GPU" if torch.version.cuda else "this PyTorch is built for CPUs alone"
    if asked:
        raise InputError(f"MODEL.DEVICE {cfg.MODEL.DEVICE}: {why}; MODEL.DEVICE cpu computes without one")
    if NVIDIA_DRIVER.exists():
        logger.warning("There is an NVIDIA driver here, but %s: computing on the CPU", why)
    cfg.MODEL.DEVICE = "cpu"


def _keys_of(tree: dict[str, Any], cfg: CfgNode, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The full keys of a file with their values; what stands for a section of `cfg` is looked into."""
    for name, value in tree.items():
        section = cfg.get(name)
        if isinstance(value, dict) and isinstance(section, CfgNode):
            yield from _keys_of(value, section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _set(cfg: CfgNode, key: str, raw: Any, where: str) -> None:
    """Gives a key a value, which may be text that says it (yacs). Raises InputError that begins with `where`."""
    known = dict(leaves(cfg))
    sections = {name.rsplit(".", depth)[0] for name in known for depth in range(1, name.count(".") + 1)}
    if key in sections:
        raise InputError(f"{where}{key} is a section of keys; got {shown(str(raw))}")
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        raise InputError(f"{where}Non-existent key: {key}{f'; did you mean {near[0]}?' if near else ''}")
    old = known[key]
    try:
        value = raw if isinstance(raw, dict) else CfgNode._decode_cfg_value(raw)
        if isinstance(old, str) and isinstance(raw, str) and value is not None and not isinstance(value, str):
            value = raw  # a folder called 1 is a folder
        if isinstance(old, float) and type(value) is int:
            value = float(value)
        if value is None and old is not None:  # yacs takes None for any type
            raise ValueError("Type mismatch")
        cfg.merge_from_list([key, repr(value) if isinstance(value, str) else value])
    except Exception as error:  # yacs raises whatever it likes
        said = one_line(error)
        if "Type mismatch" in said:
            kind, other = type(old).__name__, type(value).__name__
            said = f"Type mismatch: {key} is of type {kind}; got {other} {shown(str(value))}"
        raise InputError(f"{where}{said}") from error


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
    """Has the network's own checks judge MODEL.SACT, and the table everything that all tasks read.

    Args:
        cfg: the config.
        family: of networks.
        reference_blocks: how many blocks REFERENCE_UNITS describes.

    Raises:
        InputError: a value is out of range.
    """
    _check_drawn_prices(cfg)
    units = cfg.MODEL.SACT.REFERENCE_UNITS
    with arguments_are_keys("MODEL.SACT"):
        spec_from_config(cfg, family)
        if len(units) != reference_blocks or not are_positive_integers(units):
            raise ValueError(f"`reference_units` must list {reference_blocks} positive integers; got {units}")
    check_common(cfg)
    sact = cfg.MODEL.SACT
    halts = any(HALTING_RULES[rule].adaptive for rule in (sact.HALTING, sact.BOX_HEAD_HALTING) if rule)
    if sact.BUDGET and not halts:
        raise InputError(f"MODEL.SACT.BUDGET {sact.BUDGET:g} needs a network that halts; HALTING is {sact.HALTING!r}")
    if sact.BUDGET_TRAINING and not HALTING_RULES[sact.HALTING].adaptive:
        raise InputError(f"MODEL.SACT.BUDGET_TRAINING needs a network that halts; HALTING is {sact.HALTING!r}")
    if sact.FREEZE_HALTING and not HALTING_RULES[sact.HALTING].adaptive:
        raise InputError(f"MODEL.SACT.FREEZE_HALTING needs a network that halts; HALTING is {sact.HALTING!r}")
    if sact.FREEZE_NETWORK and not (halts or sact.REJECTION):
        raise InputError(f"MODEL.SACT.FREEZE_NETWORK needs a network that halts; HALTING is {sact.HALTING!r}")
    if sact.FREEZE_NETWORK and sact.FREEZE_HALTING:
        raise InputError("MODEL.SACT.FREEZE_NETWORK and FREEZE_HALTING together leave nothing to learn")
    if sact.FLOPS_LIMIT and not HALTING_RULES[sact.HALTING].adaptive:
        raise InputError(
            f"MODEL.SACT.FLOPS_LIMIT {sact.FLOPS_LIMIT:g} needs a network that halts; HALTING is {sact.HALTING!r}"
        )


def _check_drawn_prices(cfg: CfgNode) -> None:
    """Before anything is made of their logarithms. Raises InputError."""
    sact = cfg.MODEL.SACT
    check_ranges(cfg, {key: rule for key, rule in COMMON.items() if key in _DRAWN})
    if sact.BUDGET_TRAINING and sact.BUDGET_TRAINING_DRAWS == "tau" and min(sact.TAU, *sact.BUDGET_TRAINING) <= 0:
        raise InputError(
            "MODEL.SACT.BUDGET_TRAINING_DRAWS 'tau' reads logarithms: TAU and BUDGET_TRAINING must be above 0; "
            f"got {sact.TAU:g} and {tuple(sact.BUDGET_TRAINING)}"
        )
    if sact.BUDGET_TRAINING and sact.BUDGET_TRAINING_DRAWS == "budget":
        low, high = sact.BUDGET_TRAINING
        if not 0 < low <= high <= 1:
            raise InputError(
                "MODEL.SACT.BUDGET_TRAINING_DRAWS 'budget': BUDGET_TRAINING must be two shares of the plain network's "
                f"FLOPs, in (0, 1]; got {tuple(sact.BUDGET_TRAINING)}"
            )


def check_registered(key: str, name: str, registry: Registry) -> None:
    """Raises InputError, naming the key, if `name` is not in one of Detectron2's registries."""
    if name not in registry:
        known = sorted(entry for entry, _ in registry)
        raise InputError(f"{key} must be one of {', '.join(known)}; got {name!r}")
