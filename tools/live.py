#!/usr/bin/env python
r"""Serves a page on which a trained network looks at pictures and at a camera:
drop a picture, move the sliders of budget and score, and see boxes, the ponder
map, FLOPs and milliseconds change.

The demo's detector of digits, fetched from nowhere:

    python tools/live.py

Any trained detector or classifier:

    python tools/live.py \
        --config-file configs/COCO/sact_R_101_C4_tau_0.005.yaml \
        MODEL.WEIGHTS output/model_final.pth

Where a budget.json of tools/calibrate_budget.py lies beside the weights there
is a slider of the budget, else one of the shift of the halting scores. The
page is at http://127.0.0.1:7860 and on this machine alone, unless --host says
otherwise: then whoever can reach the machine can use it. Ctrl-C ends it; what
was sent is removed. The extra `live` has what it needs.
"""

import argparse
import logging
import time
from pathlib import Path
from typing import Optional, Sequence

import sact_det.engine  # noqa: F401  (first, because it imports Detectron2 quietly)

# isort: split
from sact_det.base.command_line import check_positive, parse_with_overrides
from sact_det.base.errors import InputError
from sact_det.base.processes import command_line
from sact_det.base.stopping import stops_when_asked
from sact_det.engine.console import setup_log
from sact_det.tasks import load_config
from sact_det.viewer.look import viewer_of
from sact_det.viewer.page import PageLimits
from sact_det.viewer.server import serving

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "configs/demo/sact.yaml"
FIRST = ROOT / "docs/images/digits.png"  # what the page begins with, of the demo's network
LOCAL = ("127.0.0.1", "localhost", "::1")

logger = logging.getLogger("sact_det.viewer.server")


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", metavar="FILE", help="of the network; default: the demo's, with its weights")
    parser.add_argument("--image-size", type=int, metavar="L", help="of a classifier: resizes the longer side to L")
    parser.add_argument("--host", default=LOCAL[0], help="address to bind to (default: %(default)s)")
    parser.add_argument("--port", type=int, default=7860, metavar="N", help="to bind to (default: %(default)s)")
    parser.add_argument(
        "--max-megabytes", type=int, default=20, metavar="N", help="of a picture (default: %(default)s)"
    )
    parser.add_argument("--max-megapixels", type=int, default=50, metavar="N", help="likewise (default: %(default)s)")
    return parse_with_overrides(parser, argv)


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    check_positive(args, "--image-size", "--port", "--max-megabytes", "--max-megapixels")
    if args.port > 65535:
        raise InputError(f"--port must be at most 65535; got {args.port}")
    is_demo = args.config_file is None and "MODEL.WEIGHTS" not in args.opts
    weights = ["MODEL.WEIGHTS", "sact://demo"] if is_demo else []
    cfg = load_config(args.config_file or str(DEMO), [*weights, *args.opts], data=False)
    is_classifier = cfg.MODEL.META_ARCHITECTURE == "SACTClassifier"
    if args.image_size is not None and not is_classifier:
        raise InputError("--image-size is of classifiers; a detector's are INPUT.MIN_SIZE_TEST and INPUT.MAX_SIZE_TEST")
    name = "the demo's detector of digits" if is_demo else Path(args.config_file or DEMO).stem
    limits = PageLimits(args.max_megabytes * 1_000_000, args.max_megapixels * 1_000_000)
    first = FIRST if is_demo and FIRST.is_file() else None
    viewer = viewer_of(cfg, args.image_size)
    where = {"host": args.host, "port": args.port}
    with serving(viewer, f"SACT: {name}", limits=limits, first=first, **where) as url, stops_when_asked() as asked:
        if args.host not in LOCAL:
            logger.warning("Whoever can reach %s can use the page", args.host)
        logger.info("The page is at %s; Ctrl-C ends it", url)
        while not asked.signal:
            time.sleep(0.1)


if __name__ == "__main__":
    logging.captureWarnings(True)
    setup_log()
    main()
