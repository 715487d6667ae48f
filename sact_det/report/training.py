"""Sections on trainings: their table, their course, FLOPs over images, quality against FLOPs and seconds, budgets."""

from pathlib import Path
from typing import Any, Optional, Sequence

from sact_det.base.errors import naming
from sact_det.base.metrics_file import read_course
from sact_det.base.text_files import read_json
from sact_det.base.value_rules import FINITE
from sact_det.budget.table import FILE_NAME, BudgetTable
from sact_det.experiments.runs import mean_and_deviation
from sact_det.experiments.table import columns_of, results_cells, values
from sact_det.report.inputs import Row
from sact_det.report.page import Part, Table
from sact_det.report.plots import Plot, Series, histogram

_LOSSES = {"total_loss": "Loss", "loss_ponder": "Ponder loss"}


def results_part(rows: Sequence[Row], milliseconds: dict[str, Optional[float]], how: str) -> Table:
    """The table of the rows.

    Args:
        rows: evaluated on one data set.
        milliseconds: an image took, by the row's name, where that is known.
        how: they were measured.
    """
    heads, cells = results_cells(_plain(rows))
    notes = [f"FLOPs: of {_counted(rows)}, in percent of the plain network on the same images."]
    if any(len(row.runs) > 1 for row in rows):
        notes.append("Several seeds: mean ± deviation over them.")
    if any(value is not None for value in milliseconds.values()):
        at = heads.index("units per block")
        heads.insert(at, "ms an image")
        for row, own in zip(rows, cells):
            value = milliseconds.get(row.name)
            own.insert(at, "-" if value is None else f"{value:.0f}")
        notes.append(f"Milliseconds: median over images, measured {how}.")
    return Table(f"Evaluated on {rows[0].dataset}", heads, cells, " ".join(notes))


def course_parts(rows: Sequence[Row]) -> list[Part]:
    """Losses, FLOPs and units per block in the course of training; a line for every run."""
    colours = {row.name: number for number, row in enumerate(rows)}
    plots: list[Part] = []
    for key, title in _LOSSES.items():
        series = [
            Series(row.name, [line["iteration"] + 1 for line in course], [line.get(key) for line in course], number)
            for number, row in enumerate(rows)
            for run in row.runs
            for course in [read_course(Path(run["folder"]) / "metrics.json")]
        ]
        plots += _plot(title, "loss", series)
    plots += _plot(f"FLOPs of {_counted(rows)}", "% of the plain network", _course(rows, "flops_percent", colours))
    adaptive = [row for row in rows if row.runs[0]["halting"] != "none"] or rows
    blocks = sorted({key for row in adaptive for key in row.runs[0]["course"][0] if key.startswith("block")})
    for block in blocks:
        plots += _plot(f"Units in {block}", "residual units", _course(adaptive, block, colours))
    return plots


def _course(rows: Sequence[Row], key: str, colours: dict[str, int]) -> list[Series]:
    return [
        Series(
            row.name,
            [point["step"] + 1 for point in run["course"]],
            [point.get(key) for point in run["course"]],
            colours[row.name],
        )
        for row in rows
        for run in row.runs
    ]


def _plot(title: str, y_label: str, series: Sequence[Series]) -> list[Part]:
    """The plot; none without points."""
    known = [one for one in series if one.points]
    return [Plot(title, "step", y_label, known)] if known else []


def histogram_parts(rows: Sequence[Row]) -> list[Part]:
    """How FLOPs differ from image to image, of the extractor and of the whole; adaptive networks alone."""
    adaptive = {row.name: _images(row) for row in rows if row.runs[0]["halting"] != "none"}
    colours = {row.name: number for number, row in enumerate(rows)}
    plots: list[Part] = []
    for key, what in (
        ("flops_percent", f"FLOPs of {_counted(rows)}"),
        ("detector_flops_percent", "FLOPs of the whole detector"),
    ):
        shares = {
            name: [image[key] for image in own if FINITE.allows(image.get(key))] for name, own in adaptive.items()
        }
        known = {name: own for name, own in shares.items() if own}
        if known:
            title = f"{what}, image by image"
            plots.append(histogram(title, "% of the plain network", known, lambda name: colours[name]))
    return plots


def _images(row: Row) -> list[dict[str, Any]]:
    """The rows of the evaluation, one for every image; none where the file is not there."""
    folder = row.folder / "inference" / row.dataset
    files = (folder / name for name in ("ponder.json", "classification.json"))
    known = next((file for file in files if file.is_file()), None)
    if known is None:
        return []
    with naming(f"{known}: not as an evaluation writes it"):
        return [dict(image) for image in read_json(known)["images"]]


def quality_parts(rows: Sequence[Row]) -> list[Part]:
    """AP or accuracy against FLOPs, if there are several rows: of the extractor, and of the whole where it is known."""
    if len(rows) < 2:
        return []
    quality, *others = columns_of(_plain(rows))
    plots: list[Part] = []
    for column in (one for one in others if one.key in ("flops_percent", "detector_flops_percent")):
        what = _counted(rows) if column.key == "flops_percent" else "the whole detector"
        series = []
        for number, row in enumerate(_plain(rows)):
            (x, _), (y, _) = (mean_and_deviation(values(row, one)) for one in (column, quality))
            label = f"{quality.title} {y:.{quality.digits}f} at {x:.1f}%"
            series.append(Series(row["name"], [x], [y], number, line=False, dots=True, labels=[label]))
        plots.append(Plot(f"{quality.title} against FLOPs of {what}", "% of the plain network", quality.title, series))
    return plots


def budget_parts(rows: Sequence[Row]) -> list[Part]:
    """The calibrated budgets of each row's first run: quality against FLOPs and seconds, as they were calibrated."""
    parts: list[Part] = []
    for number, row in enumerate(rows):
        file = row.folder / FILE_NAME
        if not file.is_file():
            continue
        table = BudgetTable.read(file)
        about, points = table.about, table.points
        metric = str(about.get("metric", "quality"))
        where = f"{about.get('images', '?')} images of {about.get('dataset', '?')}"
        names = [f"{point.budget:.0%}" for point in points]
        quality = [point.quality for point in points]
        axes = {f"% of the FLOPs of the plain {table.of}": [100 * point.flops for point in points]}
        if all(point.seconds for point in points):
            axes["ms an image"] = [1e3 * (point.seconds or 0) for point in points]
        for label, x in axes.items():
            note = f"A number is the budget. Measured by tools/calibrate_budget.py on {where}, not on {row.dataset}."
            series = [Series(row.name, x, quality, number, dots=True, labels=names, named=True)]
            parts.append(Plot(f"Budgets of {row.name}", label, metric, series, note))
    return [part for part in parts if isinstance(part, Plot) and part.series[0].points]


def _counted(rows: Sequence[Row]) -> str:
    """What the FLOPs in the table are of."""
    return "the network" if "classification" in rows[0].results else "the extractor"


def _plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [{"name": row.name, "runs": row.runs} for row in rows]
