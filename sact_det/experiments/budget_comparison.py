"""Classifiers at several budgets: one network for all of them, one trained for each, and static ones that do less.

Everything is kept on the way: trainings go on from their checkpoints, calibrations from what they have measured, and an
evaluation that is finished is not repeated.
"""

import logging
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Sequence

from matplotlib.figure import Figure

from sact_det.base.errors import InputError, naming
from sact_det.base.files import file_sha256, write_json
from sact_det.base.markdown import markdown_table
from sact_det.base.text_files import read_json
from sact_det.budget import FILE_NAME, BudgetTable
from sact_det.classification.sweep import Pair, evaluate_pairs
from sact_det.engine.reference import Reference
from sact_det.experiments.calibration import Settings, calibrate_weights
from sact_det.experiments.runs import mean_and_deviation, mean_text
from sact_det.network.classifier import FAMILIES
from sact_det.pictures.figures import literal_text, new_figure, wrapped
from sact_det.tasks import load_config
from sact_det.weights.matched_units import first_units
from sact_det.weights.weight_file import load_weights, save_weights

logger = logging.getLogger(__name__)

_CALIBRATED = "calibrated.json"  # what the table beside the weights was made of


@dataclass(frozen=True)
class Contender:
    """A training, and where it is evaluated.

    Attributes:
        name: of the row that it belongs to.
        config: file.
        overrides: KEY VALUE pairs, OUTPUT_DIR and SEED among them.
        seed: of the training.
        setting: what tells it from others of the row, e.g. "units 1,1,2,1"; "" where only the budget does.
        budgets: to which it is calibrated; (): it is static.
        sizes: sides of the test images; (): the config's.
    """

    name: str
    config: str
    overrides: tuple[str, ...]
    seed: int
    setting: str = ""
    budgets: tuple[float, ...] = ()
    sizes: tuple[int, ...] = ()

    def load(self, *more: str) -> Any:
        """The config. Raises InputError if it is none of a classifier on one test set."""
        cfg = load_config(self.config, [*self.overrides, *more])
        if cfg.MODEL.META_ARCHITECTURE != "SACTClassifier" or len(cfg.DATASETS.TEST) != 1:
            raise InputError(f"{self.config}: must be a classifier's, with one data set in DATASETS.TEST")
        return cfg

    @property
    def folder(self) -> Path:
        """Of the training."""
        return Path(self.overrides[self.overrides.index("OUTPUT_DIR") + 1])


def with_first_units(weights: str, units: Sequence[int], path: Path) -> None:
    """Writes the plain network of so many units per block whose weights are the first ones of another's.

    Raises:
        InputError: the file cannot be read, or has fewer units.
    """
    state_dict, metadata = load_weights(weights)
    with naming(weights, ValueError):
        kept = first_units(state_dict, units)
    described = {**metadata, "units": tuple(units), "halting": "none", "source": f"the first units of {weights}"}
    save_weights(path, kept, described)


def compare(
    contenders: Sequence[Contender], train: Callable[[Contender], None], calibration: Settings
) -> list[dict[str, Any]]:
    """Trains, calibrates and evaluates whatever is not finished.

    Args:
        contenders: in the order of their turns.
        train: leaves model_final.pth in a contender's folder, from its last checkpoint on.
        calibration: of adaptive ones; its budgets are the contender's own.

    Returns:
        A dict for every contender and budget or size: name, setting, budget (None: static), size, seed, flops (share of
        the plain network's at the config's size), flops_std (over images), accuracy (percent), images, seconds (of an
        image, where calibrated) and the folder.

    Raises:
        InputError: a config, weights or data cannot be used, a training failed, or a budget cannot be reached.
    """
    points = []
    for number, contender in enumerate(contenders, 1):
        said = f"[{number} of {len(contenders)}] {contender.name} {contender.setting} seed {contender.seed}"
        logger.info("%s", said)
        weights = contender.folder / "model_final.pth"
        if not weights.exists():
            train(contender)
        cfg = contender.load("MODEL.WEIGHTS", str(weights))
        table = _calibrated(contender, cfg, weights, calibration) if contender.budgets else None
        points += _evaluated(contender, cfg, weights, table)
    return points


def _calibrated(contender: Contender, cfg: Any, weights: Path, calibration: Settings) -> BudgetTable:
    """The table beside the weights, made unless it is there."""
    settings = calibration._replace(budgets=contender.budgets)
    made_of = {"weights": file_sha256(weights), **settings._asdict(), "budgets": list(settings.budgets)}
    note = contender.folder / _CALIBRATED
    if note.exists() and (contender.folder / FILE_NAME).exists() and read_json(note) == made_of:
        return BudgetTable.read(contender.folder / FILE_NAME)
    table = calibrate_weights(cfg, weights, settings, contender.folder)
    write_json(note, made_of)
    return table


