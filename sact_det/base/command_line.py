"""What command lines share: overrides of a config wherever they stand, a budget, options that must be positive."""

import argparse
import itertools
import math
import re
import sys
from pathlib import Path
from typing import Optional, Sequence

from sact_det.base.errors import InputError

_KEY = re.compile(
    r"(MODEL|INPUT|DATASETS|DATALOADER|SOLVER|TEST|WANDB|GLOBAL)(\.\w+)+"
    r"|OUTPUT_DIR|SEED|VIS_PERIOD|CUDNN_BENCHMARK|FLOAT32_PRECISION|VERSION"
)


def split_overrides(argv: Optional[Sequence[str]] = None) -> tuple[list[str], list[str]]:
    """A command line's other words, and its KEY VALUE pairs: keys of Detectron2's config, unless there is such a file.

    Args:
        argv: the words; None: those of this process.
    """
    others: list[str] = []
    overrides: list[str] = []
    words = iter(sys.argv[1:] if argv is None else argv)
    for word in words:
        if _KEY.fullmatch(word) and not Path(word).exists():
            overrides += [word, *itertools.islice(words, 1)]
        else:
            others.append(word)
    return others, overrides


def parse_with_overrides(
    parser: argparse.ArgumentParser, argv: Optional[Sequence[str]] = None, whose: str = ""
) -> argparse.Namespace:
    """parser.parse_args of a command line with KEY VALUE pairs; `opts` in the result is the list of them.

    argparse by itself would give them to an option before them that takes any number of values.

    Args:
        parser: without positional arguments.
        argv: as of split_overrides.
        whose: config is overridden, for the help.
    """
    said = f"config overrides{whose and f' for {whose}'}"
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help=said)
    others, overrides = split_overrides(argv)
    args = parser.parse_args(others)
    args.opts += overrides
    return args


def add_budget(parser: argparse.ArgumentParser) -> None:
    """Adds --budget, for `with_budget`."""
    parser.add_argument(
        "--budget",
        type=float,
        metavar="SHARE",
        help="of the plain network's FLOPs, in (0, 1], by the budget.json beside the weights; default: as trained",
    )


def add_deadline(parser: argparse.ArgumentParser) -> None:
    """Adds --deadline-ms, for `deadline_of`."""
    parser.add_argument(
        "--deadline-ms",
        type=float,
        metavar="MS",
        help="takes the largest calibrated budget at which an image of its size takes no longer on this machine",
    )


def deadline_of(args: argparse.Namespace) -> Optional[float]:
    """The deadline in seconds. Raises InputError if it is not positive, or a budget is given, too."""
    if args.deadline_ms is None:
        return None
    if not 0 < args.deadline_ms < math.inf:
        raise InputError(f"--deadline-ms must be a positive number; got {args.deadline_ms:g}")
    if args.budget is not None or "MODEL.SACT.BUDGET" in args.opts:
        raise InputError("--deadline-ms chooses the budget: do not give one")
    return args.deadline_ms / 1000


def with_budget(args: argparse.Namespace) -> list[str]:
    """The overrides of a command line, --budget among them. Raises InputError if it is out of range."""
    if args.budget is None:
        return args.opts
    if not 0 < args.budget <= 1:
        raise InputError(f"--budget must be a share of the plain network's FLOPs, in (0, 1]; got {args.budget:g}")
    return [*args.opts, "MODEL.SACT.BUDGET", repr(args.budget)]


def check_positive(args: argparse.Namespace, *options: str) -> None:
    """Raises InputError, naming the option, if a number that one of them ("--image-size") was given is below 1.

    Args:
        args: parsed; an option that has no value, None, is no fault, one with several numbers is judged by the least.
        options: to look at.
    """
    for option in options:
        value = getattr(args, option.removeprefix("--").replace("-", "_"))
        if value is not None and (least := min(value) if isinstance(value, (list, tuple)) else value) < 1:
            raise InputError(f"{option} must be positive; got {least}")
