"""Figures of collected results: quality against FLOPs, and units per block in the course of training."""

import math
from typing import Any, Sequence

from matplotlib.figure import Figure

from sact_det.detection.class_ap import KEY
from sact_det.experiments.runs import mean_and_deviation
from sact_det.experiments.table import columns_of, values
from sact_det.pictures.figures import literal_text, new_figure, wrapped

_TITLE, _NAME = 72, 40  # characters of a line
_WITHIN = 7  # so many rows' names find room within the axes
_COLOURS = 10  # behind which they begin anew, with other marks and lines
_MARKS, _LINES = "os^Dv", ("-", "--", ":", "-.")


@literal_text()
def draw_quality(results: dict[str, Any]) -> Figure:
    """Quality against FLOPs, of results of collect_results.py: every run a dot, every row its mean.

    Quality is accuracy, AP or, where some classes were named, theirs.
    Bars: vertically one sample deviation over seeds, horizontally one standard deviation over images.
    """
    columns = {column.key: column for column in columns_of(results["rows"])}
    quality = columns.get(KEY) or next(iter(columns.values()))
    flops, spread = columns["flops_percent"], columns["flops_percent_std"]
    below = len(results["rows"]) > _WITHIN
    figure = new_figure(7, 5 + (0.15 * len(results["rows"]) if below else 0), dpi=120)
    axes = figure.add_subplot(
        title=wrapped(results["title"], _TITLE),
        xlabel="FLOPs, % of the plain network (bar: standard deviation over images)",
        ylabel=f"{quality.title} (bar: standard deviation over seeds)",
    )
    for number, row in enumerate(results["rows"]):
        x, y = values(row, flops), values(row, quality)
        (mean_x, _), (mean_y, deviation) = mean_and_deviation(x), mean_and_deviation(y)
        over_images, _ = mean_and_deviation(values(row, spread))
        bars = axes.errorbar(
            mean_x,
            mean_y,
            xerr=over_images or None,
            yerr=None if math.isnan(deviation) else deviation,
            color=_colour(number),
            marker=_MARKS[number // _COLOURS % len(_MARKS)],
            capsize=3,
            label=wrapped(row["name"], _NAME),
        )
        axes.scatter(x, y, s=12, alpha=0.5, color=bars.lines[0].get_color())
    axes.grid(alpha=0.3)
    if below:
        figure.legend(loc="outside lower center", ncols=2)
    else:
        axes.legend()
    return figure


def _colour(number: int) -> str:
    return f"C{number % _COLOURS}"


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
    looks = {row["name"]: _look(number) for number, row in enumerate(results["rows"])}
    for number, block in enumerate(blocks, 1):
        axes = figure.add_subplot(1, len(blocks), number, title=block, xlabel="step")
        for row in rows:
            _draw_course(axes, row, block, looks[row["name"]])
        axes.set_ylim(0.9, max(run["units"][number - 1] for row in rows for run in row["runs"]) + 0.1)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("units")
    # Below the panels: names may be wider than one.
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=columns)
    return figure


def _look(number: int) -> dict[str, Any]:
    return {"color": _colour(number), "linestyle": _LINES[number // _COLOURS % len(_LINES)], "linewidth": 1}


def _draw_course(axes: Any, row: dict[str, Any], block: str, look: dict[str, Any]) -> None:
    for index, run in enumerate(row["runs"]):
        steps: Sequence[int] = [point["step"] + 1 for point in run["course"]]
        units = [point[block] for point in run["course"]]
        axes.plot(steps, units, label=wrapped(row["name"], _NAME) if index == 0 else None, **look)
