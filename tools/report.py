#!/usr/bin/env python
r"""Makes an HTML page of what trainings and evaluations found: one file, which
needs no network and opens by itself.

    python tools/report.py output/bccd_plain_R_50_C4 \
        output/bccd_sact_R_50_C4_tau_0.05 --output report.html
    python tools/report.py output/demo --output report.html
    python tools/report.py output/table2 output/figure7 output/yardstick.json \
        --output report.html

Every path is the OUTPUT_DIR of a finished training of a detector or
classifier, the folder of tools/evaluate_saliency.py or
tools/sweep_resolutions.py, a json of tools/benchmark.py detector --dataset, or
a folder that holds such. Folders seed_0, seed_1, ... are one row.

The page has tables, the course of the trainings, FLOPs over images, quality
against FLOPs and seconds, and galleries of the evaluated images: boxes from a
score on, the ponder map over the image, block by block, at every calibrated
budget. For the galleries, networks look at the images again.
"""

import argparse
import logging
import sys
from pathlib import Path
from typing import Optional, Sequence

import sact_det.engine  # noqa: F401  (first, because it imports Detectron2 quietly)

# isort: split
from sact_det.base.errors import InputError
from sact_det.base.files import writable_file
from sact_det.base.processes import command_line
from sact_det.report.contents import Options, make_page
from sact_det.report.inputs import find_inputs
from saliency.page import saliency_section

logger = logging.getLogger("sact_det.report")

MOST_IMAGES = 200


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="+", metavar="RUN_OR_OUTPUT", help="trainings and evaluations")
    parser.add_argument("--output", required=True, metavar="HTML", help="file to write; replaced if it exists")
    parser.add_argument("--title", metavar="TEXT", help="of the page (default: the names of what it is of)")
    parser.add_argument(
        "--max-images",
        type=int,
        default=MOST_IMAGES,
        metavar="N",
        help=f"of a gallery, evenly spread over the data set; 0: no galleries (default: {MOST_IMAGES})",
    )
    parser.add_argument("--no-photographs", action="store_true", help="shows white instead of the images: boxes stay")
    parser.add_argument(
        "--device", metavar="DEVICE", help='that looks at images, "cpu" or "cuda" (default: as trained)'
    )
    return parser.parse_args(argv)


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    if args.max_images < 0:
        raise InputError(f"--max-images must not be negative; got {args.max_images}")
    if Path(args.output).suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--output must end in .html; got {args.output}")
    path = writable_file(args.output)
    options = Options(args.title, args.max_images, not args.no_photographs, args.device)
    found = find_inputs(args.inputs)
    make_page(found, options, [saliency_section(folder) for folder in found.saliency]).write(path)
    logger.info("%s (%.1f MB)", path.resolve().as_uri(), path.stat().st_size / 1e6)


if __name__ == "__main__":
    logging.captureWarnings(True)
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("sact_det").setLevel(logging.INFO)
    main()
