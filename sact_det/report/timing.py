"""Sections on json files of tools/benchmark.py that hold AP, seconds and FLOPs of whole detectors."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Optional, Sequence

from sact_det.base.errors import naming
from sact_det.base.text_files import read_json
from sact_det.base.value_rules import FINITE
from sact_det.report.page import Part, Table
from sact_det.report.plots import Plot, Series

_AXES = {"ms an image": "seconds", "% of the FLOPs of the plain detector": "FLOPs"}


def timing_parts(file: Path) -> list[Part]:
    """A table and two plots of every table of the file whose rows have AP; none if there are no such.

    Raises:
        InputError: it is no file of the benchmark.
    """
    with _reading(file):
        tables = [(table, _with_quality(table)) for table in read_json(file)["tables"]]
        return [part for table, rows in tables if rows for part in _parts(file, table, rows)]


def median_milliseconds(file: Path, weights: Path) -> Optional[float]:
    """What an image took a detector of these weights, by its row in the file; None if it has none.

    Raises:
        InputError: it is no file of the benchmark.
    """
    with _reading(file):
        rows = [row for table in read_json(file)["tables"] for row in _with_quality(table)]
        ends = "/".join(weights.parts[-3:])
        return next((1e3 * row["s"]["median"] for row in rows if row["weights"].endswith(ends)), None)


def _reading(file: Path) -> AbstractContextManager[None]:
    return naming(f"{file}: not as tools/benchmark.py detector --dataset writes it")


def _with_quality(table: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in table.get("rows", ()) if FINITE.allows(row.get("AP"))]


def _parts(file: Path, table: dict[str, Any], rows: Sequence[dict[str, Any]]) -> list[Part]:
    x = {"ms an image": [1e3 * row["s"]["median"] for row in rows]}
    x["% of the FLOPs of the plain detector"] = [row["flops_percent"] for row in rows]
    ratios = [100 * row["time_ratio"]["median"] for row in rows]
    lines = [str(row["line"]) for row in rows]
    names = [str(row["name"]) for row in rows]
    programs = [str(row["programs"]) for row in rows]
    quality = [row["AP"] for row in rows]
    cells = [
        [name, f"{ap:.2f}", f"{flops:.1f}", f"{ms:.1f}", f"{ratio:.1f}", program]
        for name, ap, flops, ms, ratio, program in zip(names, quality, *reversed(x.values()), ratios, programs)
    ]
    heads = ["network", "AP", "FLOPs of the whole (%)", "ms an image", "% of the plain one's time", "fastest program"]
    parts: list[Part] = [Table(str(table.get("title", file.name)), heads, cells)]
    for label, what in _AXES.items():
        series = []
        for number, line in enumerate(dict.fromkeys(lines)):
            own = sorted((index for index, name in enumerate(lines) if name == line), key=lambda index: x[label][index])
            series.append(
                Series(
                    line,
                    [x[label][i] for i in own],
                    [quality[i] for i in own],
                    number,
                    dots=True,
                    labels=[names[i] for i in own],
                )
            )
        parts.append(Plot(f"AP against {what}", label, "AP", series))
    return parts
