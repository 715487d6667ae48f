"""Files of results and folders of runs that tables and figures cannot show, value by value."""

import copy
import json
from typing import Any, Callable

from sweep.harness import RESOLUTIONS, Case, Place, Word, file, output

_RUN: dict[str, Any] = {
    "halting": "sact",
    "seed": 0,
    "steps": 40,
    "units": [3, 4],
    "results": {
        "bbox": {"AP": 1.5, "AP50": 2.5},
        "ponder": {"flops_percent": 80.0, "flops_percent_std": 1.0, "images": 7, "block1_units": 2.0},
    },
    "course": [{"step": 19, "block1": 2.0, "block2": 3.0}, {"step": 39, "block1": 1.5, "block2": 3.0}],
}
_ROWS: dict[str, Any] = {
    "title": "Toy",
    "rows": [{"name": "a", "runs": [_RUN]}, {"name": "b", "runs": [copy.deepcopy(_RUN)]}],
}
_SUMMARY = {"flops": 1e9, "flops_std": 1e8, "accuracy": 0.5, "images": 7}
PAIRS: dict[str, Any] = {"dataset": "toy", "pairs": [{"model": "a", "size": 64, "summary": _SUMMARY}]}
_POINT = {"name": "a", "setting": "", "budget": 0.5, "seed": 0, "flops": 0.5, "flops_std": 0.1}
_POINT |= {"metric": "accuracy", "quality": 50.0, "images": 3, "seconds": None}
POINTS: dict[str, Any] = {"title": "Toy", "points": [_POINT]}
_NUMBER, _MAPPING, _LIST = "must be a finite number", "must be a mapping", "must be a list that is not empty"
_ROW, _IN_ROW = r"rows\[1\]\.runs\[0\]", ("rows", 1, "runs", 0)

