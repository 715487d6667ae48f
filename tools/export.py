#!/usr/bin/env python
r"""Writes a trained classifier, backbone or whole detector as a file that runs
without this package.

    python tools/export.py --config-file C --format onnx --output model.onnx \
        --images photos/ MODEL.WEIGHTS W

What is written computes densely, for images of any size: every unit at every
position, masked by the halting scores, so that results are those of the
trained network. Before the file appears it is run (ONNX Runtime,
torch.export.load, torch.jit.load) on photographs of three sizes, and compared
with PyTorch. docs/TRAINING.md says what it takes and gives.
"""

import argparse
import logging
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

import sact_det.engine  # noqa: F401  (first, because it imports Detectron2 quietly)

# isort: split
import torch
from detectron2.config import CfgNode
from torch import Tensor
from tqdm import tqdm

from sact_det.base.command_line import add_budget, parse_with_overrides, with_budget
from sact_det.base.doing import doing
from sact_det.base.errors import InputError, naming
from sact_det.base.files import replacing, writable_file
from sact_det.base.processes import command_line
from sact_det.classification.predictor import ClassPredictor
from sact_det.classification.preprocessing import whole_image
from sact_det.data.image_files import find_images, read_checked
from sact_det.detection.predictor import Predictor
from sact_det.engine.console import setup_log
from sact_det.execution import set_execution
from sact_det.export.forms import BackboneForm, ClassifierForm, DetectorForm, Form, check_exportable
from sact_det.export.programs import FORMATS, write_program
from sact_det.export.verification import differences, of_different_sizes
from sact_det.tasks import load_config

logger = logging.getLogger("sact_det.export")


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="of the trained detector or classifier")
    parser.add_argument("--format", required=True, choices=list(FORMATS), help="of the file")
    parser.add_argument("--output", required=True, metavar="FILE", help="appears when it has been verified")
    parser.add_argument(
        "--images",
        required=True,
        nargs="+",
        metavar="IMAGE",
        help="photographs, folders or quoted globs: the file is verified on the first three, and on crops of them if "
        "they do not have three sizes",
    )
    parser.add_argument(
        "--part", choices=("model", "backbone"), default="model", help="backbone: a detector's features alone"
    )
    add_budget(parser)
    return parse_with_overrides(parser, argv)


def load(cfg: CfgNode, part: str) -> tuple[Any, type[Form], Callable[[Path], Tensor]]:
    """A trained model, what is to be recorded of it, and what it is given for an image file."""
    if cfg.MODEL.META_ARCHITECTURE == "SACTClassifier":
        if part == "backbone":
            raise InputError("--part backbone is for detectors; a classifier is exported whole")
        edge = cfg.INPUT.CLASSIFICATION.SIZE_TEST
        return ClassPredictor(cfg).model, ClassifierForm, lambda path: whole_image(read_checked(path), edge)[None]
    if part == "model":
        check_exportable(cfg)
    predictor = Predictor(cfg)

    def prepare(path: Path) -> Tensor:
        return predictor.prepare(read_checked(path, "BGR")).float()

    return predictor.model, BackboneForm if part == "backbone" else DetectorForm, prepare


@torch.no_grad()
def export(args: argparse.Namespace, cfg: CfgNode) -> dict[str, float]:
    """Writes the file; returns the largest differences from PyTorch."""
    with doing(f"loading {args.config_file}"):
        model, form_class, prepare = load(cfg, args.part)
    images = of_different_sizes([prepare(path) for path in find_images(args.images)[:3]])
    set_execution(model, "dense")
    looked_at = tqdm(images, desc="PyTorch", unit="image", disable=None)  # silent where stderr is no terminal
    expected = [form_class.reference(model, image) for image in looked_at]
    form, program_format = form_class(model).eval(), FORMATS[args.format]
    program_format.check_served(images, form.axes)
    worst: dict[str, float] = {}
    with replacing(args.output) as temporary:
        with doing(f"recording {args.output}"):
            write_program(args.format, form, images[0], form.axes, temporary)
        with naming(f"--format {args.format}: this model's file cannot be loaded"):
            program = program_format.load(temporary)
        for image, outputs in zip(tqdm(images, desc=args.format, unit="image", disable=None), expected):
            place = f"--format {args.format}: the file is not the model on an image of {list(image.shape[-2:])}"
            with naming(place, Exception, InputError):
                found = differences(outputs, program(image))
            worst = {name: max(value, worst.get(name, 0.0)) for name, value in found.items()}
    return worst


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    FORMATS[args.format].check_installed()
    cfg = load_config(args.config_file, [*with_budget(args), "MODEL.DEVICE", "cpu"], data=False)
    writable_file(args.output)
    worst = export(args, cfg)
    for name, difference in worst.items():
        logger.info("%s: within %.2g of PyTorch", name, difference)
    logger.info("%s is in %s", "The backbone" if args.part == "backbone" else "The model", args.output)


if __name__ == "__main__":
    setup_log()
    main()