def _evaluated(contender: Contender, cfg: Any, weights: Path, table: Optional[BudgetTable]) -> list[dict[str, Any]]:
    size = cfg.INPUT.CLASSIFICATION.SIZE_TEST
    family = FAMILIES[cfg.MODEL.CLASSIFIER.FAMILY]
    whole = Reference.from_config(cfg, family, cfg.MODEL.CLASSIFIER.NUM_CLASSES).flops((size, size))
    ways: list[tuple[Optional[float], int]] = [(budget, size) for budget in contender.budgets]
    ways = ways or [(None, own) for own in contender.sizes or (size,)]
    seconds = {} if table is None else {point.budget: point.seconds for point in table.points}
    pairs = []
    for budget, own in ways:
        where = f"budget {budget:g}" if budget is not None else f"{own} pixels"
        words = ["OUTPUT_DIR", str(contender.folder / where.replace(" ", "_"))]
        words += ["INPUT.CLASSIFICATION.SIZE_TEST", str(own), "MODEL.SACT.BUDGET", repr(budget or 0.0)]
        pairs.append(Pair(f"{contender.name}, {where}", own, contender.load("MODEL.WEIGHTS", str(weights), *words)))
    points = []
    for (budget, own), result in zip(ways, evaluate_pairs(pairs)):
        summary = result["summary"]
        points.append(
            {
                "name": contender.name,
                "setting": contender.setting or (f"{own} pixels" if contender.sizes else ""),
                **{"budget": budget, "size": own, "seed": contender.seed},
                **{"flops": summary["flops"] / whole, "flops_std": summary["flops_std"] / whole},
                **{"accuracy": 100 * summary["accuracy"], "images": summary["images"]},
                **{"seconds": seconds.get(budget) if budget is not None else None, "folder": str(contender.folder)},
            }
        )
    return points


def _rows(points: Sequence[Mapping[str, Any]]) -> dict[str, list[list[Mapping[str, Any]]]]:
    """name -> its points with falling FLOPs, each a list over seeds."""
    grouped: dict[str, dict[Any, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for point in points:
        key = point["budget"] if point["budget"] is not None else point["setting"]
        grouped[point["name"]][key].append(point)
    return {
        name: sorted(own.values(), key=lambda seeds: -mean_and_deviation([one["flops"] for one in seeds])[0])
        for name, own in grouped.items()
    }


def comparison_table(points: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a line for every network and budget, setting or size: mean ± sample deviation over seeds."""
    heads = ("network", "budget or setting", "FLOPs (%)", "accuracy (%)", "s / image", "seeds", "images")
    lines = []
    for name, row in _rows(points).items():
        for seeds in row:
            first, timed = seeds[0], [one["seconds"] for one in seeds if one["seconds"] is not None]
            where = f"{first['budget']:g}" if first["budget"] is not None else first["setting"] or "as it is"
            cells = [
                mean_text([100 * one["flops"] for one in seeds], 1),
                mean_text([one["accuracy"] for one in seeds], 1),
            ]
            lines.append(
                [name, where, *cells, mean_text(timed, 4) if timed else "-", len(seeds), f"{first['images']:.0f}"]
            )
    return markdown_table(heads, lines)


@literal_text()
def draw_comparison(points: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Accuracy against FLOPs: a line for every network, bars one sample deviation over seeds."""
    figure = new_figure(7.5, 5, dpi=120)
    axes: Any = figure.add_subplot(
        title=wrapped(title, 76),
        xlabel="FLOPs, % of the plain network at full resolution",
        ylabel="accuracy (%); bar: deviation over seeds",
    )
    for (name, row), mark in zip(_rows(points).items(), "os^Dv<>P*X" * len(points)):
        x = [100 * mean_and_deviation([one["flops"] for one in seeds])[0] for seeds in row]
        y, bars = zip(*(mean_and_deviation([one["accuracy"] for one in seeds]) for seeds in row))
        shown = [0.0 if math.isnan(bar) else bar for bar in bars]
        dashed = "--" if row[0][0]["budget"] is None else "-"
        axes.errorbar(x, y, yerr=shown, marker=mark, capsize=3, linestyle=dashed, label=wrapped(name, 40))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
