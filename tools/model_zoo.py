#!/usr/bin/env python
"""Writes docs/MODEL_ZOO.md: every config with its weights, published numbers
and ours.

    python tools/model_zoo.py

It is made of docs/model_zoo.json (sections, published numbers), the configs
and the jsons of docs/results.
"""

import argparse
from pathlib import Path
from typing import Optional, Sequence

from sact_det.base.files import write_text
from sact_det.base.processes import command_line
from sact_det.experiments.model_zoo import model_zoo

REPOSITORY = Path(__file__).resolve().parents[1]


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "docs/MODEL_ZOO.md", help="(default: %(default)s)")
    return parser.parse_args(argv)


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    write_text(args.output, model_zoo(REPOSITORY))
    print(args.output)


if __name__ == "__main__":
    main()
