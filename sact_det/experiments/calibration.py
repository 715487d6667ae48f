"""Calibrates the budgets of trained weights, and keeps what it has measured on the way."""

import argparse
import logging
import math
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Mapping, NamedTuple, Optional, Sequence

import numpy as np
from detectron2.config import CfgNode
from tqdm import tqdm

from sact_det.base.errors import InputError
from sact_det.base.files import file_sha256, write_json
from sact_det.base.text_files import read_json
from sact_det.benchmark.machine import describe_machine
from sact_det.budget import FILE_NAME, BudgetPoint, BudgetTable, Drawing, weights_digest
from sact_det.budget.image_scale import SCALE
from sact_det.budget.scaled_search import ScaledSearch
from sact_det.budget.search import Measured
from sact_det.budget.shifts import NEVER, Shifts
from sact_det.budget.statistics import encoded, trained_statistics
from sact_det.engine.failures import sizes_fit
from sact_det.engine.fingerprint import fingerprint
from sact_det.experiments.budget_subjects import Subject, subject_of
from sact_det.tasks import task_of

logger = logging.getLogger(__name__)


class Measurements:
    """What was measured of a subject, in a file from which an interrupted calibration goes on.

    Args:
        subject: to be measured.
        path: of the file; what was there of other weights, settings or images is replaced.
        key: tells those apart.

    Attributes:
        subject: the same.
    """

    def __init__(self, subject: Subject, path: Path, key: str):
        self.subject, self._path, self._key = subject, path, key
        self._known: dict[tuple[float, ...], Measured] = {}
        for entry in _stored(path, key):
            own = entry.get("scale", 1.0), *entry["shifts"]
            flops, flops_std, quality, own_statistics = entry["measured"]
            self._known[own] = Measured(flops, flops_std, math.nan if quality is None else quality, own_statistics)

    def __call__(self, shifts: Shifts, scale: float = 1.0) -> Measured:
        """Measures, on images scaled by `scale`, unless it is known."""
        own = scale, *(shifts[block] for block in self.subject.blocks)
        if own not in self._known:
            start = time.perf_counter()
            self._known[own] = found = self.subject.measure(shifts, scale)
            said = ", ".join(f"{shift:+.2f}" for shift in own[1:]) + ("" if scale == 1 else f", images by {scale:g}")
            logger.info(
                "Shifts %s: %.1f ± %.1f%% of the FLOPs, %s %.2f (%.0f s)",
                *(said, 100 * found.flops, 100 * found.flops_std, self.subject.metric, found.quality),
                time.perf_counter() - start,
            )
            entries = [
                {"scale": known, "shifts": values, "measured": measured}
                for (known, *values), measured in self._known.items()
            ]
            write_json(self._path, {"key": self._key, "entries": entries})
        return self._known[own]


def _stored(path: Path, key: str) -> list[Any]:
    if not path.exists():
        return []
    try:
        content = read_json(path)
        if content["key"] == key:
            return [entry for entry in content["entries"] if len(entry["measured"]) == len(Measured._fields)]
    except (InputError, LookupError, TypeError):
        pass
    logger.info("%s is of other weights, settings or images: measuring anew", path)
    return []


class Settings(NamedTuple):
    """How budgets are calibrated.

    Attributes:
        dataset: a registered data set, not the test's.
        images: most of its images that are looked at, evenly spread.
        budgets: in (0, 1], unlike each other.
        candidates: shifts of single blocks that are tried for every budget.
        seed: of what they are.
        of: of a detector, "detector" or "extractor": what budgets are shares of; None: "detector".
        statistics: whether norms that learn get statistics of a budget, where they do better than the training's.
        scales: in (0, 1], unlike each other, what images may be scaled by beside 1.
        judged_images: most of the images that quality is judged on, of shifts that spend a budget; None: `images`.
        classes: of detectors, whose mean AP is the quality; (): all.
    """

    dataset: str
    images: int
    budgets: Sequence[float]
    candidates: int = 0
    seed: int = 0
    of: Optional[str] = None
    statistics: bool = True
    scales: Sequence[float] = ()
    judged_images: Optional[int] = None
    classes: Sequence[str] = ()


def calibration_set(cfg: CfgNode, name: Optional[str]) -> str:
    """The data set to calibrate on. Raises InputError if it is the test's, or there is none or more than one."""
    if name is None:
        if len(cfg.DATASETS.TRAIN) != 1:
            raise InputError(f"DATASETS.TRAIN names {len(cfg.DATASETS.TRAIN)} data sets: choose one with --dataset")
        (name,) = cfg.DATASETS.TRAIN
    content = {entry[0]: tuple(entry[1:]) for entry in (*cfg.DATASETS.CLASSIFICATION, *cfg.DATASETS.COCO_FORMAT)}
    for test in cfg.DATASETS.TEST:
        if name == test or (name in content and content[name] == content.get(test)):
            raise InputError(
                f"{name}: has the images of DATASETS.TEST, {test}; what is calibrated on them would flatter a test"
            )
    return name


def add_judging(parser: argparse.ArgumentParser) -> None:
    """Adds --judged-images and --classes, for `check_judging` and `Settings`."""
    parser.add_argument(
        "--judged-images",
        type=int,
        metavar="N",
        help="that accuracy or AP is judged on where a budget is spent (default: --max-images, which find the FLOPs)",
    )
    parser.add_argument("--classes", nargs="+", default=[], metavar="CLASS", help="of detectors, whose mean AP counts")


