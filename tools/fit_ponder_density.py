#!/usr/bin/env python
r"""Fits ponder maps as densities of fixations, and scores them on images that
were not fitted on.

    python tools/fit_ponder_density.py --output output/density \
        --cache output/maps --dataset OSIE datasets/osie_cat2000 24 \
        --dataset MIT1003 datasets/mit1003_100 16 \
        --model "ImageNet SACT" CONFIG WEIGHTS \
        --model "detector" CONFIG WEIGHTS

A data set is a name, a path as --dataset of evaluate_saliency.py takes it, and
the blur of its fixation density in pixels. Parameters
(saliency/ponder_density.py) are fitted on the first half of every category,
and on fewer images of it (--images); scored are the second halves, by the
metrics of the Tuebingen protocol, each on the map that the density expects to
be its best. With several data sets, what was fitted on one is scored on the
others as well, without fitting.

OUTPUT receives table.md and results.json: every row with 95% bootstrap
intervals over images, the parameters, and paired differences in information
gain between models fitted alike.
"""

import argparse
import logging
import os
import sys
from dataclasses import asdict
from typing import Any, Optional, Sequence

import numpy as np

from sact_det.base.command_line import check_positive
from sact_det.base.errors import InputError
from sact_det.base.files import writable_folder, write_json, write_text
from sact_det.base.markdown import markdown_table
from sact_det.base.processes import command_line
from sact_det.tasks import load_config
from saliency.center_bias import CenterBias
from saliency.data_sets import read_dataset
from saliency.density_scores import DensityData, density_scores
from saliency.extraction import ExtractedMaps, check_halts_by_position, extract_maps
from saliency.intervals import bootstrap_intervals
from saliency.ponder_density import PonderDensity, fit_ponder_density
from saliency.scores import TUEBINGEN_METRICS

logger = logging.getLogger("saliency")
NAMES = tuple(TUEBINGEN_METRICS)
GAIN = NAMES[0]


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", nargs=3, action="append", required=True, metavar=("NAME", "PATH", "SIGMA"))
    parser.add_argument("--model", nargs=3, action="append", required=True, metavar=("NAME", "CONFIG", "WEIGHTS"))
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the results; made if missing")
    parser.add_argument("--cache", metavar="DIR", help="of ponder maps (default: OUTPUT/maps)")
    parser.add_argument("--image-size", type=int, metavar="L", help="longer edge that models see (default: by kind)")
    parser.add_argument(
        "--images", type=int, nargs="*", default=(10, 25, 50, 100), metavar="N", help="to fit on, besides all of them"
    )
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, metavar="N", help="that score (default: every core)"
    )
    return parser.parse_args(argv)


def read_data(name: str, path: str, sigma: str) -> DensityData:
    images = read_dataset(path)
    try:
        blur = float(sigma)
    except ValueError as error:
        raise InputError(f"--dataset {name}: the blur of its density must be a number; got {sigma!r}") from error
    if not 0 < blur < np.inf:
        raise InputError(f"--dataset {name}: the blur of its density must be positive; got {sigma}")
    (split,) = images.halves()
    bias = CenterBias.fit([image.fixations for image in images])
    return DensityData(name, images, blur, bias, split.tuned_on, split.scored)


def fit(data: DensityData, maps: ExtractedMaps, number: Optional[int]) -> PonderDensity:
    """Fitted on so many images of the first half, evenly spread over it, or on all of them."""
    chosen = list(data.fitted_on)
    if number is not None:
        chosen = [chosen[index] for index in np.linspace(0, len(chosen) - 1, number).round().astype(int)]
    images = [data.images[index] for index in chosen]
    return fit_ponder_density([maps(image.name) for image in images], [image.fixations for image in images])


def cells(scores: np.ndarray) -> list[str]:
    gain, *others = bootstrap_intervals(scores)
    return [f"{gain.mean:.4f} [{gain.low:.4f}, {gain.high:.4f}]", *(f"{one.mean:.4f}" for one in others)]


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    check_positive(args, "--image-size", "--processes", *(["--images"] if args.images else []))
    configs = {
        name: load_config(config, ["MODEL.WEIGHTS", weights], data=False) for name, config, weights in args.model
    }
    for cfg in configs.values():
        check_halts_by_position(cfg)
    folder = writable_folder(args.output)
    sets = [read_data(*one) for one in args.dataset]
    cache = args.cache or folder / "maps"
    rows: list[dict[str, Any]] = []
    all_scores: dict[tuple[str, str, str, int], np.ndarray] = {}

    def add(
        model: str, fitted: str, number: int, data: DensityData, maps: Any, density: Optional[PonderDensity]
    ) -> None:
        scores = density_scores(data, maps, density, args.processes)
        all_scores[model, fitted, data.name, number] = scores
        intervals = {name: asdict(one) for name, one in zip(NAMES, bootstrap_intervals(scores))}
        parameters = None if density is None else asdict(density)
        rows.append({"model": model, "fitted_on": fitted, "images": number, "scored_on": data.name,
                     "parameters": parameters, "scores": intervals, "cells": cells(scores)})  # fmt: skip
        logger.info("%s, fitted on %d images of %s: scored on %s", model, number, fitted, data.name)

    for data in sets:
        add("centre bias", data.name, len(data.images) - 1, data, None, None)
    for name, cfg in configs.items():
        maps = {data.name: extract_maps(cfg, data.images, cache, args.image_size, by_block=True) for data in sets}
        for data in sets:
            everything = len(data.fitted_on)
            for number in sorted({*(n for n in args.images if n < everything), everything}):
                density = fit(data, maps[data.name], None if number == everything else number)
                add(name, data.name, number, data, maps[data.name], density)
            for other in sets:
                if other is not data:
                    add(name, data.name, everything, other, maps[other.name], density)
    heads = ["model", "fitted on", "images", "scored on", *(TUEBINGEN_METRICS[name].title for name in NAMES)]
    table = [[row["model"], row["fitted_on"], str(row["images"]), row["scored_on"], *row.pop("cells")] for row in rows]
    differences = paired(all_scores)
    text = markdown_table(heads, table)
    if differences:
        text += "\n\n" + markdown_table(["IG of", "minus", "fitted on", "scored on", "difference"], differences)
    write_json(folder / "results.json", {"rows": rows, "differences": differences, "command": sys.argv})
    write_text(folder / "table.md", text + "\n")
    logger.info("In %s:\n%s", folder, text)


def paired(scores: dict[tuple[str, str, str, int], np.ndarray]) -> list[list[str]]:
    """Of every two models fitted on all images of the same data set: their difference in information gain."""
    most: dict[tuple[str, str], int] = {}
    for model, fitted, _, number in scores:
        most[model, fitted] = max(number, most.get((model, fitted), 0))
    whole = [key for key in scores if key[3] == most[key[0], key[1]] and key[0] != "centre bias"]
    lines = []
    for position, one in enumerate(whole):
        for two in whole[position + 1 :]:
            if one[1:3] == two[1:3]:
                (found,) = bootstrap_intervals((scores[two] - scores[one])[:, :1])
                value = f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
                lines.append([two[0], one[0], one[1], one[2], value])
    return lines


if __name__ == "__main__":
    logging.captureWarnings(True)
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logger.setLevel(logging.INFO)
    main()
