#!/usr/bin/env python
"""Writes what a trained classifier spends on every image of a data set, as HDF5.

    python tools/export_ponder.py --config-file configs/CIFAR10/sact_R_32_tau_0.01.yaml --output ponder.h5 \
        MODEL.WEIGHTS output/cifar10_sact_R_32_tau_0.01/model_final.pth

Keys and shapes are the original program's: sact_det/pictures/ponder_file.py lists them, and reads the file. Images are
cropped and resized as in evaluation; with --image-size nothing is cut off.
"""

import argparse
import logging
from typing import Optional, Sequence

import sact_det.engine  # noqa: F401  (first, because it imports Detectron2 quietly)

# isort: split
from detectron2.utils.logger import setup_logger
from tqdm import tqdm

from sact_det.base.command_line import add_budget, check_positive, parse_with_overrides, with_budget
from sact_det.base.errors import InputError
from sact_det.base.processes import command_line
from sact_det.classification.ponder_export import build_export_loader, export_ponder
from sact_det.classification.predictor import load_classifier
from sact_det.engine.failures import sizes_fit
from sact_det.tasks import load_config

SIZES = ("INPUT.CLASSIFICATION.BATCH_SIZE_TEST", "INPUT.CLASSIFICATION.SIZE_TEST")

logger = logging.getLogger("sact_det.export_ponder")


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="of the trained classifier")
    parser.add_argument("--output", required=True, metavar="FILE.h5", help="file to write; an existing one is replaced")
    parser.add_argument("--dataset", metavar="NAME", help="a data set of the config (default: DATASETS.TEST[0])")
    parser.add_argument(
        "--image-size", type=int, metavar="L", help="no crop: resizes the longer edge to L pixels, keeping the aspect"
    )
    parser.add_argument("--max-images", type=int, metavar="N", help="only the first N images of the data set")
    add_budget(parser)
    parser.add_argument("--gzip", action="store_true", help="compresses the file")
    return parse_with_overrides(parser, argv)


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    check_positive(args, "--image-size", "--max-images")
    cfg = load_config(args.config_file, with_budget(args))
    name = args.dataset or next(iter(cfg.DATASETS.TEST), "")
    if not name:
        raise InputError("DATASETS.TEST is empty: name the data set with --dataset")
    model = load_classifier(cfg)
    loader = build_export_loader(cfg, name, args.image_size, args.max_images)
    # A bar, silent where stderr is no terminal.
    with sizes_fit(cfg, "a batch", SIZES), tqdm(loader, unit="batch", disable=None) as batches:
        count = export_ponder(model, batches, args.output, args.gzip)
    logger.info("Ponder costs of %d images of %s are in %s", count, name, args.output)


if __name__ == "__main__":
    logging.captureWarnings(True)
    setup_logger(name="sact_det")
    main()
