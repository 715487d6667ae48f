#!/usr/bin/env python
r"""Scores ponder maps, or anyone's maps, as a saliency model against human
fixations: the paper's Table 2.

One model:

    python tools/evaluate_saliency.py --dataset CAT2000/trainSet \
        --output output/saliency \
        --config-file configs/ImageNet/sact_R_101_tau_0.005.yaml \
        MODEL.WEIGHTS weights/sact_imagenet.pth

Several on the same images, with maps that exist already among them:

    python tools/evaluate_saliency.py --dataset CAT2000/trainSet \
        --output output/table2 \
        --model "ImageNet SACT" \
            configs/ImageNet/sact_R_101_tau_0.005.yaml weights/imagenet.pth \
        --model "COCO SACT" \
            configs/COCO/sact_R_101_C4_tau_0.005.yaml weights/coco.pth \
        --hdf5 "exported" ponder.h5 --maps "another program's" its_maps/

Maps and log densities of any program, all images scored as they are, by the
rules of the MIT/Tuebingen benchmark:

    python tools/evaluate_saliency.py --dataset CAT2000/trainSet \
        --output output/theirs --protocol tuebingen --as-is \
        --maps "another program's" its_maps/ \
        --densities "a density" its_log_densities.h5

A submission to that benchmark, for images that need no fixations:

    python tools/evaluate_saliency.py --dataset CAT2000/testSet \
        --submission output/submission --densities mine mine.h5

The centre baselines alone; neither torch nor Detectron2 is needed:

    python tools/evaluate_saliency.py --dataset CAT2000/trainSet \
        --output output/center --center-only

--dataset is a folder in CAT2000's layout (saliency/cat2000.py), one that
pysaliency wrote (stimuli.hdf5 and fixations.hdf5), or a list, .json or .csv
(saliency/image_list.py). Where viewers are known, the last rows are how well
people predict each other, and the density of all of them.

A map's way, every step of which results.json repeats: the image is resized to
--image-size, the ponder map has the size that the network saw; it is resized
to the image and blurred (--blur-at image) or the other way round, scaled to
[0, 1], and the multiplier times the centre baseline is added. Blur and
multiplier are tuned on the first half of every category; every row is scored
on the second halves. With --as-is nothing is tuned and all images are scored;
log densities are never changed.

--protocol mit scores by the MIT benchmark's MATLAB code, --protocol tuebingen
by the rules of its successor, equal to pysaliency: information gain in bits
per fixation over a centre bias fitted to the other images (the first row as
well), AUC against all pixels, sAUC, NSS, CC, KL, SIM.

OUTPUT receives table.md, table.csv, results.json, images.csv (every image's
scores), sheet_<model>.png and, of several categories, categories.png (or of
another --format), gallery_<model>.json (for tools/report.py), and maps/, where
ponder maps are kept: an interrupted extraction goes on where it was, and is
done again if weights or config change.
"""

import argparse
import logging
import os
import platform
import sys
from pathlib import Path
from typing import Any, Optional, Sequence

import numpy as np

import sact_det
from sact_det.base.command_line import add_budget, check_positive, parse_with_overrides
from sact_det.base.errors import InputError
from sact_det.base.files import writable_folder
from sact_det.base.processes import command_line
from sact_det.pictures.style import add_map_style, add_page_style, style_of
from saliency.cat2000 import description
from saliency.center import KINDS, CenterBaseline
from saliency.data_sets import read_dataset
from saliency.dataset import FixationDataset, Split
from saliency.evaluation import evaluate
from saliency.fixations import BENCHMARK_SIGMAS, DENSITY_SIGMA, MAT_VARIABLE
from saliency.map_sources import with_all_maps
from saliency.methods import Settings
from saliency.pictures import write_pictures
from saliency.postprocess import INTERPOLATIONS, SCALES
from saliency.report import write_report
from saliency.scanpaths import CONVENTIONS
from saliency.scores import ALL_METRICS, PROTOCOLS
from saliency.search import Grid
from saliency.sources import load_networks, make_models
from saliency.stimuli import read_stimuli
from saliency.submission import write_submissions

logger = logging.getLogger("saliency")


