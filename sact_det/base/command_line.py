"""Overrides of a config on a command line, wherever they stand."""

import argparse
import itertools
import re
import sys
from pathlib import Path
from typing import Optional, Sequence

_KEY = re.compile(
    r"(MODEL|INPUT|DATASETS|DATALOADER|SOLVER|TEST|GLOBAL)(\.\w+)+"
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
