#!/usr/bin/env python
r"""Says whether one model's saliency maps are better than another's: paired
differences of a finished evaluation's scores, with 95% bootstrap intervals.

    python tools/compare_saliency.py output/table2 --minus "ImageNet SACT"

FOLDER is one that tools/evaluate_saliency.py wrote. Every other model is
compared with the one of --minus (default: the first) on the same images, by
every metric: each one's last row (the map with blur and centre, where they are
tuned), or the row of --map ("ponder map", "blurred", "with centre", ...).
KL is better when it is lower, so that a negative difference is good there;
metrics by which an image scores -inf have none.

With --output, the numbers are written as JSON as well.
"""

import argparse
import logging
import sys
from dataclasses import asdict
from typing import Optional, Sequence

from sact_det.base.errors import InputError
from sact_det.base.files import writable_file, write_json
from sact_det.base.markdown import markdown_table
from sact_det.base.processes import command_line
from saliency.comparison import ImageScores
from saliency.intervals import Interval
from saliency.scores import get_metric

logger = logging.getLogger("saliency")


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", help="of a finished evaluation")
    parser.add_argument("--minus", metavar="MODEL", help="what the others are compared with (default: the first)")
    parser.add_argument("--map", metavar="MAP", help="which map of each (default: the last)")
    parser.add_argument("--output", metavar="FILE.json", help="writes the numbers there as well")
    return parser.parse_args(argv)


def shown(difference: Optional[Interval]) -> str:
    return "-" if difference is None else f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    output = writable_file(args.output) if args.output else None
    scores = ImageScores.read(args.folder)
    if len(scores.models) < 2:
        raise InputError(f"{args.folder}: has {len(scores.models)} models; a comparison needs two")
    other = scores.models[0] if args.minus is None else args.minus
    found = {model: scores.differences(model, other, args.map) for model in scores.models if model != other}
    heads = ["model", "minus", *(get_metric(name).title for name in scores.metrics)]
    rows = [[model, other, *(shown(own.get(name)) for name in scores.metrics)] for model, own in found.items()]
    logger.info("%d images; in brackets 95%% bootstrap intervals over them.\n", len(scores.images))
    logger.info("%s", markdown_table(heads, rows))
    if output:
        numbers = {model: {name: asdict(one) for name, one in own.items()} for model, own in found.items()}
        write_json(output, {"minus": other, "map": args.map, "differences": numbers, "command": sys.argv})


if __name__ == "__main__":
    logging.captureWarnings(True)
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logger.setLevel(logging.INFO)
    main()
