#!/usr/bin/env python
r"""Evaluates classifiers at several test resolutions: accuracy against FLOPs,
as in the paper's figure 7.

    python tools/sweep_resolutions.py --model "ResNet-101" \
            configs/ImageNet/plain_R_101.yaml weights/plain.pth \
        --model "SACT 0.005" \
            configs/ImageNet/sact_R_101_tau_0.005.yaml weights/sact.pth \
        --sizes 224 256 288 320 352 --output output/figure7 \
        DATASETS.TEST "('imagenet_val',)"

OUTPUT receives table.md, results.json and sweep.png. The result of every model
at every size is kept there, too: an interrupted sweep goes on where it was,
and more models and sizes can be added; a result is used again if weights and
settings are the same.
"""

import argparse
import logging
import re
from pathlib import Path
from typing import Any, Optional, Sequence

import sact_det.engine  # noqa: F401  (first, because it imports Detectron2 quietly)

# isort: split

from sact_det.base.command_line import check_positive, parse_with_overrides
from sact_det.base.errors import InputError
from sact_det.base.files import check_input, writable_folder, write_json, write_text
from sact_det.base.processes import command_line
from sact_det.classification.accuracy_plot import draw_sweep
from sact_det.classification.evaluator import accuracy_table
from sact_det.classification.sweep import Pair, evaluate_pairs
from sact_det.engine.console import setup_log
from sact_det.pictures.figures import save_figure
from sact_det.pictures.style import Style, add_page_style, style_of
from sact_det.tasks import load_config

logger = logging.getLogger("sact_det.sweep_resolutions")


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model",
        nargs=3,
        action="append",
        required=True,
        metavar=("NAME", "CONFIG", "WEIGHTS"),
        help="a trained classifier and what to call it; once for every model",
    )
    parser.add_argument(
        "--sizes", nargs="+", type=int, required=True, metavar="L", help="sides of the square images, in pixels"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the results; made if missing")
    add_page_style(parser)
    return parse_with_overrides(parser, argv, "all models")


def make_pairs(args: argparse.Namespace) -> list[Pair]:
    """Every model at every size, checked before any work is done."""
    check_positive(args, "--sizes")
    pairs: list[Pair] = []
    folders: dict[str, str] = {}
    for name, config, weights in args.model:
        folder = re.sub(r"[^\w.+-]+", "_", name)
        if not folder.strip("._"):
            raise InputError(f"--model {name!r}: a name needs letters or digits")
        if folder.casefold() in folders:
            raise InputError(f"--model {name!r}: too close to the other model {folders[folder.casefold()]!r}")
        folders[folder.casefold()] = name
        check_input(weights, "weight file")
        for size in dict.fromkeys(args.sizes):
            own = ["MODEL.WEIGHTS", weights, "OUTPUT_DIR", str(Path(args.output) / folder / str(size))]
            cfg = load_config(config, [*args.opts, *own, "INPUT.CLASSIFICATION.SIZE_TEST", str(size)])
            pairs.append(Pair(name, size, cfg))
    for name, _, cfg in pairs:
        check_comparable(name, cfg, pairs[0].cfg)
    return pairs


def check_comparable(name: str, cfg: Any, first: Any) -> None:
    """Raises InputError unless the config is a classifier's on one data set, that of the first model."""
    if cfg.MODEL.META_ARCHITECTURE != "SACTClassifier":
        raise InputError(f"--model {name}: MODEL.META_ARCHITECTURE must be SACTClassifier")
    if len(cfg.DATASETS.TEST) != 1:
        raise InputError(f"--model {name}: DATASETS.TEST must name one data set; got {tuple(cfg.DATASETS.TEST)}")

    def data(config: Any) -> list[list[str]]:
        return [list(entry) for entry in config.DATASETS.CLASSIFICATION if entry[0] == config.DATASETS.TEST[0]]

    if (cfg.DATASETS.TEST[0], data(cfg)) != (first.DATASETS.TEST[0], data(first)):
        raise InputError(f"--model {name}: evaluated on other data than the first model; set DATASETS.TEST for all")


def write_results(output: Path, results: Sequence[dict[str, Any]], style: Style) -> str:
    """Writes json, table and plot; returns the table."""
    content = {"dataset": results[0]["dataset"], "pairs": results}
    write_json(output / "results.json", content)
    table = accuracy_table((result["model"], result["size"], result["summary"]) for result in results)
    write_text(output / "table.md", table + "\n")
    save_figure(lambda: draw_sweep(content), output / f"sweep.{style.format}", style)
    return table


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    style = style_of(args)
    pairs = make_pairs(args)
    writable_folder(args.output)
    results = evaluate_pairs(pairs)
    logger.info("In %s:\n%s", args.output, write_results(Path(args.output), results, style))


if __name__ == "__main__":
    logging.captureWarnings(True)
    setup_log()
    main()
