#!/usr/bin/env python
r"""Finds out how trained weights spend any budget best, and writes budget.json
beside them.

    python tools/calibrate_budget.py \
        --config-file configs/Imagenette/sact_R_50_tau_0.05_from_plain.yaml \
        --budgets 0.4 0.5 0.6 0.7 0.8 0.9 1.0 \
        MODEL.WEIGHTS output/sact/model_final.pth

A budget is a share of the FLOPs of the plain network with the same units: of a
classifier all of it, of a detector all of it (--of detector, the default) or
the extractor (--of extractor). A number in every halting logit, a block's
shift, makes positions halt earlier or later. For every budget a bisection
finds the common shift that spends it; then a few others, drawn for each block,
are tried, and the best that spend as much are kept. At budget 1 nothing halts
early. With --scales images may be made smaller, too, by the model itself: every
budget then has the best of these scales, at which less needs to halt, and of
one of its own, at which nothing does. Norms that learn (block 4's, often) get
statistics of their own at each budget, for where positions halt earlier
features are others, unless those of the training do better there; with
--trained-statistics they keep these.

Afterwards `model.set_budget(0.6)`, `--budget 0.6` of the other tools and
MODEL.SACT.BUDGET know what to do. Accuracy or AP is that on the calibration's
images, DATASETS.TRAIN by default: images that neither training nor test has
seen say more (--dataset). Those of DATASETS.TEST are refused. FLOPs are known
from few images, AP is not: --judged-images N judges only what spends a budget,
on N. --classes names those of a detector whose mean AP counts.

OUTPUT, by default the folder of the weights, receives budget.md, budget.png,
and budget_measured.json (and budget_judged.json), from which a calibration
that was interrupted goes on.
"""

import argparse
import logging
from pathlib import Path
from typing import Optional, Sequence

import sact_det.engine  # noqa: F401  (first, because it imports Detectron2 quietly)

# isort: split

from sact_det.base.command_line import check_positive, parse_with_overrides
from sact_det.base.errors import InputError
from sact_det.base.files import writable_file, writable_folder, write_text
from sact_det.base.processes import command_line
from sact_det.budget import FILE_NAME
from sact_det.budget.table import check_budget
from sact_det.engine.checkpoint import local_weights
from sact_det.engine.console import setup_log
from sact_det.experiments.budget_report import budget_table, draw_budgets, read_rivals
from sact_det.experiments.calibration import (
    Settings,
    add_judging,
    add_scales,
    calibrate_weights,
    calibration_set,
    check_judging,
    check_scales,
)
from sact_det.pictures.figures import save_figure
from sact_det.pictures.style import add_page_style, style_of
from sact_det.tasks import load_config

logger = logging.getLogger("sact_det.calibrate_budget")


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="of the trained detector or classifier")
    parser.add_argument(
        "--budgets",
        nargs="+",
        type=float,
        required=True,
        metavar="SHARE",
        help="of the plain network's FLOPs, in (0, 1]",
    )
    parser.add_argument("--of", choices=("detector", "extractor"), help="what a detector's budgets are shares of")
    parser.add_argument("--dataset", metavar="NAME", help="a data set of the config (default: DATASETS.TRAIN)")
    parser.add_argument(
        "--max-images", type=int, default=200, metavar="N", help="of the data set, evenly spread; default: 200"
    )
    add_judging(parser)
    parser.add_argument(
        "--candidates", type=int, default=4, metavar="N", help="shifts of single blocks tried a budget; default: 4"
    )
    add_scales(parser)
    parser.add_argument("--trained-statistics", action="store_true", help="of norms at all budgets")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the candidates; default: 0")
    parser.add_argument(
        "--static", metavar="FILE", help='for the figure: JSON list of {"name", "flops" (share), "quality" (percent)}'
    )
    parser.add_argument("--output", metavar="DIR", help="of table and figure (default: the folder of the weights)")
    add_page_style(parser)
    return parse_with_overrides(parser, argv)


def check_arguments(args: argparse.Namespace) -> None:
    for budget in args.budgets:
        check_budget("--budgets", budget)
    if len(set(args.budgets)) < len(args.budgets):
        raise InputError(f"--budgets must differ; got {' '.join(f'{budget:g}' for budget in args.budgets)}")
    check_scales(args.scales)
    check_positive(args, "--max-images")
    check_judging(args)
    for option, value in (("--candidates", args.candidates), ("--seed", args.seed)):
        if value < 0:
            raise InputError(f"{option} must not be negative; got {value}")


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    check_arguments(args)
    style = style_of(args)
    cfg = load_config(args.config_file, args.opts)
    if cfg.MODEL.SACT.BUDGET:
        raise InputError(f"MODEL.SACT.BUDGET must be 0 here, --budgets are tried; got {cfg.MODEL.SACT.BUDGET:g}")
    name = calibration_set(cfg, args.dataset)
    rivals = [] if args.static is None else read_rivals(args.static)
    if not cfg.MODEL.WEIGHTS:
        raise InputError("MODEL.WEIGHTS is empty: name trained weights")
    weights = Path(local_weights(cfg.MODEL.WEIGHTS))
    file = writable_file(weights.parent / FILE_NAME)
    output = writable_folder(args.output or weights.parent)
    settings = Settings(
        *(name, args.max_images, args.budgets, args.candidates, args.seed, args.of, not args.trained_statistics),
        *(args.scales, args.judged_images, args.classes),
    )
    table = calibrate_weights(cfg, weights, settings, output)
    shown = budget_table(table)
    write_text(output / "budget.md", shown + "\n")
    title = f"{weights.parent.name}: budgets calibrated on {name}"
    save_figure(lambda: draw_budgets(table, title, rivals), output / f"budget.{style.format}", style)
    logger.info("In %s:\n%s", file, shown)


if __name__ == "__main__":
    logging.captureWarnings(True)
    setup_log()
    logging.getLogger("sact_det.detection.box_evaluator").setLevel(logging.WARNING)  # a pass is told in a line
    main()
