#!/usr/bin/env python
r"""Draws ponder maps beside images: where in an image a trained network spends
its computation.

A detector's, with what it detects: boxes, masks and keypoints, or panoptic
segments:

    python tools/visualize.py \
        --config-file configs/COCO/sact_R_101_C4_tau_0.005.yaml \
        --input photos/ "more/*.jpg" --output pictures \
        MODEL.WEIGHTS output/model_final.pth

A classifier's, with the class; all maps under one colour scale, from the 0.1
to the 99.9 percentile of the set:

    python tools/visualize.py \
        --config-file configs/ImageNet/sact_R_101_tau_0.005.yaml \
        --input photos/ --output pictures --image-size 1000 \
        MODEL.WEIGHTS weights/sact.pth

Those in a file of tools/export_ponder.py, likewise; no model is needed:

    python tools/visualize.py --from-hdf5 ponder.h5 --output pictures

What other budgets make of an image, side by side (tools/calibrate_budget.py):

    python tools/visualize.py \
        --config-file configs/ImageNet/sact_R_101_tau_0.005.yaml \
        --input photos/ --output pictures --budgets 0.3 0.5 0.7 0.9 \
        MODEL.WEIGHTS weights/sact.pth

A video, or a camera (until Ctrl-C), frame by frame, as a film (the extra
`video`):

    python tools/visualize.py --config-file C --video walk.mp4 \
        --output seen.mp4 MODEL.WEIGHTS W
    python tools/visualize.py --config-file C --camera 0 --output seen.mp4 \
        MODEL.WEIGHTS W

OUTPUT receives, for every image, <mean ponder cost>_<name>.png (so that names
sort by cost), all of them on sheet.png under one colour scale (sheet_1.png,
... if there are many), and the numbers in ponder.json. Pictures that a
ponder.json in OUTPUT lists already, of an earlier run, give way to the new
ones.

Every block's ponder cost goes from the feature map to the picture in one
nearest-neighbour step, by the original program's rule: in the picture of a
detector at the size of the image itself, else at the size that the network
saw. A film has all maps under one colour scale, FLOPs and milliseconds in a
corner, and the times and upright pictures of the video. It can be played as
far as it came, whatever ended it.
"""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any, Optional, Sequence

import sact_det.engine  # noqa: F401  (first, because it imports Detectron2 quietly)

# isort: split
from detectron2.config import CfgNode

from sact_det.base.command_line import (
    add_budget,
    add_deadline,
    check_positive,
    deadline_of,
    parse_with_overrides,
    with_budget,
)
from sact_det.base.errors import InputError
from sact_det.base.processes import command_line
from sact_det.budget.table import check_budget
from sact_det.classification.pictures import ClassifiedImages, classifier_at_budgets
from sact_det.data.image_files import distinct_stems, find_images
from sact_det.detection.pictures import detector_at_budgets, draw_detected
from sact_det.engine.console import setup_log
from sact_det.pictures.at_budgets import draw_at_budgets
from sact_det.pictures.folder import PictureFolder
from sact_det.pictures.image_sets import PonderedImages, StoredImages, draw_on_one_scale
from sact_det.pictures.ponder_file import PonderFile
from sact_det.pictures.style import add_map_style, add_page_style, style_of
from sact_det.tasks import load_config
from sact_det.viewer.clip import check_clip, draw_clip, open_frames
from sact_det.viewer.look import viewer_of

logger = logging.getLogger("sact_det.pictures.panels")

