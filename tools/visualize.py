#!/usr/bin/env python
"""Draws detections beside ponder maps: where in an image a trained detector spends its computation.

    python tools/visualize.py --config-file configs/COCO/sact_R_101_C4_tau_0.005.yaml --input photos/ "more/*.jpg" \
        --output pictures MODEL.WEIGHTS output/model_final.pth

OUTPUT receives, for every image, <mean ponder cost>_<name>.png (so that names sort by cost), all of them on sheet.png
under one colour scale (sheet_1.png, ... if there are many), and the numbers in ponder.json.

A ponder map is drawn at the size of the image itself: every block's ponder cost goes from the feature map to the
image in one nearest-neighbour step, by the original program's rule.
"""

import argparse
import glob
import logging
import tempfile
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

import sact_det.detection  # noqa: F401  (registers the model; first, because it imports Detectron2 quietly)

# isort: split
import numpy as np
from detectron2.config import CfgNode
from detectron2.utils.logger import setup_logger
from PIL import Image
from tqdm import tqdm

from sact_det.detection.drawing import class_names, draw_detections
from sact_det.detection.predictor import Prediction, Predictor, read_checked
from sact_det.detection.setup import load_config
from sact_det.errors import InputError, errors_to_exit_code
from sact_det.files import replacing, write_json
from sact_det.visualize import ContactSheet, display_scale, draw_panel, sorted_name

logger = logging.getLogger("sact_det.visualize")

IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
MAX_SIDE = 16384  # pixels; three panels of this side are as much as matplotlib draws


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="of the trained detector")
    parser.add_argument("--input", required=True, nargs="+", metavar="IMAGE", help="images, folders or quoted globs")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the pictures; made if missing")
    parser.add_argument("--per-block", action="store_true", help="adds a row with the map of every block")
    parser.add_argument("--overlay", action="store_true", help="adds the ponder map blended on the image")
    parser.add_argument(
        "--confidence-threshold", type=float, default=0.5, metavar="P", help="least score of a drawn box (default: 0.5)"
    )
    parser.add_argument("--no-sheet", action="store_true", help="leaves out the contact sheet")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config overrides, at the end")
    return parser.parse_args(argv)


def find_images(inputs: Sequence[str]) -> list[Path]:
    """The files that images, folders (not their subfolders) and globs name, each once. Raises InputError."""
    found: dict[Path, Path] = {}
    for item in inputs:
        path = Path(item)
        if path.is_dir():
            files = sorted(child for child in path.iterdir() if child.suffix.lower() in IMAGE_SUFFIXES)
            if not files:
                raise InputError(f"{item}: no images in this folder ({', '.join(sorted(IMAGE_SUFFIXES))})")
        elif path.exists():
            files = [path]
        elif glob.has_magic(item):
            files = [Path(match) for match in sorted(glob.glob(item, recursive=True)) if Path(match).is_file()]
            if not files:
                raise InputError(f"{item}: no file matches")
        else:
            raise InputError(f"{item}: no such image or folder")
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def distinct_stems(paths: Sequence[Path]) -> list[str]:
    """The stem of each file; where several share one, all but the first get a number, as in cat, cat_2, cat_3."""
    taken = {path.stem.casefold() for path in paths}
    seen: set[str] = set()
    stems = []
    for path in paths:
        stem, number = path.stem, 1
        while stem.casefold() in seen or (number > 1 and stem.casefold() in taken):
            number += 1
            stem = f"{path.stem}_{number}"
        seen.add(stem.casefold())
        stems.append(stem)
    return stems


def prepare_output(folder: Path) -> None:
    """Makes the folder, and finds out now rather than after the first image whether it can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"--output {folder}: not a folder that can be written ({error.strerror})") from error


def save_image(path: Path, pixels: np.ndarray) -> None:
    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary)


def draw(
    image: np.ndarray, prediction: Prediction, names: Optional[Sequence[str]], *, per_block: bool, overlay: bool
) -> np.ndarray:
    """The picture of an RGB image's detections and ponder map, at its own size or, where that is small, a multiple."""
    scale = display_scale(*image.shape[:2])
    block_maps = {
        f"{name}, mean {float(block.mean_cost()):.2f}": block.ponder_cost[0].numpy()
        for name, block in prediction.ponder.blocks.items()
    }
    return draw_panel(
        draw_detections(image, prediction.instances, names, scale),
        prediction.ponder.map((scale * image.shape[0], scale * image.shape[1]))[0].numpy(),
        mean_cost=float(prediction.ponder.mean_cost()),
        block_maps=block_maps if per_block else None,
        overlay=image.repeat(scale, 0).repeat(scale, 1) if overlay else None,
    )


def predictions(cfg: CfgNode, paths: Sequence[Path]) -> Iterator[tuple[np.ndarray, Prediction]]:
    """The RGB image and the prediction of each file."""
    predictor = Predictor(cfg)
    with tqdm(paths, unit="image", disable=None) as progress:  # silent where stderr is no terminal
        for path in progress:
            image = read_checked(path, predictor.input_format)
            if max(image.shape) > MAX_SIDE:
                raise InputError(f"{path}: sides of more than {MAX_SIDE} pixels cannot be drawn; got {image.shape[:2]}")
            prediction = predictor(image)
            yield image if predictor.input_format == "RGB" else image[..., ::-1], prediction


def visualize(args: argparse.Namespace) -> None:
    if not 0 <= args.confidence_threshold <= 1:
        raise InputError(f"--confidence-threshold must be from 0 to 1; got {args.confidence_threshold}")
    threshold = ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", str(args.confidence_threshold)]
    cfg = load_config(args.config_file, [*args.opts, *threshold])
    paths, output = find_images(args.input), Path(args.output)
    prepare_output(output)

    names, sheet = class_names(cfg), ContactSheet()
    rows: list[dict[str, Any]] = []
    for path, stem, (image, prediction) in zip(paths, distinct_stems(paths), predictions(cfg, paths)):
        numbers = prediction.numbers
        picture = f"{sorted_name(numbers['mean_ponder_cost'], stem)}.png"
        save_image(output / picture, draw(image, prediction, names, per_block=args.per_block, overlay=args.overlay))
        rows.append({"file": str(path), "picture": picture, **numbers})
        if not args.no_sheet:
            ponder_map = prediction.ponder.map(image.shape[:2])[0].numpy()
            sheet.add(path.name, image, ponder_map, numbers["mean_ponder_cost"])

    pages = sheet.number_of_pages
    for number, page in enumerate(sheet.pages(), 1):
        save_image(output / ("sheet.png" if pages == 1 else f"sheet_{number:0{len(str(pages))}}.png"), page)
    sact = cfg.MODEL.SACT
    reference = {"units": list(sact.REFERENCE_UNITS), "base_channels": sact.BASE_CHANNELS}
    write_json(output / "ponder.json", {"reference": reference, "images": rows})
    logger.info("%d pictures are in %s", len(rows), output)


def main(argv: Optional[Sequence[str]] = None) -> None:
    with errors_to_exit_code():
        visualize(parse_arguments(argv))


if __name__ == "__main__":
    logging.captureWarnings(True)
    setup_logger(name="sact_det")
    main()