def density_sigma(text: str) -> float:
    """A number, or the benchmark's for a data set's name."""
    return BENCHMARK_SIGMAS.get(text.lower()) or float(text)


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, metavar="PATH", help="images and fixations")
    parser.add_argument(
        "--submission",
        metavar="DIR",
        help="scores nothing, and writes what the MIT/Tuebingen benchmark takes of every model; images of --dataset, a "
        "folder, need no fixations; --sigmas and --multipliers, one each, are applied to maps (default: neither)",
    )
    parser.add_argument("--output", metavar="DIR", help="folder of the results; made if missing")
    parser.add_argument("--title", metavar="TEXT", help="of table and sheets (default: the data set's name)")

    sources = parser.add_argument_group("what is scored beside centre baselines")
    sources.add_argument("--config-file", metavar="CONFIG", help="of a trained detector or classifier")
    sources.add_argument(
        "--model",
        nargs=3,
        action="append",
        default=[],
        metavar=("NAME", "CONFIG", "WEIGHTS"),
        help="a trained detector or classifier and what to call it; once for every model",
    )
    for option, kind, what in (
        ("--hdf5", "FILE", "a file of tools/export_ponder.py; repeatable"),
        ("--maps", "PATH", "maps as PATH/<image's name>.png (.jpg, .npy, ...), or pysaliency's HDF5; repeatable"),
        ("--densities", "PATH", "log densities, pysaliency's HDF5 or a folder of .npy; repeatable"),
    ):
        sources.add_argument(option, nargs=2, action="append", default=[], metavar=("NAME", kind), help=what)
    sources.add_argument("--center-only", action="store_true", help="nothing")

    chain = parser.add_argument_group("from image to saliency map")
    chain.add_argument(
        "--image-size",
        type=int,
        metavar="L",
        help="models see images with a longer edge of L pixels (default: classifiers 320, detectors 640; of CAT2000's "
        "1920x1080 that makes the paper's 320x180 and 640x360)",
    )
    chain.add_argument("--blur-at", choices=SCALES, default="image", help="scale of the blur (default: image)")
    chain.add_argument("--interpolation", choices=INTERPOLATIONS, default="linear", help="of maps (default: linear)")
    chain.add_argument("--center", choices=KINDS, default="stretched", help="centre baseline (default: stretched)")
    chain.add_argument(
        "--center-width", type=float, default=0.25, metavar="W", help="its sigma, in sides of the image (default: 0.25)"
    )
    chain.add_argument(
        "--mask-padding", action="store_true", help="maps are lowest in CAT2000's grey bars (default: as they come)"
    )

    protocol = parser.add_argument_group("tuning and scores")
    protocol.add_argument("--sigmas", nargs="+", type=float, metavar="S", help="pixels of the image (default: MIT's)")
    protocol.add_argument(
        "--multipliers",
        nargs="+",
        type=float,
        metavar="M",
        help="of the centre; inf is the centre alone (default: those of MIT's weights)",
    )
    protocol.add_argument("--protocol", choices=PROTOCOLS, default="mit", help="whose metrics (default: mit)")
    protocol.add_argument(
        "--tune-for", choices=ALL_METRICS, metavar="METRIC", help="default: auc_judd (mit), auc (tuebingen)"
    )
    protocol.add_argument("--as-is", action="store_true", help="tunes nothing, and scores all images")
    protocol.add_argument(
        "--folds", type=int, metavar="K", help="scores all images by K-fold tuning, instead of the second halves"
    )
    protocol.add_argument(
        "--density-sigma",
        type=density_sigma,
        default=DENSITY_SIGMA,
        metavar="S",
        help="blur of the human map in pixels, about a degree of visual angle; or the benchmark's for a data set: "
        "cat2000 (40), mit300 (24), coco-freeview (30); default: 40, for 1920x1080",
    )

    add_budget(parser)
    running = parser.add_argument_group("running")
    running.add_argument("--variable", default=MAT_VARIABLE, metavar="NAME", help=f"in .mat files ({MAT_VARIABLE})")
    running.add_argument(
        "--convention",
        choices=CONVENTIONS,
        default=CONVENTIONS[0],
        help="of points: pixels from 0, or CAT2000's eye tracks, from 1 and with repetitions, as version 1.1 has them",
    )
    running.add_argument("--skip-bad", action="store_true", help="leaves out and lists images that cannot be used")
    running.add_argument("--cache", metavar="DIR", help="of ponder maps (default: OUTPUT/maps)")
    running.add_argument(
        "--num-gpus", type=int, default=1, metavar="N", help="that extract maps, a process each (default: 1)"
    )
    running.add_argument(
        "--num-processes", type=int, metavar="N", help="that extract maps on this machine's CPU, instead of --num-gpus"
    )
    running.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, metavar="N", help="that score (default: every core)"
    )
    running.add_argument("--no-sheet", action="store_true", help="leaves out the pictures")
    running.add_argument("--no-photographs", action="store_true", help="pictures without the images, for publication")
    add_map_style(parser, cells=False)
    add_page_style(parser)
    return parse_with_overrides(parser, argv)


