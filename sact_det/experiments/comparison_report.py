"""Networks at several budgets as a table, and as a figure."""

import math
from collections import defaultdict
from typing import Any, Mapping, Sequence

from matplotlib.figure import Figure

from sact_det.base.markdown import markdown_table
from sact_det.experiments.runs import mean_and_deviation, mean_text
from sact_det.pictures.figures import literal_text, new_figure, wrapped


def _rows(points: Sequence[Mapping[str, Any]]) -> dict[str, list[list[Mapping[str, Any]]]]:
    """name -> its points with falling FLOPs, each a list over seeds."""
    grouped: dict[str, dict[Any, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for point in points:
        key = point["budget"] if point["budget"] is not None else point["setting"]
        grouped[point["name"]][key].append(point)
    return {
        name: sorted(own.values(), key=lambda seeds: -mean_and_deviation([one["flops"] for one in seeds])[0])
        for name, own in grouped.items()
    }


def comparison_table(points: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a line for every network and budget, setting or size: mean ± sample deviation over seeds."""
    metric = points[0]["metric"]
    heads = ("network", "budget or setting", "FLOPs (%)", f"{metric} (%)", "s / image", "seeds", "images")
    lines = []
    for name, row in _rows(points).items():
        for seeds in row:
            first, timed = seeds[0], [one["seconds"] for one in seeds if one["seconds"] is not None]
            where = f"{first['budget']:g}" if first["budget"] is not None else first["setting"] or "as it is"
            cells = [
                mean_text([100 * one["flops"] for one in seeds], 1),
                mean_text([one["quality"] for one in seeds], 1),
            ]
            lines.append(
                [name, where, *cells, mean_text(timed, 4) if timed else "-", len(seeds), f"{first['images']:.0f}"]
            )
    return markdown_table(heads, lines)


@literal_text()
def draw_comparison(points: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Accuracy or AP against FLOPs: a line for every network, bars one sample deviation over seeds."""
    figure = new_figure(7.5, 5.6, dpi=120)
    axes: Any = figure.add_subplot(
        title=wrapped(title, 76),
        xlabel="FLOPs, % of the plain network at full resolution",
        ylabel=wrapped(f"{points[0]['metric']} (%); bar: deviation over seeds", 50),
    )
    for (name, row), mark in zip(_rows(points).items(), "os^Dv<>P*X" * len(points)):
        x = [100 * mean_and_deviation([one["flops"] for one in seeds])[0] for seeds in row]
        y, bars = zip(*(mean_and_deviation([one["quality"] for one in seeds]) for seeds in row))
        shown = [0.0 if math.isnan(bar) else bar for bar in bars]
        dashed = "--" if row[0][0]["budget"] is None else "-"
        axes.errorbar(x, y, yerr=shown, marker=mark, capsize=3, linestyle=dashed, label=wrapped(name, 40))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)  # inside there is no room beside many networks
    return figure
