#!/usr/bin/env python
r"""Detects in many images without annotations: COCO results, and FLOPs and
units of every image.

    python tools/predict.py --config-file C --input photos/ \
        --output results.json MODEL.WEIGHTS W
    python tools/predict.py --config-file C --input list.txt \
        --output results.json --num-processes 8 MODEL.WEIGHTS W
    torchrun --nproc-per-node 8 tools/predict.py --config-file C \
        --input photos/ --output results.json MODEL.WEIGHTS W

A list has the path of an image in every line, relative to its folder. OUTPUT,
something.json, receives what is found: boxes, and masks and keypoints of such
detectors, in COCO's format, or boxes as FiftyOne imports them (--format
fiftyone), whose something.media.json says where the images are. Beside it are
something.images.jsonl, a line for every image with what it took or why it
cannot be read, and something.summary.json: means, and whose the ids of images
and categories are. Parts are kept as they are done, in something.parts/: the
same command goes on after a kill, with any number of processes. torchrun
shares the images on several machines, too, which must have the folder of
OUTPUT in common.
"""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Optional, Sequence

import sact_det.engine  # noqa: F401  (first, because it imports Detectron2 quietly)

# isort: split
import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException

from sact_det.base.command_line import add_budget, check_positive, parse_with_overrides, with_budget
from sact_det.base.errors import InputError, errors_to_exit_code
from sact_det.base.processes import command_line
from sact_det.base.torchrun import Place, place_by_torchrun
from sact_det.data.image_files import find_images, is_image_name, listed_images
from sact_det.detection.inference import FORMATS, predict_images
from sact_det.engine.console import setup_log
from sact_det.engine.launch import launch
from sact_det.tasks import load_config


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="of the trained detector")
    parser.add_argument(
        "--input", required=True, nargs="+", metavar="INPUT", help="folders, images or quoted globs, or a list, .txt"
    )
    parser.add_argument("--output", required=True, metavar="RESULTS.json", help="what is found")
    parser.add_argument(
        "--num-processes",
        type=int,
        metavar="N",
        help="on this machine, one for each GPU if there are any (default: 1, or as torchrun says)",
    )
    parser.add_argument("--format", choices=FORMATS, default="coco", help="of RESULTS.json (default: coco)")
    parser.add_argument(
        "--batch",
        type=int,
        default=1,
        metavar="N",
        help="so many images of one shape are computed at a time (default: 1); small ones are faster so",
    )
    add_budget(parser)
    return parse_with_overrides(parser, argv)


def read_config(args: argparse.Namespace) -> CfgNode:
    """The config of a detector, without the data sets that are not at hand: none is needed."""
    cfg = load_config(args.config_file, with_budget(args), data=False)
    if cfg.MODEL.META_ARCHITECTURE == "SACTClassifier":
        raise InputError("MODEL.META_ARCHITECTURE must be that of a detector; got SACTClassifier")
    return cfg


def images_of(inputs: Sequence[str]) -> list[Path]:
    """The images of folders, globs and lists, each once."""
    found: dict[Path, None] = {}
    for item in inputs:
        is_list = Path(item).suffix.lower() == ".txt" and not is_image_name(item)
        found.update(dict.fromkeys(listed_images(item) if is_list else find_images([item])))
    return list(found)


def predict(args: argparse.Namespace, place: Place) -> None:
    if torch.cuda.is_available():
        torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
    predict_images(read_config(args), images_of(args.input), args.output, place, args.format, args.batch)


@errors_to_exit_code()
def predict_in_process(args: argparse.Namespace) -> None:
    """One of --num-processes."""
    set_up_logging()
    predict(args, Place(comm.get_rank(), comm.get_world_size(), comm.get_local_rank()))


def predict_in_processes(args: argparse.Namespace) -> None:
    read_config(args), images_of(args.input)  # what is wrong with them is said once, not by every process
    if 0 < torch.cuda.device_count() < args.num_processes:
        raise InputError(f"--num-processes {args.num_processes}: this machine has {torch.cuda.device_count()} GPUs")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does: processes share the cores
    try:
        launch(predict_in_process, args.num_processes, args=(args,))
    except ProcessExitedException as error:
        # A process that exits has said why; one that was killed has not.
        sys.exit(error.exit_code if error.signal_name is None else f"error: {error}")


def set_up_logging() -> None:
    logging.captureWarnings(True)
    setup_log(everyone=True)  # each says what it has done


@command_line(by_torchrun=True)
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    check_positive(args, "--num-processes", "--batch")
    place = place_by_torchrun(os.environ)
    if place and args.num_processes:
        raise InputError("--num-processes does not go with torchrun, which starts the processes itself")
    if (args.num_processes or 1) > 1:
        predict_in_processes(args)
    else:
        predict(args, place or Place())


if __name__ == "__main__":
    set_up_logging()
    main()