def check_judging(args: argparse.Namespace) -> None:
    """Raises InputError, naming the option, unless --judged-images is at least --max-images."""
    if args.judged_images is not None and args.judged_images < args.max_images:
        raise InputError(f"--judged-images must be at least --max-images, {args.max_images}; got {args.judged_images}")


def add_scales(parser: argparse.ArgumentParser) -> None:
    """Adds --scales, for `check_scales` and `Settings`."""
    parser.add_argument(
        "--scales",
        nargs="+",
        type=float,
        default=[],
        metavar="S",
        help="in (0, 1): what a budget may scale images by; default: they stay whole",
    )


def check_scales(scales: Sequence[float]) -> None:
    """Raises InputError, naming --scales, unless each is in (0, 1] and unlike the others."""
    if not all(map(SCALE.allows, scales)) or len(set(scales)) < len(scales):
        shown = " ".join(f"{scale:g}" for scale in scales)
        raise InputError(f"--scales must be shares of an image's sides, in (0, 1], unlike each other; got {shown}")


def calibrate_weights(cfg: CfgNode, weights: Path, settings: Settings, folder: Path) -> BudgetTable:
    """Calibrates budgets of a weight file, and writes budget.json beside it.

    Args:
        cfg: names these weights.
        weights: the file.
        settings: of the calibration.
        folder: receives budget_measured.json and budget_judged.json, from which a calibration that was interrupted
            goes on.

    Raises:
        InputError: a budget cannot be reached, weights or data cannot be used, or nothing halts.
    """
    with subject_of(cfg, settings.dataset, settings.images, settings.of, settings.classes) as subject:
        subject.has_statistics = settings.statistics
        made_of = fingerprint(
            cfg, f"{file_sha256(weights)} {settings.dataset} {subject.of} {subject.metric} {settings.statistics}"
        )
        measure = Measurements(subject, folder / "budget_measured.json", f"{made_of} {settings.images}")
        judge = None
        if settings.judged_images is not None:
            more = subject.with_images(settings.judged_images)
            judge = Measurements(more, folder / "budget_judged.json", f"{made_of} {settings.judged_images}")
        machine = describe_machine(subject.model.device)
        about = {"dataset": settings.dataset, "seed": settings.seed, "machine": machine}
        with sizes_fit(cfg, "a batch", task_of(cfg).trainer.test_sizes):
            table = calibrate(measure, settings, about, judge)
        warn_of_escape(table, subject.model.drawing)
    table.write(weights.parent / FILE_NAME)
    return table


def warn_of_escape(table: BudgetTable, drawing: Optional[Drawing]) -> None:
    """Warns of budgets whose shifts lie farther outside of what a training has drawn than its range is wide.

    A network may escape the draws, by branches or features, instead of learning to serve them.

    Args:
        table: of the network's budgets.
        drawing: of its training; None: nothing was drawn. Where budgets were, there is no escape.
    """
    if drawing is None or drawing.draws == "budget":
        return
    width = drawing.high - drawing.low
    typical = {point.budget: statistics.median(point.shifts.values()) for point in table.points if point.budget < 1}
    far = {b: shift for b, shift in typical.items() if not drawing.low - width <= shift <= drawing.high + width}
    if far:
        logger.warning(
            "Budgets %s need shifts from %+.1f to %+.1f, far outside of those that the training has drawn, %+.1f to "
            "%+.1f: the network has learned to escape them, and is not made for these budgets",
            ", ".join(f"{budget:g}" for budget in far),
            min(far.values()),
            max(far.values()),
            drawing.low,
            drawing.high,
        )


def calibrate(
    measure: Measurements, settings: Settings, about: Mapping[str, Any], judge: Optional[Measurements] = None
) -> BudgetTable:
    """The table of some budgets, seconds included.

    Args:
        measure: of the network.
        settings: of the calibration.
        about: joins the table's own.
        judge: of the same network on more images: of shifts that spend a budget. None: `measure`.

    Raises:
        InputError: a budget cannot be reached.
    """
    subject, judges = measure.subject, measure if judge is None else judge
    search = ScaledSearch(subject.blocks, measure, settings.scales, judge)
    random, budgets, points = np.random.default_rng(settings.seed), settings.budgets, []
    for budget in budgets:
        search.check(budget)
    with tqdm(total=len(budgets) * search.ways(settings.candidates), unit="candidate", disable=None) as bar:
        for budget in sorted(budgets, reverse=True):
            scale, shifts, found = search.best(budget, settings.candidates, random, bar.update)
            quality = None if math.isnan(found.quality) else found.quality
            norms = {}
            if found.own_statistics:
                norms = encoded(
                    judges.subject.statistics(dict.fromkeys(shifts, NEVER) if budget == 1 else shifts, scale)
                )
            point = BudgetPoint(budget, dict(shifts), found.flops, found.flops_std, quality, scale=scale, norms=norms)
            points.append(point)
    named = {name for point in points for name in point.norms}
    if named:  # what is not said of a budget would be interpolated
        trained = {name: values for name, values in trained_statistics(subject.model).items() if name in named}
        points = [point if point.norms else replace(point, norms=encoded(trained)) for point in points]
    own = {"metric": subject.metric, "images": len(judges.subject)}
    digest, least = weights_digest(subject.model), search.least
    return subject.seconds(BudgetTable(digest, subject.of, least, tuple(reversed(points)), {**own, **about}))
