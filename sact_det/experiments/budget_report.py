"""What budgets are worth: a table, and a figure beside static rivals."""

from pathlib import Path
from typing import Any, NamedTuple, Optional, Sequence, Union

from matplotlib.figure import Figure

from sact_det.base.errors import InputError, shown
from sact_det.base.markdown import markdown_table
from sact_det.base.text_files import read_json
from sact_det.base.value_rules import FINITE, POSITIVE
from sact_det.budget import BudgetTable
from sact_det.pictures.figures import literal_text, new_figure, wrapped
from sact_det.pictures.point_labels import PointLabel, label_points


class Rival(NamedTuple):
    """A static network: its share of the same plain network's FLOPs, and its accuracy or AP in percent."""

    name: str
    flops: float
    quality: float


def read_rivals(path: Union[str, Path]) -> list[Rival]:
    """Rivals from a JSON list of {"name", "flops", "quality"}. Raises InputError, naming the file, for others."""
    content = read_json(path)
    rivals = []
    for entry in content if isinstance(content, list) else [content]:
        known = isinstance(entry, dict) and isinstance(entry.get("name"), str)
        if not known or not POSITIVE.allows(entry.get("flops")) or not FINITE.allows(entry.get("quality")):
            raise InputError(
                f'{path}: expected a list of {{"name": text, "flops": share of a plain network, "quality": percent}}; '
                f"got {shown(repr(entry))}"
            )
        rivals.append(Rival(entry["name"], float(entry["flops"]), float(entry["quality"])))
    return rivals


def budget_table(table: BudgetTable) -> str:
    """Markdown: a line for every budget."""
    blocks = list(table.points[0].shifts)
    scaled = any(point.scale != 1 for point in table.points)
    measured = (f"FLOPs of the {table.of} (%)", f"{table.about['metric']} (%)", "s / image")
    heads = ("budget", *measured, *(["scale"] if scaled else []), *blocks)
    rows = []
    for point in table.points:
        shifts = ["-inf" if point.budget == 1 else f"{point.shifts[block]:+.2f}" for block in blocks]
        flops = f"{100 * point.flops:.1f} ± {100 * point.flops_std:.1f}"
        numbers = [_number(point.quality, 2), _number(point.seconds, 4), *([f"{point.scale:g}"] if scaled else [])]
        rows.append([f"{point.budget:g}", flops, *numbers, *shifts])
    return markdown_table(heads, rows)


def _number(value: Optional[float], digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


@literal_text()
def draw_budgets(table: BudgetTable, title: str, rivals: Sequence[Rival] = ()) -> Figure:
    """Quality against FLOPs: budgets as a line, bars one standard deviation over images; static rivals as marks."""
    metric = table.about["metric"]
    figure = new_figure(7, 5, dpi=120)
    axes: Any = figure.add_subplot(
        title=wrapped(title, 72),
        xlabel=f"FLOPs, % of the plain {table.of} (bar: standard deviation over images)",
        ylabel=f"{metric} (%), {table.about['images']} images",
    )
    points = [point for point in table.points if point.quality is not None]
    x, y = [100 * point.flops for point in points], [point.quality for point in points]
    axes.errorbar(
        x, y, xerr=[100 * p.flops_std for p in points], marker="o", capsize=3, label="one network, any budget"
    )
    for number, rival in enumerate(rivals):
        axes.plot([100 * rival.flops], [rival.quality], "s^Dv"[number % 4], color="0.35", label=wrapped(rival.name, 40))
    axes.grid(alpha=0.3)
    axes.legend()
    labels = [PointLabel(100 * p.flops, p.quality, f"{p.budget:g}") for p in points if p.quality is not None]
    label_points(figure, axes, labels, "small")
    return figure
