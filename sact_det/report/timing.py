"""Sections on json files of tools/benchmark.py that hold AP, seconds and FLOPs of whole detectors."""

from pathlib import Path
from typing import Any, Optional, Sequence

from sact_det.base.errors import InputError
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
    parts: list[Part] = []
    for table in read_json(file)["tables"]:
        rows = [row for row in table.get("rows", ()) if FINITE.allows(row.get("AP"))]
        if rows:
            parts += _parts(file, table, rows)
    return parts


def _parts(file: Path, table: dict[str, Any], rows: Sequence[dict[str, Any]]) -> list[Part]:
    try:
        x = {"ms an image": [1e3 * row["s"]["median"] for row in rows]}
        ratios = [100 * row["time_ratio"]["median"] for row in rows]
        x["% of the FLOPs of the plain detector"] = [row["flops_percent"] for row in rows]
        lines = [str(row["line"]) for row in rows]
        names = [str(row["name"]) for row in rows]
        programs = [str(row["programs"]) for row in rows]
    except (KeyError, TypeError) as error:
        raise InputError(f"{file}: no table of tools/benchmark.py detector --dataset (it lacks {error})") from error
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


def median_milliseconds(file: Path, weights: Path) -> Optional[float]:
    """What an image took a detector of these weights, by its row in the file; None if it has none."""
    for table in read_json(file)["tables"]:
        for row in table.get("rows", ()):
            if str(row.get("weights", "")).endswith("/".join(weights.parts[-3:])) and FINITE.allows(row.get("AP")):
                return 1e3 * row["s"]["median"]
    return None
