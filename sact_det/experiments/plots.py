"""Figures of collected results: quality against FLOPs, and units per block in the course of training."""

import math
from typing import Any, Sequence

from matplotlib.figure import Figure

from sact_det.detection.class_ap import KEY
from sact_det.experiments.runs import mean_and_deviation
from sact_det.experiments.table import columns_of, values
from sact_det.pictures.figures import literal_text, new_figure, wrapped

_TITLE, _NAME = 72, 40  # characters of a line


@literal_text()
def draw_quality(results: dict[str, Any]) -> Figure:
    """Quality against FLOPs, of results of collect_results.py: every run a dot, every row its mean.

    Quality is accuracy, AP or, where some classes were named, theirs.
    Bars: vertically one sample deviation over seeds, horizontally one standard deviation over images.
    """
    columns = {column.key: column for column in columns_of(results["rows"])}
    quality = columns.get(KEY) or next(iter(columns.values()))
    flops, spread = columns["flops_percent"], columns["flops_percent_std"]
    figure = new_figure(7, 5, dpi=120)
    axes = figure.add_subplot(
        title=wrapped(results["title"], _TITLE),
        xlabel="FLOPs, % of the plain network (bar: standard deviation over images)",
        ylabel=f"{quality.title} (bar: standard deviation over seeds)",
    )
    for row in results["rows"]:
        x, y = values(row, flops), values(row, quality)
        (mean_x, _), (mean_y, deviation) = mean_and_deviation(x), mean_and_deviation(y)
        over_images, _ = mean_and_deviation(values(row, spread))
        bars = axes.errorbar(
            mean_x,
            mean_y,
            xerr=over_images or None,
            yerr=None if math.isnan(deviation) else deviation,
            marker="o",
            capsize=3,
            label=wrapped(row["name"], _NAME),
        )
        axes.scatter(x, y, s=12, alpha=0.5, color=bars.lines[0].get_color())
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


@literal_text()
def draw_units(results: dict[str, Any]) -> Figure:
    """Units per block over training steps, a panel per block, a line per run of collect_results.py's adaptive rows.

    A line that falls to 1 and stays there would be a block whose later units are dead.
    """
    rows = [row for row in results["rows"] if row["runs"][0]["halting"] != "none"] or results["rows"]
    blocks = sorted(key for key in rows[0]["runs"][0]["course"][0] if key.startswith("block"))
    columns = min(len(blocks), len(rows))
    figure = new_figure(3.2 * len(blocks), 3.4 + 0.25 * -(-len(rows) // columns), dpi=120)
    figure.suptitle(wrapped(f"{results['title']}: units per block while training", 32 * len(blocks)))
    colours = {row["name"]: f"C{number}" for number, row in enumerate(results["rows"])}
    for number, block in enumerate(blocks, 1):
        axes = figure.add_subplot(1, len(blocks), number, title=block, xlabel="step")
        for row in rows:
            _draw_course(axes, row, block, colours[row["name"]])
        axes.set_ylim(0.9, max(run["units"][number - 1] for row in rows for run in row["runs"]) + 0.1)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("units")
    # Below the panels: names may be wider than one.
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=columns)
    return figure


def _draw_course(axes: Any, row: dict[str, Any], block: str, colour: str) -> None:
    for index, run in enumerate(row["runs"]):
        steps: Sequence[int] = [point["step"] + 1 for point in run["course"]]
        units = [point[block] for point in run["course"]]
        axes.plot(steps, units, color=colour, linewidth=1, label=wrapped(row["name"], _NAME) if index == 0 else None)
