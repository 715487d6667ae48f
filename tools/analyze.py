#!/usr/bin/env python
"""Counts the FLOPs of a trained detector on photographs: fvcore's count of
its operators beside the paper's.

    python tools/analyze.py --config-file C --images photos/ MODEL.WEIGHTS W

Numbers are GFLOP of the whole detector, two for a multiply-add (fvcore's own
unit is one): of its dense form by fvcore, as Detectron2's
tools/analyze_model.py counts; of the plain detector; and what it spends where
positions halt.
"""

import argparse
import logging
from typing import Optional, Sequence

import sact_det.engine  # noqa: F401  (first, because it imports Detectron2 quietly)

# isort: split
from tqdm import tqdm

from sact_det.base.command_line import add_budget, parse_with_overrides, with_budget
from sact_det.base.errors import InputError
from sact_det.base.markdown import markdown_table
from sact_det.base.processes import command_line
from sact_det.data.image_files import find_images, read_checked
from sact_det.detection.analysis import counts
from sact_det.detection.predictor import Predictor
from sact_det.engine.console import setup_log
from sact_det.export.programs import recording
from sact_det.tasks import load_config


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="of the trained detector")
    parser.add_argument("--images", required=True, nargs="+", metavar="IMAGE", help="images, folders or quoted globs")
    add_budget(parser)
    return parse_with_overrides(parser, argv)


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    cfg = load_config(args.config_file, with_budget(args))
    if cfg.MODEL.META_ARCHITECTURE == "SACTClassifier":
        raise InputError("MODEL.META_ARCHITECTURE must be that of a detector; got SACTClassifier")
    paths, predictor = find_images(args.images), Predictor(cfg)
    rows = []
    for path in tqdm(paths, unit="image", disable=None):
        image = predictor.prepare(read_checked(path, "BGR"))
        with recording():
            found = counts(predictor.model, image)
        size = f"{image.shape[1]}x{image.shape[2]}"
        rows.append([path.name, size, *(f"{found[name] / 1e9:.2f}" for name in ("dense", "plain", "spent"))])
    print(markdown_table(["image", "size", "dense (fvcore)", "plain", "spent"], rows))


if __name__ == "__main__":
    logging.captureWarnings(True)
    setup_log()
    main()
