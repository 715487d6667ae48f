"""Ponder cost and objects: inside against outside of boxes, against the size of an object, and against crowding."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Sequence, Union

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from sact_det.base.errors import InputError, naming
from sact_det.base.text_files import read_json
from sact_det.pictures.figures import literal_text, new_figure, wrapped

SIZES = 5  # groups of as many objects each
CROWDS = (1, 2, 3, 4, 6, 10)  # least numbers of objects


@dataclass(frozen=True)
class Group:
    """Images, or objects, that are alike.

    Attributes:
        at: what they have in common: the mean side, or number, of objects.
        value: mean of what was spent on them, over images.
        error: its standard error over images; NaN of a single one.
        images: how many have a part in it.
    """

    at: float
    value: float
    error: float
    images: int


@dataclass(frozen=True)
class ObjectCosts:
    """What a detector spends on objects (of ponder.json, as `PonderEvaluator` writes it).

    Attributes:
        inside, outside: means of the ponder map inside and outside all boxes, over the images that have both.
        ratio: mean over these images of inside / outside.
        more_inside: the share of these images that spend more inside.
        by_size: groups of objects by the side of their box, the root of its share of the image in percent; values are
            mean ponder costs inside a box as multiples of that outside of all boxes of its image.
        by_crowd: groups of images by their number of objects; values are mean ponder costs of images as multiples of
            all images' mean.
        size_correlation, crowd_correlation: Spearman's rank correlations of the same, over objects and over images;
            NaN where one of both is constant.
    """

    inside: float
    outside: float
    ratio: float
    more_inside: float
    by_size: list[Group]
    by_crowd: list[Group]
    size_correlation: float
    crowd_correlation: float


def read_object_costs(path: Union[str, Path]) -> ObjectCosts:
    """Of a ponder.json. Raises InputError if it is none, or has no objects in it."""
    content = read_json(path)
    with naming(f"{path}: not a ponder.json that a detector's evaluation wrote"):
        rows = content["images"]
        if any("objects" not in row for row in rows):
            raise InputError(f"{path}: has no costs of objects; evaluate the detector anew (train_net.py --eval-only)")
        with naming(path, InputError):
            return object_costs(rows)


def object_costs(rows: Sequence[dict[str, Any]]) -> ObjectCosts:
    """Of rows of `PonderEvaluator`. Raises InputError without an object, or without pixels outside of boxes."""
    both = [row for row in rows if row["cost_inside"] is not None and row["cost_outside"] is not None]
    if not any(one["cost"] is not None for row in both for one in row["objects"]):
        raise InputError("no image has an object and pixels outside of boxes")
    inside, outside = (np.array([row[key] for row in both], np.float64) for key in ("cost_inside", "cost_outside"))
    sides, relative, images = _objects(both)
    crowds = np.array([len(row["objects"]) for row in rows])
    costs = np.array([row["cost_mean"] for row in rows], np.float64)
    edges = np.sort(sides)[np.arange(1, SIZES) * len(sides) // SIZES]  # objects of one size stay in one group
    return ObjectCosts(
        inside=float(inside.mean()),
        outside=float(outside.mean()),
        ratio=float((inside / outside).mean()),
        more_inside=float((inside > outside).mean()),
        by_size=_groups(np.digitize(sides, edges), sides, relative, images),
        by_crowd=_groups(np.digitize(crowds, CROWDS), crowds, costs / costs.mean(), np.arange(len(rows))),
        size_correlation=_rank_correlation(sides, relative),
        crowd_correlation=_rank_correlation(crowds, costs),
    )


def _objects(rows: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every object that has pixels: its side in percent, its cost as a multiple of that outside, and the image."""
    found = [
        (math.sqrt(100 * one["area_percent"]), one["cost"] / row["cost_outside"], number)
        for number, row in enumerate(rows)
        for one in row["objects"]
        if one["cost"] is not None
    ]
    sides, relative, images = zip(*found)
    return np.array(sides), np.array(relative), np.array(images)


def _groups(group: np.ndarray, at: np.ndarray, values: np.ndarray, images: np.ndarray) -> list[Group]:
    """One of each number in `group`; objects of an image are no independent observations: its mean is one."""
    groups = []
    for number in np.unique(group):
        own = group == number
        _, image, objects = np.unique(images[own], return_inverse=True, return_counts=True)
        means = np.bincount(image, weights=values[own]) / objects
        error = means.std(ddof=1) / math.sqrt(len(means)) if len(means) > 1 else math.nan
        groups.append(Group(float(at[own].mean()), float(means.mean()), float(error), len(means)))
    return groups


def _rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    constant = min(np.ptp(x), np.ptp(y)) == 0
    return math.nan if constant else float(spearmanr(x, y).statistic)


_COLUMNS = (
    "network",
    "ponder cost inside",
    "outside",
    "inside / outside",
    "images that spend more inside (%)",
    "rank correlation with size",
    "with crowding",
)


def object_table(costs: dict[str, ObjectCosts]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of a table, a network a row."""
    rows = [
        [
            name,
            f"{own.inside:.2f}",
            f"{own.outside:.2f}",
            f"{own.ratio:.3f}",
            f"{100 * own.more_inside:.1f}",
            _signed(own.size_correlation),
            _signed(own.crowd_correlation),
        ]
        for name, own in costs.items()
    ]
    return list(_COLUMNS), rows


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.2f}"


@literal_text()
def draw_object_costs(costs: dict[str, ObjectCosts], title: Optional[str] = None) -> Figure:
    """Two panels: ponder cost in a box against its size, and an image's against its number of objects."""
    figure = new_figure(10, 4.2, dpi=120)
    if title:
        figure.suptitle(wrapped(title, 90))
    panels = (
        ("by_size", "side of the box, % of the image's", "ponder cost in the box, in multiples of that outside"),
        ("by_crowd", "objects in the image", "ponder cost of the image, in multiples of the mean"),
    )
    for number, (kind, x, y) in enumerate(panels, 1):
        axes = figure.add_subplot(1, 2, number, xlabel=x, ylabel=y)
        axes.axhline(1, color="0.6", linewidth=1)
        for name, own in costs.items():
            groups: list[Group] = getattr(own, kind)
            axes.errorbar(
                [group.at for group in groups],
                [group.value for group in groups],
                yerr=[2 * group.error for group in groups],
                marker="o",
                capsize=3,
                label=wrapped(name, 40),
            )
        axes.grid(alpha=0.3)
        if number == 1:
            axes.legend(title="bars: two standard errors")
    return figure
