#!/usr/bin/env python
r"""Evaluates a detector with different numbers of proposals: AP, recall, FLOPs
and seconds against regions per image.

    python tools/sweep_proposals.py \
        --config-file configs/BCCD/sact_R_50_C4_tau_0.05.yaml \
        --proposals 60 40 20 10 --masses 0.95 0.9 0.8 0.7 \
        --output output/proposals MODEL.WEIGHTS output/bccd/model_final.pth

Each of --proposals is a MODEL.RPN.POST_NMS_TOPK_TEST, the first so many of
every image; each of --masses a MODEL.SACT.PROPOSAL_MASS, of the largest of
--proposals. One pass over the data set serves all of them. Each of
--positions, MODEL.SACT.RPN_POSITIONS, is tried with all of them. OUTPUT
receives table.md, results.json, proposals.png, and a folder with the
detections of every setting. What is measured of an image is kept there, too:
an interrupted sweep goes on where it was, and more settings can be added; it
is used again if weights, config and threads are the same.
"""

import argparse
import logging
from pathlib import Path
from typing import Optional, Sequence

import sact_det.engine  # noqa: F401  (first, because it imports Detectron2 quietly)

# isort: split
from detectron2.config import CfgNode
from tqdm import tqdm

from sact_det.base.command_line import check_positive, parse_with_overrides
from sact_det.base.errors import InputError
from sact_det.base.files import writable_folder, write_json, write_text
from sact_det.base.processes import command_line
from sact_det.budget.image_scale import check_whole_images
from sact_det.detection.config_kinds import check_detector
from sact_det.detection.loader import build_test_loader
from sact_det.detection.predictor import load_detector
from sact_det.engine.console import setup_log
from sact_det.engine.failures import sizes_fit
from sact_det.experiments.proposal_plot import draw_proposals
from sact_det.experiments.proposal_sweep import ProposalSweep, Setting, sweep_table
from sact_det.pictures.figures import save_figure
from sact_det.pictures.style import add_page_style, style_of
from sact_det.tasks import load_config

SIZES = ("MODEL.RPN.POST_NMS_TOPK_TEST", "INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST")

logger = logging.getLogger("sact_det.sweep_proposals")


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="of the trained detector")
    parser.add_argument(
        "--proposals",
        nargs="+",
        type=int,
        metavar="K",
        default=[300, 150, 100, 50, 20, 10],
        help="numbers of proposals",
    )
    parser.add_argument(
        "--masses",
        nargs="*",
        type=float,
        metavar="SHARE",
        default=[0.95, 0.9, 0.8, 0.7, 0.6],
        help="shares of the summed objectness, in (0, 1]",
    )
    parser.add_argument(
        "--positions",
        nargs="+",
        choices=["all", "active"],
        default=[""],
        help="where the RPN has anchors, each with every number and share (default: as the config has it)",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the results; made if missing")
    add_page_style(parser)
    return parse_with_overrides(parser, argv)


def read_config(args: argparse.Namespace) -> CfgNode:
    """The detector's, with as many proposals as the largest of the settings. Raises InputError."""
    check_positive(args, "--proposals")
    for mass in args.masses:
        if not 0 < mass <= 1:
            raise InputError(f"--masses must lie in (0, 1]; got {mass:g}")
    most = ["MODEL.RPN.POST_NMS_TOPK_TEST", str(max(args.proposals))]
    cfg = load_config(args.config_file, [*args.opts, *most])
    check_detector(cfg, with_proposals=True)
    for positions in filter(None, args.positions):
        load_config(args.config_file, [*args.opts, "MODEL.SACT.RPN_POSITIONS", positions])
    if cfg.MODEL.SACT.PROPOSAL_MASS != 1:
        raise InputError(
            f"MODEL.SACT.PROPOSAL_MASS must be 1 here, --masses are tried; got {cfg.MODEL.SACT.PROPOSAL_MASS}"
        )
    if len(cfg.DATASETS.TEST) != 1:
        raise InputError(f"DATASETS.TEST must name one data set; got {tuple(cfg.DATASETS.TEST)}")
    return cfg


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    style = style_of(args)
    cfg = read_config(args)
    (name,), output = cfg.DATASETS.TEST, Path(args.output)
    numbers = [Setting(most=most) for most in args.proposals] + [Setting(mass=mass) for mass in args.masses]
    settings = [number._replace(positions=positions) for positions in args.positions for number in numbers]
    loader, model = build_test_loader(cfg, name), load_detector(cfg)
    check_whole_images(model, "this sweep")
    writable_folder(output)
    found = ProposalSweep(cfg, model, name, list(dict.fromkeys(settings)), output)
    # A bar, silent where stderr is no terminal.
    with sizes_fit(cfg, "an image", SIZES), tqdm(loader, unit="image", disable=None) as batches:
        for (item,) in batches:
            found.process(item)
    content = {"weights": cfg.MODEL.WEIGHTS, **found.evaluate()}
    table = sweep_table(content)
    write_json(output / "results.json", content)
    write_text(output / "table.md", table + "\n")
    save_figure(lambda: draw_proposals(content), output / f"proposals.{style.format}", style)
    logger.info("In %s:\n%s", output, table)


if __name__ == "__main__":
    logging.captureWarnings(True)
    setup_log()
    main()
