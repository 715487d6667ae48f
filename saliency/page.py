"""An evaluation on a page: a gallery for every model, and the section that results and galleries make.

Shape shorthand in this module:
    H, W: size of an image in pixels; h, w: size of a map.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sact_det.base.errors import naming
from sact_det.base.text_files import read_json
from sact_det.report.bars import BarChart
from sact_det.report.gallery import Gallery, Layer, Number, PackedGallery, Seen, View
from sact_det.report.page import Part, Section, Table
from saliency.evaluation import Evaluation
from saliency.intervals import as_numbers
from saliency.methods import PONDER_MAP, Model, as_it_is, saliency_map
from saliency.postprocess import min_max
from saliency.scores import get_metric
from saliency.sheet import ranked

PREFIX = "gallery_"  # of the galleries' files in the folder of an evaluation
MOST_IMAGES = 100

_LONGEST = 160  # cells of a stored map's longer side


def saliency_gallery(evaluation: Evaluation, model: Model, photographs: bool = True) -> PackedGallery:
    """Images between the best and the worst of a model, by the metric tuned for: at most MOST_IMAGES, evenly spread.

    Ranked and shown as post-processed is what the sheet of the model ranks and shows (sheet.py).

    Args:
        evaluation: of that model, among others.
        model: as it was given to `evaluate`.
        photographs: whether the images are shown, or white in their place.

    Raises:
        InputError: an image or a map can no longer be read.
    """
    metric = evaluation.settings.tuned_for
    own = [row for row in evaluation.rows if row.method.model == model.name]
    without_map = any(np.isinf(chain.multiplier) for chain in own[-1].method.chains)
    last = own[-2] if without_map and len(own) > 1 else own[-1]
    shown = [last, *(row for row in own if row is not last)]
    column = list(evaluation.settings.metrics).index(metric)
    better = get_metric(metric)
    order = np.argsort(last.scores[:, column])[:: -1 if better.higher_is_better else 1]
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(len(order), MOST_IMAGES)).round().astype(int))]
    groups = ranked(last.scores[:, column], better.higher_is_better)
    classes = [*evaluation.categories, *groups]
    fold_of = {index: fold for fold, split in enumerate(evaluation.splits) for index in split.scored}
    gallery = Gallery(
        views=[View(model.name)],
        layers=[
            Layer(model.kind, (0,), "units" if model.kind == PONDER_MAP else ""),
            Layer("people (1: where most looked)", (1,), ""),
            Layer("post-processed", (2,), ""),
        ],
        numbers=[
            *(Number(f"{better.title}, {row.method.stage}", 3) for row in shown),
            Number(f"{better.title}, centre", 3),
            Number(f"mean of the {model.kind}"),
        ],
        classes=classes,
        expected=len(chosen),
        scored=False,
        characters=23e6 * len(chosen) / (2 * MOST_IMAGES),
    )
    for number in chosen:
        index = evaluation.indices[number]
        image, made = evaluation.dataset[index], model.maps(evaluation.dataset[index].name)
        chains = last.method.chains
        if chains:
            finished = saliency_map(chains[fold_of[index]], made, image.shape)
        else:
            finished = made = min_max(as_it_is(model, made, image.shape).map)
        density = image.fixations.density(evaluation.settings.density_sigma)
        maps = [made, density / density.max(), finished]
        scores = [float(row.scores[number, column]) for row in (*shown, evaluation.rows[0])]
        seen = Seen([_small(one) for one in maps], [*scores, float(made.mean())])
        labels = [classes.index(image.category)]
        labels += [classes.index(group) for group, members in groups.items() if number in members]
        pixels = image.pixels() if photographs else np.full((*image.shape, 3), 255, np.uint8)
        gallery.add(image.name, pixels, [seen], labels=labels)
    note = (
        f"{len(chosen)} of {len(evaluation.indices)} images, by {better.title} of {last.method.stage!r}; "
        f"the filter knows the {len(groups['best'])} best, the median and the worst."
    )
    return gallery.packed(model.name, note, "category")


def _small(values: np.ndarray) -> np.ndarray:
    """The map, at most 160 cells long, from 0 on: one that has values below is raised."""
    scale = _LONGEST / max(values.shape)
    if scale < 1:
        size = (max(1, round(values.shape[1] * scale)), max(1, round(values.shape[0] * scale)))
        values = cv2.resize(values.astype(np.float32), size, interpolation=cv2.INTER_NEAREST_EXACT)
    return values - min(float(values.min()), 0.0)


def saliency_section(folder: Path) -> Section:
    """The paper's Table 2, bars by category of every metric, and galleries, of a folder of tools/evaluate_saliency.py.

    Raises:
        InputError: a file of the folder cannot be used.
    """
    results = read_json(folder / "results.json")
    with naming(f"{folder}/results.json: not as tools/evaluate_saliency.py writes it"):
        parts = _parts(results)
        text = f"{results['scored_images']} images of {results['dataset']['path']}, scored against fixations."
        title = f"Saliency: {results['title']}"
    parts += [PackedGallery.read(file) for file in sorted(folder.glob(f"{PREFIX}*.json"))]
    return Section(title, text, parts)


def _parts(results: dict[str, Any]) -> list[Part]:
    main = results["tuned_for"]
    names = [main, *(name for name in results["metrics"] if name != main)]
    rows = [
        [
            f"{row['model']}, {row['map']}",
            "{mean:.4f} [{low:.4f}, {high:.4f}]".format(**as_numbers(row["overall"][main])),
            *(f"{float(row['overall'][name]['mean']):.4f}" for name in names[1:]),
        ]
        for row in results["rows"]
    ]
    note = f"In brackets: 95% bootstrap intervals over images. Blur and centre tuned for {get_metric(main).title}."
    parts: list[Part] = [
        Table("As in the paper's Table 2", ["map", *(get_metric(name).title for name in names)], rows, note)
    ]
    categories = list(results["rows"][0]["categories"])
    if len(categories) > 1:
        shown = [results["rows"][0], *(row for row in results["rows"] if row["model"] != results["rows"][0]["model"])]
        parts += [_by_category(shown, categories, name) for name in names]
    return parts


def _by_category(rows: list[dict[str, Any]], categories: list[str], metric: str) -> BarChart:
    title = get_metric(metric).title
    found = {
        f"{row['model']}, {row['map']}": [as_numbers(row["categories"][category][metric]) for category in categories]
        for row in rows
    }
    return BarChart(
        f"{title} by category",
        title,
        categories,
        {name: [one["mean"] if np.isfinite(one["mean"]) else None for one in own] for name, own in found.items()},
        "Lines: 95% bootstrap intervals over a category's images.",
        {
            name: [(one["low"], one["high"]) if np.isfinite(one["mean"]) else None for one in own]
            for name, own in found.items()
        },
    )
