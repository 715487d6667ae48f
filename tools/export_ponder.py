#!/usr/bin/env python
r"""Writes what a trained classifier spends on every image of a data set, as
HDF5; or ponder maps of any folder's images.

    python tools/export_ponder.py \
        --config-file configs/CIFAR10/sact_R_32_tau_0.01.yaml \
        --output ponder.h5 \
        MODEL.WEIGHTS output/cifar10_sact_R_32_tau_0.01/model_final.pth

Keys and shapes are the original program's: sact_det/pictures/ponder_file.py
lists them, and reads the file. Images are cropped and resized as in
evaluation; with --image-size nothing is cut off.

Ponder maps alone, of a classifier or a detector, for images without labels or
fixations:

    python tools/export_ponder.py --config-file CONFIG --input photographs/ \
        --output maps/ MODEL.WEIGHTS model_final.pth

Each has its image's size (nearest neighbour of the map that the network made
at --image-size) and its name: float32 .npy, 16-bit .png (value x 256), or,
where --output ends with .h5, one file of pysaliency's layout.
"""

import argparse
import logging
from pathlib import Path
from typing import Optional, Sequence

import sact_det.engine  # noqa: F401  (first, because it imports Detectron2 quietly)

# isort: split
import numpy as np
from detectron2.config import CfgNode
from tqdm import tqdm

from sact_det.base.command_line import add_budget, check_positive, parse_with_overrides, with_budget
from sact_det.base.errors import InputError
from sact_det.base.files import writable_file, writable_folder
from sact_det.base.processes import command_line
from sact_det.classification.ponder_export import build_export_loader, export_ponder
from sact_det.classification.predictor import load_classifier
from sact_det.engine.console import setup_log
from sact_det.engine.failures import sizes_fit
from sact_det.tasks import load_config
from saliency.dataset import FixationImage
from saliency.extraction import LONGER_EDGE, PonderModel
from saliency.hdf5_maps import HDF5_SUFFIXES
from saliency.postprocess import resize
from saliency.stimuli import read_stimuli
from saliency.stored import FORMATS, write_folder, write_hdf5

SIZES = ("INPUT.CLASSIFICATION.BATCH_SIZE_TEST", "INPUT.CLASSIFICATION.SIZE_TEST")

logger = logging.getLogger("sact_det.export_ponder")


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="of the trained classifier")
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE.h5",
        help="file to write; an existing one is replaced; or a folder (--input)",
    )
    parser.add_argument("--input", metavar="FOLDER", help="images, also in folders below it: writes their ponder maps")
    parser.add_argument("--format", choices=FORMATS, help="of maps in a folder (default: npy)")
    parser.add_argument("--dataset", metavar="NAME", help="a data set of the config (default: DATASETS.TEST[0])")
    parser.add_argument(
        "--image-size", type=int, metavar="L", help="no crop: resizes the longer edge to L pixels, keeping the aspect"
    )
    parser.add_argument("--max-images", type=int, metavar="N", help="only the first N images of the data set")
    add_budget(parser)
    parser.add_argument("--gzip", action="store_true", help="compresses the file")
    return parse_with_overrides(parser, argv)


def export_maps(args: argparse.Namespace, cfg: CfgNode) -> None:
    """The ponder maps of the images of a folder."""
    output = Path(args.output)
    in_file = output.suffix.lower() in HDF5_SUFFIXES
    if in_file and args.format:
        raise InputError(f"--format is of maps in a folder; --output is {args.output}")
    dataset = read_stimuli(args.input)
    model = PonderModel(cfg, args.image_size or LONGER_EDGE[cfg.MODEL.META_ARCHITECTURE])

    def made(image: FixationImage) -> np.ndarray:
        return resize(model(image.pixels()), image.shape, "nearest")

    if in_file:
        write_hdf5(writable_file(output), dataset, made)
    else:
        write_folder(writable_folder(output), dataset, made, args.format or FORMATS[0])
    logger.info("Ponder maps of %d images are in %s", len(dataset), args.output)


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    check_positive(args, "--image-size", "--max-images")
    if args.input is None and args.format:
        raise InputError("--format needs --input")
    unused = [one for one in ("dataset", "max_images", "gzip") if args.input is not None and getattr(args, one)]
    if unused:
        raise InputError(f"--input takes no --{unused[0].replace('_', '-')}")
    cfg = load_config(args.config_file, with_budget(args))
    if args.input is not None:
        export_maps(args, cfg)
        return
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
    setup_log()
    main()