# Where in the rows, values that cannot stand there, and what they must be.
_WRONG_ROWS: list[tuple[tuple[Any, ...], tuple[Any, ...], str]] = [
    (("title",), (None, 7, ["Toy"]), "title must be a string"),
    (("rows",), ({"a": 1}, "rows", 7), f"rows {_LIST}"),
    (("rows", 1), (None, 7, [], "b"), rf"rows\[1\] {_MAPPING}"),
    (("rows", 1, "name"), (None, 7, ["b"]), r"rows\[1\]\.name must be a string"),
    (("rows", 1, "name"), ("a",), "rows: every row needs a name of its own; 'a' stands there twice"),
    (("rows", 1, "runs"), (None, [], {}, 7), rf"rows\[1\]\.runs {_LIST}"),
    (_IN_ROW, (None, [], "run"), f"{_ROW} {_MAPPING}"),
    ((*_IN_ROW, "halting"), (None, 1), f"{_ROW}.halting must be a string"),
    ((*_IN_ROW, "seed"), (None, "0", [0], float("nan")), f"{_ROW}.seed {_NUMBER}"),
    ((*_IN_ROW, "steps"), (None, "40", -1, float("inf"), True), f"{_ROW}.steps {_NUMBER} from 0"),
    ((*_IN_ROW, "units"), (None, [], 3, "3, 4"), f"{_ROW}.units {_LIST}"),
    ((*_IN_ROW, "units", 0), (None, "3", 0, [3]), rf"{_ROW}.units\[0\] {_NUMBER} from 1"),
    ((*_IN_ROW, "results"), (None, [], 7), f"{_ROW}.results must be a mapping"),
    ((*_IN_ROW, "results"), ({}, {"segm": {}}), f"{_ROW}.results must be of one of these kinds"),
    ((*_IN_ROW, "results", "bbox"), (None, 7, []), f"{_ROW}.results.bbox {_MAPPING}"),
    (
        (*_IN_ROW, "results", "bbox", "AP"),
        ("1", [], float("inf"), True, 10**400, -5, 100.5, 1e308),
        f"{_ROW}.results.bbox.AP {_NUMBER}",
    ),
    (
        (*_IN_ROW, "results", "ponder", "flops_percent_std"),
        ("1", -5, 1e308),
        rf"{_ROW}.results.ponder.flops_percent_std {_NUMBER} from 0",
    ),
    ((*_IN_ROW, "results", "ponder", "images"), (None, 0, "7"), f"{_ROW}.results.ponder.images {_NUMBER} from 1"),
    ((*_IN_ROW, "results", "ponder", "block1_units"), ("2", {}), f"{_ROW}.results.ponder.block1_units {_NUMBER}"),
    ((*_IN_ROW, "course"), (None, [], {}, "course"), f"{_ROW}.course {_LIST}"),
    ((*_IN_ROW, "course", 1), (None, 7, []), rf"{_ROW}.course\[1\] {_MAPPING}"),
    (
        (*_IN_ROW, "course", 1, "step"),
        (None, "39", -1, float("nan"), 1e300),
        rf"{_ROW}.course\[1\].step {_NUMBER} from 0",
    ),
    ((*_IN_ROW, "course", 1, "block1"), (None, "2", -1), rf"{_ROW}.course\[1\].block1 {_NUMBER} from 0"),
    (
        (*_IN_ROW, "course", 1),
        ({"step": 39},),
        rf"{_ROW}.course\[1\] must have the units of block1, block2; it has none",
    ),
    (
        (*_IN_ROW, "course", 1),
        ({"step": 39, "block9": 1},),
        rf"{_ROW}.course\[1\] must have the units of block1, block2; it has block9",
    ),
]
_WRONG_PAIRS: list[tuple[tuple[Any, ...], tuple[Any, ...], str]] = [
    (("dataset",), (None, 7), "dataset must be a string"),
    (("pairs",), ({"a": 1}, 7), f"pairs {_LIST}"),
    (("pairs", 0), (None, []), rf"pairs\[0\] {_MAPPING}"),
    (("pairs", 0, "model"), (None, 7), r"pairs\[0\]\.model must be a string"),
    (("pairs", 0, "size"), (None, "64", 0), rf"pairs\[0\]\.size {_NUMBER} from 1"),
    (("pairs", 0, "summary"), (None, []), rf"pairs\[0\]\.summary {_MAPPING}"),
    (
        ("pairs", 0, "summary", "flops"),
        (None, "1e9", -1, float("nan")),
        rf"pairs\[0\]\.summary\.flops {_NUMBER} from 0",
    ),
    (("pairs", 0, "summary", "flops"), (0,), r"pairs\[0\]\.summary\.flops must be a number above 0"),
    (("pairs", 0, "summary", "flops_std"), (None, -1), rf"pairs\[0\]\.summary\.flops_std {_NUMBER} from 0"),
    (
        ("pairs", 0, "summary", "accuracy"),
        (None, "50%", 1.5, -0.1),
        rf"pairs\[0\]\.summary\.accuracy {_NUMBER} from 0 to 1",
    ),
    (("pairs", 0, "summary", "images"), (None, 0), rf"pairs\[0\]\.summary\.images {_NUMBER} from 1"),
]
_WRONG_POINTS: list[tuple[tuple[Any, ...], tuple[Any, ...], str]] = [
    (("title",), (None, 7), "title must be a string"),
    (("points",), ({"a": 1}, 7), f"points {_LIST}"),
    (("points", 0), (None, []), rf"points\[0\] {_MAPPING}"),
    *((("points", 0, key), (None, 7), rf"points\[0\]\.{key} must be a string") for key in ("name", "metric")),
    (("points", 0, "setting"), (None, 7), r"points\[0\]\.setting must be text"),
    (("points", 0, "budget"), ("0.5", 2, -1), rf"points\[0\]\.budget {_NUMBER} from 0 to 1"),
    *((("points", 0, key), (None, -1), rf"points\[0\]\.{key} {_NUMBER} from 0") for key in ("flops", "images")),
    (("points", 0, "quality"), ("50%", 101), rf"points\[0\]\.quality {_NUMBER} from 0 to 100"),
]
_REQUIRED = [(*_IN_ROW, key) for key in ("halting", "seed", "steps", "units", "results", "course")]
_REQUIRED += [("title",), ("rows", 1, "name"), ("rows", 1, "runs"), (*_IN_ROW, "results", "ponder", "flops_percent")]


