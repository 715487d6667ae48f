"""Rows of runs as a table in Markdown: means over seeds, and how far the seeds lie apart."""

import math
from typing import Any, NamedTuple, Sequence

from sact_det.base.errors import InputError
from sact_det.base.markdown import markdown_table
from sact_det.detection.class_ap import KEY
from sact_det.experiments.runs import mean_and_deviation, mean_text
from sact_det.pictures.canvas import printable

MOST_PERCENT = 1e6  # of a plain network that is that much smaller
MOST_REGIONS = 1e6


class Column(NamedTuple):
    """A number of every run.

    Attributes:
        title: heading.
        evaluator, key: where it stands in the run's results.
        factor: what it is multiplied by.
        digits: after the point.
        most: that the run's number can be; the least is 0.
        optional: whether files of earlier versions lack it; the column is then left out.
    """

    title: str
    evaluator: str
    key: str
    factor: float = 1.0
    digits: int = 2
    most: float = 100.0
    optional: bool = False


COLUMNS = {
    "bbox": (
        Column("AP", "bbox", "AP"),
        Column("AP50", "bbox", "AP50"),
        Column("AP of the classes", "bbox", KEY, optional=True),
        Column("FLOPs (%)", "ponder", "flops_percent", digits=1, most=MOST_PERCENT),
        Column("± over images", "ponder", "flops_percent_std", digits=1, most=MOST_PERCENT),
        Column("whole detector (%)", "ponder", "detector_flops_percent", digits=1, most=MOST_PERCENT, optional=True),
        Column("regions", "ponder", "regions", digits=1, most=MOST_REGIONS, optional=True),
        Column("units per region", "ponder", "units_per_region", optional=True),
    ),
    "classification": (
        Column("accuracy (%)", "classification", "accuracy", 100, most=1),
        Column("recall@5 (%)", "classification", "recall_at_5", 100, most=1),
        Column("FLOPs (%)", "classification", "flops_percent", digits=1, most=MOST_PERCENT),
        Column("± over images", "classification", "flops_percent_std", digits=1, most=MOST_PERCENT),
    ),
}


def columns_of(rows: Sequence[dict[str, Any]]) -> Sequence[Column]:
    """The columns for rows of collect_results.py. Raises InputError if they are of neither kind."""
    results = [run["results"] for row in rows for run in row["runs"]]
    for evaluator, columns in COLUMNS.items():
        if all(evaluator in own for own in results):
            return [one for one in columns if not one.optional or all(one.key in own[one.evaluator] for own in results)]
    raise InputError(f"the results must all be of one of these kinds: {', '.join(COLUMNS)}")


def values(row: dict[str, Any], column: Column) -> list[float]:
    """A column's number for every run of a row; NaN where the run has none, null in its json."""
    found = (run["results"][column.evaluator][column.key] for run in row["runs"])
    return [math.nan if number is None else column.factor * number for number in found]


def results_table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: a line per row, mean ± sample deviation over its runs, units per block, runs and images."""
    return markdown_table(*results_cells(rows))


def results_cells(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The headings of that table, and the cells of its lines."""
    columns = columns_of(rows)
    heads = ["network", *(column.title for column in columns), "units per block", "steps", "seeds", "images"]
    rows_of_cells = []
    for row in rows:
        runs, cells = row["runs"], (mean_text(values(row, one), one.digits) for one in columns)
        images = runs[0]["results"][columns[-1].evaluator]["images"]
        units = _units(row, columns[-1].evaluator)
        counts = (str(runs[0]["steps"]), str(len(runs)), f"{images:.0f}")
        rows_of_cells.append([printable(row["name"]), *cells, units, *counts])
    return heads, rows_of_cells


def _units(row: dict[str, Any], evaluator: str) -> str:
    """Units per block, each the mean over runs, e.g. "2.8, 3.1, 4.3"."""
    keys = sorted(key for key in row["runs"][0]["results"][evaluator] if key.endswith("_units"))
    means = (mean_and_deviation(values(row, Column("", evaluator, key)))[0] for key in keys)
    return ", ".join(f"{mean:.2f}" for mean in means)
