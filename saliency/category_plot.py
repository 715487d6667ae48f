"""Scores by category in one figure: a panel for every metric, with intervals."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sact_det.pictures.figures import literal_text, new_figure, wrapped
from saliency.intervals import as_numbers
from saliency.scores import get_metric

_COLUMNS = 4  # of panels
_PANEL = 3.3  # inches, the width
_ROW, _OF_METHOD = 0.16, 0.07  # inches of a category, and of each method in it
_MARGINS = 1.1  # inches around a panel's rows
_DEFAULT_COLOURS = 10  # of matplotlib


@literal_text()
def draw_categories(results: dict[str, Any]) -> Figure:
    """Means over a category's images with 95% bootstrap intervals, of results.json of tools/evaluate_saliency.py.

    Shown are the first centre baseline and every model's last row: its map with blur and centre, where they are tuned.
    The category "all" is all images. One image has no interval.
    """
    rows = _shown(results["rows"])
    names = [results["tuned_for"], *(name for name in results["metrics"] if name != results["tuned_for"])]
    first = next(iter(results["metrics"]))
    counts = {name: own[first]["images"] for name, own in rows[0]["categories"].items()}
    labels = [f"all ({results['scored_images']})", *(f"{name} ({number})" for name, number in counts.items())]
    panels = -(-len(names) // _COLUMNS)
    height = len(labels) * (_ROW + _OF_METHOD * len(rows)) + _MARGINS
    figure = new_figure(_PANEL * min(len(names), _COLUMNS) + 1, height * panels + 1, dpi=110)
    figure.suptitle(wrapped(f"{results['title']}: means by category, 95% intervals", 100))
    for number, name in enumerate(names):
        metric = get_metric(name)
        arrow = "→" if metric.higher_is_better else "←"
        axes = figure.add_subplot(panels, min(len(names), _COLUMNS), number + 1, title=f"{metric.title} {arrow} better")
        for index, row in enumerate(rows):
            shift = (index - (len(rows) - 1) / 2) * 0.8 / len(rows)
            found = [as_numbers(own[name]) for own in (row["overall"], *(row["categories"][one] for one in counts))]
            means = [one["mean"] if np.isfinite(one["mean"]) else np.nan for one in found]  # a point that is not there
            axes.errorbar(
                means,
                [place + shift for place in range(len(found))],
                xerr=[
                    [max(one["mean"] - one["low"], 0) for one in found],
                    [max(one["high"] - one["mean"], 0) for one in found],
                ],
                fmt="o",
                markersize=3,
                linewidth=1,
                color="0.45" if index == 0 else f"C{(index - 1) % _DEFAULT_COLOURS}",
                label=wrapped(f"{row['model']}, {row['map']}", 60),
            )
        for place in range(len(labels) - 1):
            axes.axhline(place + 0.5, color="0.3" if place == 0 else "0.9", linewidth=0.8, zorder=0)
        axes.set_yticks(range(len(labels)), [wrapped(label, 40) for label in labels])
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.tick_params("y", length=0, labelleft=number % _COLUMNS == 0)
        axes.grid(axis="x", alpha=0.3)
    handles, texts = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=min(3, len(rows)), fontsize="small")
    return figure


def _shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first row, and the last one of every other model."""
    last = {row["model"]: row for row in rows if row["model"] != rows[0]["model"]}
    return [rows[0], *last.values()]