def changed(content: dict[str, Any], place: tuple[Any, ...], change: Callable[[Any, Any], Any]) -> dict[str, Any]:
    """A copy in which `change(parent, key)` was done to the value at the place."""
    content = copy.deepcopy(content)
    parent: Any = content
    for key in place[:-1]:
        parent = parent[key]
    change(parent, place[-1])
    return content


def put(content: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    return changed(content, place, lambda parent, key: parent.__setitem__(key, value))


def drop(content: dict[str, Any], place: tuple[Any, ...]) -> dict[str, Any]:
    return changed(content, place, lambda parent, key: parent.pop(key))


def plot(says: str, content: Any) -> Case:
    return Case("plot_results", rf"r\.json: {says}", file("r.json", content), "--output", output)


def dotted(place: tuple[Any, ...]) -> str:
    return "".join(rf"\[{key}\]" if isinstance(key, int) else rf"\.{key}" for key in place)[2:]


# The folder of a run, file by file.
RUN_FILES: dict[str, Any] = {
    "config.yaml": "MODEL: {SACT: {HALTING: sact, TAU: 0.1, UNITS: [3, 4]}, WEIGHTS: ''}\nSEED: 0\n"
    "SOLVER: {MAX_ITER: 40, IMS_PER_BATCH: 2}\n",
    "inference/results.json": {"toy": _RUN["results"]},
    "metrics.json": '{"iteration": 19, "total_loss": 1.0, "sact/block1_units": 2.0, "sact/block2_units": 3.0}\n',
    "model_final.pth": b"",
}


def collect(says: str, **files: Any) -> Case:
    """Collecting a run whose files, by the stems of their names, are others."""

    def folder(place: Place) -> str:
        for name, content in RUN_FILES.items():
            own = files.get(name.rsplit("/", 1)[-1].split(".")[0], content)
            if own is not None:
                file(f"run/{name}", own)(place)
        return "run"

    word: Word = folder
    return Case("collect_results", says, "--output", output, "--title", "Toy", "--row", "a", word)


def results(value: Any) -> dict[str, Any]:
    return {"toy": value}


# 9 ** 12 values.
ALIASES_OF_ALIASES = "b0: &b0 [x]\n" + "\n".join(
    f"b{level}: &b{level} [{', '.join([f'*b{level - 1}'] * 9)}]" for level in range(1, 13)
)

CASES = [
    *(plot(says, put(_ROWS, place, value)) for place, values, says in _WRONG_ROWS for value in values),
    *(plot(says, put(PAIRS, place, value)) for place, values, says in _WRONG_PAIRS for value in values),
    *(plot(says, put(POINTS, place, value)) for place, values, says in _WRONG_POINTS for value in values),
    *(plot(f"{dotted(place)} is missing", drop(_ROWS, place)) for place in _REQUIRED),
    *(plot("holds no rows", content) for content in ({}, [], 7, None, {"rows": []}, {"rows": None})),
    plot("not a readable json file", b"\x89PNG\x00\x01"),
    plot("not a readable json file", "{"),
    plot("not a readable json file: it is empty", ""),
    plot("not a readable json file", "[" * 100_000),
    plot("not a readable json file", json.dumps(_ROWS)[:-40]),
    Case("plot_results", r"nowhere\.json: no such file", "nowhere.json", "--output", output),
    Case(
        "plot_results",
        r"cannot be read \(it is a device\); expected a regular json file",
        "/dev/null",
        "--output",
        output,
    ),
    collect(r"config\.yaml: no such file", config=None),
    collect(r"config\.yaml: not a readable", config=b"\x00\x01\x02"),
    collect(r"config\.yaml", config="MODEL: [unclosed"),
    collect(r"config\.yaml: has no MODEL\.SACT\.HALTING", config="MODEL: {}"),
    collect(r"config\.yaml: has no MODEL\.SACT\.HALTING", config="just words"),
    collect(r"seed must be a finite number", config=RUN_FILES["config.yaml"].replace("SEED: 0", "SEED: zero")),
    collect(r"units must be a list", config=RUN_FILES["config.yaml"].replace("[3, 4]", "7")),
    collect(r"results\.json: no such file", results=None),
    collect(r"results\.json: expected the results of one data set", results=[]),
    collect(r"results\.json: expected the results of one data set", results={}),
    collect(r"results\.json: expected the results of one data set", results={"a": {}, "b": {}}),
    collect(r"run: results must be a mapping", results=results(7)),
    collect(r"run: results must be of one of these kinds", results=results({})),
    collect(r"run: results\.bbox must be a mapping", results=results({"bbox": 7, "ponder": {}})),
    collect(r"run: results\.bbox\.AP is missing", results=results({"bbox": {}, "ponder": {}})),
    collect(r"run: results\.ponder is missing", results=results({"bbox": {"AP": 1, "AP50": 1}})),
    collect(r"metrics\.json: no such file", metrics=None),
    collect(r"metrics\.json: not a readable", metrics=b"\x00\xff\x00"),
    collect(r"metrics\.json: line 1 is no line of metrics", metrics='{"iteration": "x"}\n'),
    collect(r"metrics\.json: line 1 is no line of metrics", metrics="[1, 2]\n"),
    collect(r"the training is not finished", metrics=""),
    collect(r"the training is not finished", model_final=None),
    collect(r"course\[0\] must have the units of block1, block2", metrics='{"iteration": 1, "total_loss": 1}\n'),
    collect(
        r"course\[0\]\.block1 must be a finite number",
        metrics='{"iteration": 1, "total_loss": 1, "sact/block1_units": "two"}\n',
    ),
    collect(
        r"run: results\.ponder\.block1_units must be a finite number",
        results={"toy": put(_RUN, ("results", "ponder", "block1_units"), "2")["results"]},
    ),
    collect(r"metrics\.json: line 2 is no line of metrics", metrics=RUN_FILES["metrics.json"] + "nonsense\n{}\n"),
    collect(r"metrics\.json: line 1 is no line of metrics .{,200}$", metrics="x" * 1_000_000 + "\n"),
    collect(r"course\[0\]\.step must be a finite number from 0", metrics='{"iteration": -1, "total_loss": 1}\n'),
    collect(r"config\.yaml: not a readable yaml file: its aliases stand", config=ALIASES_OF_ALIASES),
    collect(r"config\.yaml: not a readable yaml file: it is nested too deeply", config="SEED: " + "[" * 5000),
    Case(
        "plot_results",
        r"r\.json: another file of this name",
        file("a/r.json", _ROWS),
        file("r.json", _ROWS),
        "--output",
        output,
    ),
    Case("collect_results", "names a folder twice", "--output", output, "--title", "", "--row", "a", "x", "y/../x"),
    Case("collect_results", "names no folder", "--output", output, "--title", "Toy", "--row", "a"),
    Case("collect_results", "nowhere/config.yaml", "--output", output, "--title", "", "--row", "a", "nowhere"),
    Case("collect_results", "required", "--title", "Toy", "--row", "a", "run"),
    Case("sweep_resolutions", "--sizes", *RESOLUTIONS, "--sizes", "0"),
    Case("sweep_resolutions", "--sizes", *RESOLUTIONS, "--sizes", "big"),
]
