#!/usr/bin/env python
"""Scores ponder maps, or anyone's maps, as a saliency model against human fixations: the paper's Table 2.

One model:

    python tools/evaluate_saliency.py --dataset CAT2000/trainSet --output output/saliency \
        --config-file configs/ImageNet/sact_R_101_tau_0.005.yaml MODEL.WEIGHTS weights/sact_imagenet.pth

Several on the same images, with maps that exist already among them:

    python tools/evaluate_saliency.py --dataset CAT2000/trainSet --output output/table2 \
        --model "ImageNet SACT" configs/ImageNet/sact_R_101_tau_0.005.yaml weights/sact_imagenet.pth \
        --model "COCO SACT" configs/COCO/sact_R_101_C4_tau_0.005.yaml weights/sact_coco.pth \
        --hdf5 "exported" ponder.h5 --maps "another program's" its_maps/

The centre baselines alone; neither torch nor Detectron2 is needed:

    python tools/evaluate_saliency.py --dataset CAT2000/trainSet --output output/center --center-only

--dataset is a folder in CAT2000's layout (saliency/cat2000.py), or a list, .json or .csv (saliency/image_list.py).

A map's way, every step of which results.json repeats: the image is resized to --image-size, the ponder map has the
size that the network saw; it is resized to the image and blurred (--blur-at image) or the other way round, scaled to
[0, 1], and the multiplier times the centre baseline is added. Blur and multiplier are tuned on the first half of every
category; every row is scored on the second halves.

OUTPUT receives table.md, table.csv, results.json, images.csv (every image's scores), sheet_<model>.png, and maps/,
where ponder maps are kept: an interrupted extraction goes on where it was, and is done again if weights or config
change.
"""

import argparse
import logging
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

import numpy as np
from PIL import Image

import sact_det
from sact_det.base.command_line import add_budget, check_positive, parse_with_overrides, with_budget
from sact_det.base.errors import InputError
from sact_det.base.files import replacing, writable_folder
from sact_det.base.processes import command_line
from sact_det.data.image_files import distinct_stems
from saliency.cat2000 import read_cat2000, statistics
from saliency.center import KINDS, CenterBaseline
from saliency.dataset import FixationDataset
from saliency.evaluation import Evaluation, Model, Settings, evaluate
from saliency.fixations import DENSITY_SIGMA, MAT_VARIABLE
from saliency.image_list import SUFFIXES, read_image_list
from saliency.map_sources import MapFolder, Maps, PaddingMasked, PonderFileMaps, with_all_maps
from saliency.postprocess import INTERPOLATIONS, SCALES, PostProcessing
from saliency.report import write_report
from saliency.scores import METRICS
from saliency.search import Grid
from saliency.sheet import draw_sheet

logger = logging.getLogger("saliency")


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, metavar="PATH", help="images and fixations")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the results; made if missing")
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
        ("--maps", "DIR", "maps as DIR/<image's name>.png (.jpg, .npy, ...); repeatable"),
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
    grid = Grid.mit()
    protocol.add_argument(
        "--sigmas", nargs="+", type=float, default=grid.sigmas, metavar="S", help="pixels of the image (default: MIT's)"
    )
    protocol.add_argument(
        "--multipliers",
        nargs="+",
        type=float,
        default=grid.multipliers,
        metavar="M",
        help="of the centre; inf is the centre alone (default: those of MIT's weights)",
    )
    protocol.add_argument("--tune-for", choices=METRICS, default="auc_judd", metavar="METRIC", help="default: auc_judd")
    protocol.add_argument(
        "--folds", type=int, metavar="K", help="scores all images by K-fold tuning, instead of the second halves"
    )
    protocol.add_argument(
        "--density-sigma",
        type=float,
        default=DENSITY_SIGMA,
        metavar="S",
        help="blur of the human map in pixels, about a degree of visual angle (default: 40, for 1920x1080)",
    )

    add_budget(parser)
    running = parser.add_argument_group("running")
    running.add_argument("--variable", default=MAT_VARIABLE, metavar="NAME", help=f"in .mat files ({MAT_VARIABLE})")
    running.add_argument("--skip-bad", action="store_true", help="leaves out and lists images that cannot be used")
    running.add_argument("--cache", metavar="DIR", help="of ponder maps (default: OUTPUT/maps)")
    running.add_argument(
        "--num-gpus", type=int, default=1, metavar="N", help="processes that extract maps; without a GPU, on the CPU"
    )
    running.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, metavar="N", help="that score (default: every core)"
    )
    running.add_argument("--no-sheet", action="store_true", help="leaves out the pictures")
    running.add_argument("--no-photographs", action="store_true", help="pictures without the images, for publication")
    return parse_with_overrides(parser, argv)


def check_arguments(args: argparse.Namespace) -> None:
    networks = bool(args.config_file or args.model)
    if args.center_only == bool(networks or args.hdf5 or args.maps):
        raise InputError("give one of --config-file, --model, --hdf5, --maps, or --center-only")
    if args.budget is not None and not networks:
        raise InputError("--budget needs --config-file or --model")
    if args.opts and not networks:
        raise InputError(f"config overrides need --config-file or --model; got {' '.join(args.opts)}")
    check_positive(args, "--image-size", "--num-gpus", "--processes")


