"""What an evaluation found, as JSON, CSV and a markdown table."""

import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import Any, Iterable, Sequence

import numpy as np

from sact_det.base.files import write_json, write_text
from sact_det.base.markdown import markdown_table
from saliency.evaluation import Evaluation, Intervals
from saliency.intervals import Interval
from saliency.methods import CENTER
from saliency.scores import get_metric

ALL = "all"  # the category of all images together


def write_report(folder: Path, evaluation: Evaluation, title: str, about: dict[str, Any]) -> str:
    """Writes results.json, table.md, table.csv and images.csv.

    Args:
        folder: an existing one.
        evaluation: what was found.
        title: above the table.
        about: joins the JSON.

    Returns:
        The markdown table.

    Raises:
        OSError: the folder cannot be written.
    """
    table = markdown(evaluation, title)
    write_json(folder / "results.json", {"title": title, **about, **as_dict(evaluation)})
    for name, text in (
        ("table.md", table + "\n"),
        ("table.csv", _csv(_table_rows(evaluation))),
        ("images.csv", _csv(_image_rows(evaluation))),
    ):
        write_text(folder / name, text)
    return table


def as_dict(evaluation: Evaluation) -> dict[str, Any]:
    """Everything but the scores of single images, for JSON; an infinite number is the text "inf" or "-inf"."""
    settings, dataset = evaluation.settings, evaluation.dataset
    return {
        "dataset": {"path": dataset.name, "images": len(dataset), "left_out": list(dataset.skipped)},
        "splits": [{"tuned_on": len(split.tuned_on), "scored": len(split.scored)} for split in evaluation.splits],
        "scored_images": len(evaluation.indices),
        "scored": dataset.counted,
        "protocol": settings.protocol,
        "tuned_for": settings.tuned_for,
        "grid": {
            "sigmas": list(settings.grid.sigmas),
            "multipliers": [_finite_or_text(value) for value in settings.grid.multipliers],
        },
        "density_sigma": settings.density_sigma,
        "metrics": {name: {"higher_is_better": get_metric(name).higher_is_better} for name in settings.metrics},
        "rows": [_row_dict(evaluation, number) for number in range(len(evaluation.rows))],
    }


def _row_dict(evaluation: Evaluation, number: int) -> dict[str, Any]:
    method = evaluation.rows[number].method
    return {
        "model": method.model,
        "map": method.stage,
        "chains": [{**asdict(chain), "multiplier": _finite_or_text(chain.multiplier)} for chain in method.chains],
        "notices": list(method.notices),
        "overall": _as_dicts(evaluation.intervals[None][number]),
        "above_center": _as_dicts(evaluation.above_center[number]),
        "categories": {name: _as_dicts(evaluation.intervals[name][number]) for name in evaluation.categories},
    }


def _finite_or_text(value: float) -> Any:
    return value if np.isfinite(value) else str(value)


def _as_dicts(intervals: Intervals) -> dict[str, Any]:
    """Numbers; infinite ones as texts that `float` reads."""
    return {
        name: {key: _finite_or_text(value) for key, value in asdict(interval).items()}
        for name, interval in intervals.items()
    }


def markdown(evaluation: Evaluation, title: str) -> str:
    """The rows with all metrics, what is to be known of them, and, of several categories, every metric by category."""
    settings = evaluation.settings
    main = settings.tuned_for
    names = [main, *(name for name in settings.metrics if name != main)]
    tuned = sorted({len(split.tuned_on) for split in evaluation.splits})
    tuning = f" blur and centre tuned for {get_metric(main).title} on {' or '.join(map(str, tuned))} others;"
    is_tuned = any(model.is_tuned for model in evaluation.models)
    lines = [
        f"{title}: {len(evaluation.indices)} images;{tuning if is_tuned else ''} "
        f"{len(evaluation.dataset.skipped)} left out. Scored are {evaluation.dataset.counted}, by the protocol "
        f"{settings.protocol!r}. In brackets 95% bootstrap intervals over images.",
        "",
        markdown_table(
            ["model", "map", "sigma", "multiplier"]
            + [f"{get_metric(main).title}", "minus centre"]
            + [get_metric(name).title for name in names[1:]],
            [_markdown_cells(evaluation, number, names) for number in range(len(evaluation.rows))],
        ),
    ]
    methods = (row.method for row in evaluation.rows)
    notices = [f"- {method.model}, {method.stage}: {notice}" for method in methods for notice in method.notices]
    lines += ["", *notices] if notices else []
    if len(evaluation.categories) > 1:
        for name in names:
            lines += ["", f"{get_metric(name).title} by category:", "", _by_category(evaluation, name)]
    return "\n".join(lines)


def _by_category(evaluation: Evaluation, name: str) -> str:
    """A metric's means, a column for each category."""
    heads = ["model", "map", *evaluation.categories]
    cells = [
        [row.method.model, row.method.stage]
        + [_number(evaluation.intervals[category][number][name].mean) for category in evaluation.categories]
        for number, row in enumerate(evaluation.rows)
    ]
    counts = ["", "images", *(str(len(images)) for images in evaluation.categories.values())]
    return markdown_table(heads, [counts, *cells])


def _markdown_cells(evaluation: Evaluation, number: int, names: Sequence[str]) -> list[str]:
    method, intervals = evaluation.rows[number].method, evaluation.intervals[None][number]
    of_map = method.model != CENTER
    return [
        method.model,
        method.stage,
        _range(chain.sigma for chain in method.chains if of_map),
        _range(chain.multiplier for chain in method.chains if of_map),
        _with_interval(intervals[names[0]]),
        _with_interval(evaluation.above_center[number][names[0]], "+") if number else "0",
        *(_number(intervals[name].mean) for name in names[1:]),
    ]


def _number(value: float, sign: str = "-") -> str:
    """Four decimals, without a minus before zeros."""
    return f"{round(value, 4) + 0.0:{sign}.4f}"


def _with_interval(interval: Interval, sign: str = "-") -> str:
    return f"{_number(interval.mean, sign)} [{_number(interval.low, sign)}, {_number(interval.high, sign)}]"


def _range(values: Iterable[float]) -> str:
    """One value, or from the least to the greatest."""
    known = sorted(set(values))
    return "-" if not known else f"{known[0]:.4g}" if len(known) == 1 else f"{known[0]:.4g} to {known[-1]:.4g}"


def _table_rows(evaluation: Evaluation) -> Iterable[Sequence[Any]]:
    yield "model", "map", "category", "images", "metric", "mean", "low", "high"
    for number, row in enumerate(evaluation.rows):
        for category, intervals in evaluation.intervals.items():
            own = row.method.model, row.method.stage, ALL if category is None else category
            for name, found in intervals[number].items():
                yield *own, found.images, name, found.mean, found.low, found.high


def _image_rows(evaluation: Evaluation) -> Iterable[Sequence[Any]]:
    yield "model", "map", "category", "image", *evaluation.settings.metrics
    for row in evaluation.rows:
        for index, scores in zip(evaluation.indices, row.scores):
            image = evaluation.dataset[index]
            yield row.method.model, row.method.stage, image.category, image.name, *scores.tolist()


def _csv(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