def check_arguments(args: argparse.Namespace) -> None:
    networks = bool(args.config_file or args.model)
    if (args.output is None) == (args.submission is None):
        raise InputError("give one of --output and --submission")
    if args.submission and (args.center_only or any(len(one or [0]) > 1 for one in (args.sigmas, args.multipliers))):
        raise InputError("--submission takes models, and one value of --sigmas and of --multipliers")
    if args.center_only == bool(networks or args.hdf5 or args.maps or args.densities):
        raise InputError("give one of --config-file, --model, --hdf5, --maps, --densities, or --center-only")
    if args.as_is and args.folds is not None:
        raise InputError("--as-is tunes nothing: it needs no --folds")
    if args.num_processes is not None and args.num_gpus > 1:
        raise InputError("--num-gpus and --num-processes: give one of them")
    if args.budget is not None and not networks:
        raise InputError("--budget needs --config-file or --model")
    if args.opts and not networks:
        raise InputError(f"config overrides need --config-file or --model; got {' '.join(args.opts)}")
    metrics = PROTOCOLS[args.protocol].metrics
    if args.tune_for not in (None, *metrics):
        raise InputError(
            f"--tune-for must be a metric of --protocol {args.protocol}, {', '.join(metrics)}; got {args.tune_for}"
        )
    check_positive(args, "--image-size", "--num-gpus", "--num-processes", "--processes")


def make_settings(args: argparse.Namespace) -> Settings:
    protocol, grid = PROTOCOLS[args.protocol], Grid.mit()
    return Settings(
        grid=Grid(tuple(args.sigmas or grid.sigmas), tuple(args.multipliers or grid.multipliers)),
        center=CenterBaseline(args.center, args.center_width),
        tuned_for=args.tune_for or protocol.tuned_for,
        metrics=protocol.metrics,
        density_sigma=args.density_sigma,
        processes=args.processes,
        protocol=args.protocol,
    )


def make_splits(args: argparse.Namespace, dataset: FixationDataset) -> list[Split]:
    if args.as_is:
        return [Split((), range(len(dataset)))]
    return dataset.halves(args.skip_bad) if args.folds is None else dataset.folds(args.folds)


def about(args: argparse.Namespace, networks: dict[str, Any], dataset: FixationDataset) -> dict[str, Any]:
    """What joins the results: where every number comes from."""
    return {
        "statistics": description(dataset),
        "networks": {name: {"weights": cfg.MODEL.WEIGHTS} for name, cfg in networks.items()},
        "stored_maps": dict((*args.maps, *args.densities, *args.hdf5)),
        "padding": "lowest value of the map" if args.mask_padding else "as it comes",
        "command": sys.argv,
        "versions": {"sact_det": sact_det.__version__, "python": platform.python_version(), "numpy": np.__version__},
    }


def submit(args: argparse.Namespace, networks: dict[str, Any]) -> None:
    folder = writable_folder(args.submission)
    dataset = read_stimuli(args.dataset)
    models = make_models(args, networks, dataset)
    with_all_maps(dataset, {model.name: model.maps for model in models})  # what is wrong with one is said before
    chosen = (values[0] if values else None for values in (args.sigmas, args.multipliers))
    write_submissions(folder, dataset, models, CenterBaseline(args.center, args.center_width), *chosen)


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    check_arguments(args)
    style = style_of(args)
    networks = load_networks(args)
    if args.submission:
        submit(args, networks)
        return
    settings = make_settings(args)
    folder = writable_folder(args.output)
    dataset = read_dataset(args.dataset, variable=args.variable, convention=args.convention, skip_bad=args.skip_bad)
    logger.info("%s: %s", args.dataset, description(dataset))
    models = make_models(args, networks, dataset)
    dataset = with_all_maps(dataset, {m.name: m.maps for m in models}, skip_bad=args.skip_bad)
    splits = make_splits(args, dataset)
    evaluation = evaluate(dataset, models, splits, settings)
    title = args.title or Path(args.dataset).resolve().stem
    table = write_report(folder, evaluation, title, about(args, networks, dataset))
    if not args.no_sheet:
        write_pictures(folder, evaluation, title, not args.no_photographs, style)
    for line in dataset.skipped:
        logger.warning("left out: %s", line)
    logger.info("In %s:\n%s", folder, table)


if __name__ == "__main__":
    logging.captureWarnings(True)
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logger.setLevel(logging.INFO)
    main()
