"""What no page can be made of: other paths, and files of runs, benchmarks and evaluations with other content."""

from typing import Any

from sweep.harness import Case, Place, Word, file
from sweep.results import PAIRS, RUN_FILES, put

_HTML = ("--output", "report.html")
_BENCHMARK: dict[str, Any] = {
    "tables": [
        {
            "rows": [
                {
                    **{"name": "a", "line": "a", "AP": 30.0, "s": {"median": 0.1}, "programs": "", "weights": ""},
                    **{"flops_percent": 100.0, "time_ratio": {"median": 1.0}},
                }
            ]
        }
    ]
}
_INTERVAL = {"mean": 0.5, "low": 0.4, "high": 0.6}
_SALIENCY: dict[str, Any] = {
    **{"title": "toy", "scored_images": 3, "dataset": {"path": "toy"}, "tuned_for": "nss", "metrics": {"nss": {}}},
    "rows": [{"model": "a", "map": "b", "overall": {"nss": _INTERVAL}, "categories": {"c": {"nss": _INTERVAL}}}],
}
_GALLERY: dict[str, Any] = {
    **{"title": "", "note": "", "what": "class", "payloads": []},
    "about": {"views": [], "layers": [], "numbers": [], "classes": [], "items": [], "scored": False},
}
_ROW = ("tables", 0, "rows", 0)


def report(says: str, *words: Word) -> Case:
    return Case("report", says, *words, *_HTML)


def run(says: str, **files: Any) -> Case:
    """A report without images of a run whose files, by the stems of their names, are others or more."""

    def folder(place: Place) -> str:
        known = {**RUN_FILES, "inference/toy/ponder.json": {"images": []}}
        for name, content in known.items():
            own = files.get(name.rsplit("/", 1)[-1].split(".")[0], content)
            if own is not None:
                file(f"run/{name}", own)(place)
        if "budget" in files:
            file("run/budget.json", files["budget"])(place)
        return "run"

    return report(says, folder, "--max-images", "0")


def saliency(says: str, results: Any, gallery: Any = None) -> Case:
    """A report of an evaluation of saliency, or of another results.json."""

    def folder(place: Place) -> str:
        file("saliency/results.json", results)(place)
        if gallery is not None:
            file("saliency/gallery_a.json", gallery)(place)
        return "saliency"

    return report(says, folder)


CASES = [
    report("nowhere: no such file or folder", "nowhere"),
    report(r"\.: nothing to report; expected the OUTPUT_DIR of a finished training", "."),
    report("/dev/null: nothing to report", "/dev/null"),
    report(r"a\.json: nothing to report", file("a.json", [])),
    report(r"a\.json: not a readable json file", file("a.json", "{")),
    report(r"a\.txt: nothing to report", file("a.txt", "words")),
    report("--max-images must not be negative; got -1", ".", "--max-images", "-1"),
    report("--max-images: invalid int value", ".", "--max-images", "many"),
    Case("report", "required: RUN_OR_OUTPUT", *_HTML),
    Case("report", "required: --output", "."),
    Case("report", r"--output must end in \.html; got report\.pdf", ".", "--output", "report.pdf"),
    Case("report", "/dev/null: File exists", ".", "--output", "/dev/null/report.html"),
    run(r"config\.yaml: has no MODEL\.SACT\.HALTING", config="MODEL: {}"),
    run(r"results\.json: no such file", results=None),
    run(r"run: results must be of one of these kinds", results={"toy": {}}),
    run(r"metrics\.json: line 1 is no line of metrics", metrics="[1, 2]\n"),
    run("the training is not finished", model_final=None),
    *(run(r"ponder\.json: not as an evaluation writes it", ponder=content) for content in ([], {}, {"images": [7]})),
    run(r"ponder\.json: not a readable json file", ponder="{"),
    run(r"budget\.json: not a table of budgets", budget={"points": []}),
    *(
        report(r"b\.json: not as tools/benchmark\.py detector --dataset writes it", file("b.json", content))
        for content in (
            {"tables": 7},
            {"tables": [7]},
            {"tables": [{"rows": [7]}]},
            put(_BENCHMARK, (*_ROW, "s"), 0.1),
            put(_BENCHMARK, (*_ROW, "s", "median"), "fast"),
            put(_BENCHMARK, (*_ROW, "flops_percent"), "all"),
            put(_BENCHMARK, (*_ROW, "time_ratio"), {}),
        )
    ),
    saliency(r"results\.json: dataset must be a string", put(PAIRS, ("dataset",), 7)),
    *(
        saliency(r"results\.json: not as tools/evaluate_saliency\.py writes it", content)
        for content in (
            {"scored_images": 3},
            put(_SALIENCY, ("rows",), []),
            put(_SALIENCY, ("rows",), 7),
            put(_SALIENCY, ("rows", 0, "overall", "nss", "mean"), "good"),
            put(_SALIENCY, ("rows", 0, "categories"), 7),
            put(_SALIENCY, ("dataset",), "toy"),
        )
    ),
    saliency("fame", put(_SALIENCY, ("tuned_for",), "fame")),
    *(saliency(r"gallery_a\.json: no file of a gallery", _SALIENCY, content) for content in ([], {}, {"title": "a"})),
    *(
        saliency(r"gallery_a\.json: ", _SALIENCY, put(_GALLERY, place, value))
        for place, value in (
            (("about",), {}),
            (("about", "views"), 7),
            (("about", "views"), [7]),
            (("about", "layers"), [{}]),
            (("about", "numbers"), [[]]),
            (("about", "items"), [{}]),
            (("payloads",), [{}]),
            (("payloads",), [7]),
        )
    ),
]
