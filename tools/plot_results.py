#!/usr/bin/env python
"""Draws the json files of tools/collect_results.py, tools/sweep_resolutions.py
and tools/compare_budgets.py.

    python tools/plot_results.py docs/results/*.json --output docs/results

writes for NAME.json of the first tool NAME_quality.png (quality against FLOPs)
and NAME_units.png (units per block while training), of the second one
NAME_accuracy.png (accuracy against FLOPs at several resolutions), of the third
NAME_quality.png (accuracy or AP against FLOPs, over seeds).
"""

import argparse
import functools
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

from matplotlib.figure import Figure
from tqdm import tqdm

from sact_det.base.errors import InputError
from sact_det.base.files import writable_folder
from sact_det.base.processes import command_line
from sact_det.classification.accuracy_plot import draw_sweep
from sact_det.experiments.comparison_report import draw_comparison
from sact_det.experiments.plots import draw_quality, draw_units
from sact_det.experiments.results_file import read_results
from sact_det.pictures.figures import save_figure
from sact_det.pictures.style import add_page_style, style_of

FIGURES: dict[str, dict[str, Callable[[dict[str, Any]], Figure]]] = {
    "rows": {"quality": draw_quality, "units": draw_units},
    "pairs": {"accuracy": draw_sweep},
    "points": {"quality": lambda results: draw_comparison(results["points"], results["title"])},
}


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", metavar="JSON", help="written by one of these tools")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the figures; made if missing")
    add_page_style(parser)
    return parser.parse_args(argv)


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    style = style_of(args)
    inputs: dict[str, dict[str, Any]] = {}
    for path in args.results:
        if Path(path).stem in inputs:
            raise InputError(f"{path}: another file of this name is given, too; its figures would be called the same")
        inputs[Path(path).stem] = read_results(path)
    folder = writable_folder(args.output)
    figures = [
        (f"{name}_{kind}.{style.format}", functools.partial(draw, results))
        for name, results in inputs.items()
        for content in filter(results.get, FIGURES)
        for kind, draw in FIGURES[content].items()
    ]
    for name, draw in tqdm(figures, unit="figure", disable=None):  # silent where stderr is no terminal
        save_figure(draw, folder / name, style)


if __name__ == "__main__":
    main()