DEFAULT_CONFIDENCE = 0.5


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", metavar="FILE", help="of the trained detector or classifier")
    parser.add_argument("--input", nargs="+", metavar="IMAGE", help="images, folders or quoted globs")
    parser.add_argument("--video", metavar="FILE", help="instead of --input, a video; OUTPUT is a film, something.mp4")
    parser.add_argument("--camera", type=int, metavar="N", help="likewise, a camera by its number, until Ctrl-C")
    parser.add_argument("--from-hdf5", metavar="FILE.h5", help="instead of these two, a file of tools/export_ponder.py")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the pictures; made if missing")
    parser.add_argument("--per-block", action="store_true", help="adds a row with the map of every block")
    parser.add_argument("--overlay", action="store_true", help="adds the ponder map blended on the image")
    parser.add_argument(
        "--image-size",
        type=int,
        metavar="L",
        help="of a classifier's images: resizes the longer edge to L pixels (default: their own size)",
    )
    parser.add_argument(
        "--confidence-threshold",
        type=float,
        metavar="P",
        help=f"least score of a detector's box (default: {DEFAULT_CONFIDENCE})",
    )
    add_budget(parser)
    add_deadline(parser)
    parser.add_argument(
        "--budgets",
        nargs="+",
        type=float,
        metavar="SHARE",
        help="one picture with the map at each of these budgets, under one colour scale",
    )
    parser.add_argument("--no-sheet", action="store_true", help="leaves out the contact sheet")
    parser.add_argument(
        "--no-photographs",
        action="store_true",
        help="for publication: leaves the images out; what was found is drawn on the maps, in grey",
    )
    add_map_style(parser)
    add_page_style(parser)
    return parse_with_overrides(parser, argv)


def refuse(args: argparse.Namespace, where: str, *options: str) -> None:
    """Raises InputError if one of these options is given."""
    for option in options:
        given = getattr(args, option.strip("-").replace("-", "_"))
        if not (given is None or given is False or given == []):
            raise InputError(f"{option} does not go with {where}")


def draw_detections_of(args: argparse.Namespace, cfg: CfgNode, paths: Sequence[Path]) -> int:
    """Every map between its own minimum and maximum; returns the number of pictures."""
    folder = PictureFolder(args.output, not args.no_sheet, style_of(args))
    shown = {"per_block": args.per_block, "overlay": args.overlay, "photographs": not args.no_photographs}
    rows = draw_detected(cfg, paths, folder, deadline=deadline_of(args), **shown)
    sact = cfg.MODEL.SACT
    reference = {"units": list(sact.REFERENCE_UNITS), "base_channels": sact.BASE_CHANNELS}
    folder.save_numbers(reference=reference, images=rows)
    return len(rows)


def draw_set(args: argparse.Namespace, images: PonderedImages, names: Sequence[Any], **about: Any) -> int:
    """All maps on one scale; `about` joins the numbers. Returns the number of pictures."""
    folder = PictureFolder(args.output, not args.no_sheet, style_of(args))
    shown = {"per_block": args.per_block, "overlay": args.overlay, "photographs": not args.no_photographs}
    limits, rows = draw_on_one_scale(images, distinct_stems(names), folder, **shown)
    folder.save_numbers(**about, limits=limits, images=rows)
    return len(rows)


def draw_file(args: argparse.Namespace) -> int:
    refuse(args, "--from-hdf5", "--config-file", "--input", "--image-size", "--confidence-threshold", "--budget")
    refuse(args, "--from-hdf5", "--budgets", "--deadline-ms")
    if args.opts:
        raise InputError(f"config overrides do not go with --from-hdf5; got {' '.join(args.opts)}")
    with PonderFile(args.from_hdf5) as file:
        return draw_set(args, StoredImages(file), file.names)


def check_budgets(args: argparse.Namespace) -> None:
    """Raises InputError if --budgets are out of range, or go with what they do not."""
    if args.budgets is None:
        return
    refuse(args, "--budgets", "--budget", "--deadline-ms", "--per-block", "--overlay")
    for budget in args.budgets:
        check_budget("--budgets", budget)


