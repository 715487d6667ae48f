"""The json of collect_results.py, sweep_resolutions.py and compare_budgets.py, checked where it is read.

Files are edited by hand and merged; whatever is drawn of them is looked at here, so that a message names the entry.
Limits are far beyond what there is, and within what can be drawn.
"""

import math
from pathlib import Path
from typing import Any, Callable, Optional, Union

from sact_det.base.errors import InputError, shown
from sact_det.base.metrics_file import without_superseded
from sact_det.base.text_files import read_json
from sact_det.base.value_rules import FINITE, TEXT, Rule
from sact_det.experiments.table import COLUMNS

_MOST_BLOCKS = 8
_MOST_COUNT, _MOST_FLOPS = 2**53, 1e24

_LONGEST = 60  # characters of a value in a message


class _Entry:
    """A value of the file and where it stands, e.g. `rows[1].runs[0].steps`."""

    def __init__(self, file: Union[str, Path], place: str, value: Any):
        self.file, self.place, self.value = file, place, value

    def refuse(self, expected: str) -> InputError:
        got = shown(repr(self.value), _LONGEST)
        return InputError(f"{self.file}: {self.place or 'the file'} must {expected}; got {got}")

    def at(self, key: str) -> "_Entry":
        if not isinstance(self.value, dict):
            raise self.refuse("be a mapping")
        place = f"{self.place}.{key}" if self.place else key
        if key not in self.value:
            raise InputError(f"{self.file}: {place} is missing")
        return _Entry(self.file, place, self.value[key])

    def each(self) -> list["_Entry"]:
        if not isinstance(self.value, list) or not self.value:
            raise self.refuse("be a list that is not empty")
        return [_Entry(self.file, f"{self.place}[{index}]", value) for index, value in enumerate(self.value)]

    def must(self, rule: Rule) -> Any:
        if not rule.allows(self.value):
            raise self.refuse(rule.expected)
        return self.value

    def number(self, least: float = -math.inf, most: float = math.inf, unknown: bool = False) -> Any:
        """A finite number from `least` to `most`; where it may be `unknown`, null and NaN will do."""
        value = self.value
        if unknown and (value is None or value != value):
            return value
        limits = f" from {least:g}" * (least > -math.inf) + f" to {most:g}" * (most < math.inf)
        return self.must(Rule(lambda n: FINITE.allows(n) and least <= n <= most, f"be a finite number{limits}"))


def read_results(path: Union[str, Path]) -> dict[str, Any]:
    """The content of a results file: rows of runs, pairs (sweep_resolutions.py) or points (compare_budgets.py).

    Of a course that has steps twice, the last point of each counts (metrics_file.py: without_superseded).

    Raises:
        InputError: it is neither, or a value that tables and figures show is missing or none of its kind; the message
            names it.
    """
    results = read_json(path)
    present = [kind for kind in _CHECKS if isinstance(results, dict) and results.get(kind)]
    if not present:
        raise InputError(
            f"{path}: holds no rows; expected a file of tools/collect_results.py, sweep_resolutions.py or "
            "compare_budgets.py"
        )
    whole = _Entry(path, "", results)
    for kind in present:
        _CHECKS[kind](whole)
    for row in results.get("rows") or ():
        for run in row["runs"]:
            run["course"] = without_superseded(run["course"], lambda point: point["step"])
    return results


def _check_rows(whole: _Entry) -> None:
    whole.at("title").must(TEXT)
    names, runs = [], []
    for row in whole.at("rows").each():
        names.append(row.at("name").must(TEXT))
        own = row.at("runs").each()
        for run in own:
            _check_run(run)
            _check_same_blocks(run, own[0])
        runs += own
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{whole.file}: rows: every row needs a name of its own; {twice!r} stands there twice")
    blocks: Optional[list[str]] = None
    for run in runs:
        if _evaluator(run) != _evaluator(runs[0]):
            raise run.at("results").refuse("be of one kind in all rows")
        blocks = _check_course(run, blocks)


def check_run(folder: Union[str, Path], run: dict[str, Any]) -> None:
    """Raises InputError, naming the entry, unless `run` has what tables and figures show (runs.py: read_run)."""
    entry = _Entry(folder, "", run)
    _check_run(entry)
    _check_course(entry, None)