def make_settings(args: argparse.Namespace) -> Settings:
    return Settings(
        grid=Grid(tuple(args.sigmas), tuple(args.multipliers)),
        center=CenterBaseline(args.center, args.center_width),
        tuned_for=args.tune_for,
        density_sigma=args.density_sigma,
        processes=args.processes,
    )


def read_dataset(args: argparse.Namespace) -> FixationDataset:
    path = Path(args.dataset)
    read: Callable[..., FixationDataset] = read_image_list if path.suffix.lower() in SUFFIXES else read_cat2000
    dataset = read(path, variable=args.variable, skip_bad=args.skip_bad)
    logger.info("%s: %s", args.dataset, statistics(dataset))
    return dataset


def title_from_path(config_file: str) -> str:
    """The file's name, or its folder's where a training wrote it as config.yaml."""
    path = Path(config_file).resolve()
    return path.parent.name if path.name == "config.yaml" else path.stem


def load_networks(args: argparse.Namespace) -> dict[str, Any]:
    """The config of every network by its name, checked before any work is done."""
    if not (args.config_file or args.model):
        return {}
    from sact_det.tasks import load_config  # late: it needs Detectron2
    from saliency.extraction import check_halts_by_position, fingerprint

    chosen: list[tuple[str, str, list[str]]] = []
    if args.config_file:
        chosen.append((title_from_path(args.config_file), args.config_file, []))
    chosen += [(name, config, ["MODEL.WEIGHTS", weights]) for name, config, weights in args.model]
    configs = {}
    for name, config, weights in chosen:
        if name in configs:
            raise InputError(f"--model {name!r}: given twice")
        configs[name] = load_config(config, [*with_budget(args), *weights])
        check_halts_by_position(configs[name])
        fingerprint(configs[name], 1)
    return configs


def make_models(args: argparse.Namespace, networks: dict[str, Any], dataset: FixationDataset) -> list[Model]:
    """Every source of maps; those of networks are extracted."""
    chain = PostProcessing(blur_at=args.blur_at, interpolation=args.interpolation)
    models = []
    for name, cfg in networks.items():
        from saliency.extraction import LONGER_EDGE, extract_maps

        edge = args.image_size or LONGER_EDGE[cfg.MODEL.META_ARCHITECTURE]
        logger.info("Ponder maps of %s: longer edge %d pixels", name, edge)
        folder = args.cache or Path(args.output) / "maps"
        maps = extract_maps(cfg, dataset, folder, edge, processes=args.num_gpus)
        models.append(Model(name, maps, PostProcessing(edge, blur_at=args.blur_at, interpolation=args.interpolation)))
    stored: list[tuple[str, Maps]] = [(name, MapFolder(folder, dataset)) for name, folder in args.maps]
    stored += [(name, PonderFileMaps(path, [image.name for image in dataset])) for name, path in args.hdf5]
    return models + [Model(name, maps, chain) for name, maps in stored]


def save_sheets(evaluation: Evaluation, folder: Path, title: str, photographs: bool) -> None:
    stems = distinct_stems([re.sub(r"[^\w.+-]+", "_", model.name) for model in evaluation.models])
    for model, stem in zip(evaluation.models, stems):
        with replacing(folder / f"sheet_{stem}.png") as temporary:
            Image.fromarray(draw_sheet(evaluation, model, title, photographs)).save(temporary)


def about(args: argparse.Namespace, networks: dict[str, Any], dataset: FixationDataset) -> dict[str, Any]:
    """What joins the results: where every number comes from."""
    return {
        "statistics": statistics(dataset),
        "networks": {name: {"weights": cfg.MODEL.WEIGHTS} for name, cfg in networks.items()},
        "stored_maps": dict((*args.maps, *args.hdf5)),
        "padding": "lowest value of the map" if args.mask_padding else "as it comes",
        "command": sys.argv,
        "versions": {"sact_det": sact_det.__version__, "python": platform.python_version(), "numpy": np.__version__},
    }


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    check_arguments(args)
    settings = make_settings(args)
    networks = load_networks(args)
    folder = writable_folder(args.output)
    dataset = read_dataset(args)
    models = make_models(args, networks, dataset)
    if args.mask_padding:
        models = [Model(model.name, PaddingMasked(model.maps, dataset), model.chain) for model in models]
    dataset = with_all_maps(dataset, {m.name: m.maps for m in models}, skip_bad=args.skip_bad)
    splits = dataset.halves(args.skip_bad) if args.folds is None else dataset.folds(args.folds)
    evaluation = evaluate(dataset, models, splits, settings)
    title = args.title or Path(args.dataset).resolve().stem
    table = write_report(folder, evaluation, title, about(args, networks, dataset))
    if not args.no_sheet:
        save_sheets(evaluation, folder, title, not args.no_photographs)
    for line in dataset.skipped:
        logger.warning("left out: %s", line)
    logger.info("In %s:\n%s", folder, table)


if __name__ == "__main__":
    logging.captureWarnings(True)
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logger.setLevel(logging.INFO)
    main()