def config_of(args: argparse.Namespace) -> tuple[CfgNode, float]:
    """The config with what the options say of it, and the least score."""
    confidence = DEFAULT_CONFIDENCE if args.confidence_threshold is None else args.confidence_threshold
    if not 0 <= confidence <= 1:
        raise InputError(f"--confidence-threshold must be from 0 to 1; got {confidence}")
    check_positive(args, "--image-size")
    check_budgets(args)
    deadline_of(args)
    cfg = load_config(args.config_file, with_budget(args), data=False)
    if cfg.MODEL.META_ARCHITECTURE == "SACTClassifier":
        refuse(args, "a classifier", "--confidence-threshold")
        return cfg, 0.0
    refuse(args, "a detector, whose sizes are INPUT.MIN_SIZE_TEST and INPUT.MAX_SIZE_TEST", "--image-size")
    cfg.defrost()  # each kind of detector reads its own of the two
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = cfg.MODEL.RETINANET.SCORE_THRESH_TEST = confidence
    cfg.freeze()
    return cfg, confidence


def draw_film(args: argparse.Namespace) -> int:
    """Returns the exit code: that of a signal which ended a file's film; that of a camera can only end so."""
    where = "--video" if args.camera is None else "--camera"
    refuse(args, where, "--input", "--from-hdf5", "--budgets", "--per-block", "--no-sheet", "--dpi", "--font-size")
    if args.format != "png":
        raise InputError(f"--format {args.format} does not go with {where}")
    if args.config_file is None or (args.video is not None and args.camera is not None):
        raise InputError("give --config-file and one of --video and --camera")
    check_clip(args.output, args.video)
    cfg, confidence = config_of(args)
    source = open_frames(args.video, args.camera)
    viewer = viewer_of(cfg, args.image_size)
    viewer.model.deadline = deadline_of(args)
    shown = {"style": style_of(args), "overlay": args.overlay, "photographs": not args.no_photographs}
    ended_by = draw_clip(viewer, source, args.output, confidence, **shown)
    return ended_by if args.camera is None else 0


def draw_with_model(args: argparse.Namespace) -> int:
    if args.config_file is None or args.input is None:
        raise InputError(
            "give --config-file and --input, or --from-hdf5; for a film, --config-file and --video or --camera"
        )
    cfg, _ = config_of(args)
    paths = find_images(args.input)
    if args.budgets:
        return draw_budgets(args, cfg, paths)
    if cfg.MODEL.META_ARCHITECTURE != "SACTClassifier":
        return draw_detections_of(args, cfg, paths)
    reference = {
        "family": cfg.MODEL.CLASSIFIER.FAMILY,
        "units": list(cfg.MODEL.SACT.REFERENCE_UNITS),
        "base_channels": cfg.MODEL.SACT.BASE_CHANNELS,
    }
    images = ClassifiedImages(cfg, paths, args.image_size)
    images.model.deadline = deadline_of(args)
    return draw_set(args, images, paths, reference=reference)


def draw_budgets(args: argparse.Namespace, cfg: CfgNode, paths: Sequence[Path]) -> int:
    """A picture for every file: the image at the last of the budgets, and the maps at all of them."""
    if cfg.MODEL.META_ARCHITECTURE == "SACTClassifier":
        model, look = classifier_at_budgets(cfg, args.image_size, style_of(args))
    else:
        model, look = detector_at_budgets(cfg, not args.no_photographs, style_of(args))
    model.set_budget(args.budgets[0])  # says before any picture if there is no table
    folder = PictureFolder(args.output, not args.no_sheet, style_of(args))
    photographs = not args.no_photographs
    rows = draw_at_budgets(model, look, args.budgets, paths, distinct_stems(paths), folder, photographs=photographs)
    folder.save_numbers(images=rows)
    return len(rows)


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    style_of(args)  # says before any work what cannot be drawn with
    if args.video is not None or args.camera is not None:
        sys.exit(draw_film(args))
    count = draw_with_model(args) if args.from_hdf5 is None else draw_file(args)
    logger.info("%d pictures are in %s", count, args.output)


if __name__ == "__main__":
    logging.captureWarnings(True)
    setup_log()
    main()