def check_rows(results: dict[str, Any]) -> None:
    """Raises InputError, naming the entry, if rows that were collected cannot stand in one table."""
    _check_rows(_Entry("--row", "", results))


def _check_run(run: _Entry) -> None:
    run.at("halting").must(TEXT)
    run.at("seed").number()
    run.at("steps").number(0, _MOST_COUNT)
    for unit in run.at("units").each():
        unit.number(1, _MOST_COUNT)
    columns = COLUMNS[_evaluator(run)]
    for column in columns:
        if column.optional and column.key not in run.at("results").at(column.evaluator).value:
            continue
        run.at("results").at(column.evaluator).at(column.key).number(0, column.most, unknown=True)
    counts = run.at("results").at(columns[-1].evaluator)
    counts.at("images").number(1, _MOST_COUNT)
    for key in _units(counts):
        counts.at(key).number(0, _MOST_COUNT, unknown=True)


def _evaluator(run: _Entry) -> str:
    """The key of COLUMNS (table.py) whose kind of results a run has."""
    results = run.at("results")
    if not isinstance(results.value, dict):
        raise results.refuse("be a mapping of evaluators to numbers")
    evaluator = next((name for name in COLUMNS if name in results.value), None)
    if evaluator is None:
        raise results.refuse(f"be of one of these kinds: {', '.join(COLUMNS)}")
    return evaluator


def _units(counts: _Entry) -> list[str]:
    return sorted(key for key in counts.value if key.endswith("_units"))


def _check_same_blocks(run: _Entry, first: _Entry) -> None:
    own, others = (_units(entry.at("results").at(COLUMNS[_evaluator(entry)][-1].evaluator)) for entry in (run, first))
    if own != others:
        raise InputError(
            f"{run.file}: {run.place}.results must have the units of the same blocks as {first.place}: "
            f"{', '.join(others) or 'none'}; it has {', '.join(own) or 'none'}"
        )


def _check_course(run: _Entry, blocks: Optional[list[str]]) -> list[str]:
    """The blocks of a run's course: those of the runs before, if there were any, and the same in every point."""
    units = run.at("units").value
    for point in run.at("course").each():
        point.at("step").number(0, _MOST_COUNT)
        own = sorted(key for key in point.value if key.startswith("block"))
        if not 0 < len(own) <= min(len(units), _MOST_BLOCKS) or own != (blocks or own):
            wanted = ", ".join(blocks or [f"block{number}" for number, _ in enumerate(units[:_MOST_BLOCKS], 1)])
            found = ", ".join(own[: _MOST_BLOCKS + 1]) or "none"
            raise InputError(f"{point.file}: {point.place} must have the units of {wanted}; it has {found}")
        for block in own:
            point.at(block).number(0, _MOST_COUNT)
        blocks = own
    assert blocks is not None  # `each` refuses an empty list
    return blocks


def _check_pairs(whole: _Entry) -> None:
    whole.at("dataset").must(TEXT)
    for pair in whole.at("pairs").each():
        pair.at("model").must(TEXT)
        pair.at("size").number(1, _MOST_COUNT)
        summary = pair.at("summary")
        if summary.at("flops").number(0, _MOST_FLOPS) == 0:
            raise summary.at("flops").refuse("be a number above 0")
        summary.at("flops_std").number(0, _MOST_FLOPS)
        summary.at("accuracy").number(0, 1)
        summary.at("images").number(1, _MOST_COUNT)


def _check_points(whole: _Entry) -> None:
    whole.at("title").must(TEXT)
    for point in whole.at("points").each():
        for key in ("name", "metric"):
            point.at(key).must(TEXT)
        point.at("setting").must(Rule(lambda setting: isinstance(setting, str), "be text"))
        point.at("seed").number()
        point.at("budget").number(0, 1, unknown=True)
        for key, most in (("flops", _MOST_FLOPS), ("flops_std", _MOST_FLOPS), ("images", _MOST_COUNT)):
            point.at(key).number(0, most)
        for key, most in (("quality", 100.0), ("seconds", _MOST_FLOPS)):
            point.at(key).number(0, most, unknown=True)


_CHECKS: dict[str, Callable[[_Entry], None]] = {
    "rows": _check_rows,
    "pairs": _check_pairs,
    "points": _check_points,
}  # of the tools in turn
