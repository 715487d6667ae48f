"""What is calibrated: a trained network on images, at any shifts."""

import contextlib
import copy
import io
import tempfile
from abc import ABC, abstractmethod
from dataclasses import replace
from functools import partial
from typing import Any, Iterator, Mapping, Optional, Sequence, TypeVar

import numpy as np
import torch
from detectron2.config import CfgNode
from torch.utils.data import DataLoader
from tqdm import tqdm

from sact_det.base.errors import InputError
from sact_det.benchmark.quality import register_few
from sact_det.benchmark.timing import Candidate, interleaved_times
from sact_det.budget import BudgetTable
from sact_det.budget.budgeted import halting_blocks
from sact_det.budget.search import Measured
from sact_det.budget.shifts import Shifts
from sact_det.budget.statistics import budgeted_norms, estimate_statistics
from sact_det.classification import loader as classifier_loader
from sact_det.classification.evaluator import ClassificationEvaluator
from sact_det.classification.predictor import load_classifier
from sact_det.data.subsets import evenly
from sact_det.detection import loader as detector_loader
from sact_det.detection.box_evaluator import BoxEvaluator
from sact_det.detection.class_ap import check_classes, mean_over_present
from sact_det.detection.evaluator import PonderEvaluator
from sact_det.detection.predictor import Predictor
from sact_det.detection.pyramid import extractor_of
from sact_det.detection.reference import DetectorReference
from sact_det.engine.reference import Reference

_TIMED_IMAGES, _ROUNDS = 4, 3

Own = TypeVar("Own", bound="Subject")


class Subject(ABC):
    """A trained network, in evaluation mode, and images.

    Attributes:
        model: a Budgeted module that takes Detectron2's lists of dicts.
        of: what budgets are shares of, one of sact_det.budget.table.PARTS.
        metric: "accuracy", "AP" or "AP of" some classes, in percent.
        loader: the images, as in evaluation.
        has_statistics: whether norms get statistics of their own wherever these serve better than the training's.
    """

    model: Any
    of: str
    metric: str
    loader: DataLoader
    has_statistics = True

    def __len__(self) -> int:
        return len(self.loader.dataset)  # type: ignore[arg-type]

    def with_images(self: Own, most: int) -> Own:
        """The same network on another number of the data set's images, evenly spread."""
        other = copy.copy(self)
        other.look_at(most)
        return other

    @abstractmethod
    def look_at(self, most: Optional[int]) -> None:
        """From now on `loader` has so many images of the data set, evenly spread; None: all."""

    @property
    def blocks(self) -> list[str]:
        """Those that are shifted: what budgets are shares of has no others."""
        return sorted(halting_blocks(self.model))

    @abstractmethod
    def evaluators(self) -> list[Any]:
        """Fresh ones: what to give every batch and its outputs to."""

    @abstractmethod
    def judge(self, results: Mapping[str, Any]) -> Measured:
        """From the evaluators' results."""

    def statistics(self, shifts: Shifts, scale: float = 1.0) -> dict[str, np.ndarray]:
        """Statistics of their own that norms have at these shifts, on images scaled by `scale`.

        See sact_det/budget/statistics.py.
        """
        self._set(shifts, scale)
        with tqdm(self.loader, unit="batch", disable=None, leave=False, desc="statistics of norms") as batches:
            return estimate_statistics(self.model, batches)

    def _set(self, shifts: Shifts, scale: float) -> None:
        self.model.image_scale = scale
        for name, block in halting_blocks(self.model).items():
            block.shift = shifts.get(name, 0.0)

    @torch.no_grad()
    def measure(self, shifts: Shifts, scale: float = 1.0) -> Measured:
        """What the network does with all images, scaled by `scale`; blocks that `shifts` does not name are as trained.

        100% are the FLOPs of images that are not scaled. Norms have the statistics of the training or, with
        `has_statistics`, their own, unless those of the training do better. A detector's box head sees other regions in
        a training than in an evaluation, so that their own may take away what tells objects from background.
        """
        self._set(shifts, scale)
        self.model.normalize_by({})
        trained = self._measured()
        if not (self.has_statistics and budgeted_norms(self.model)):
            return trained
        self.model.normalize_by(self.statistics(shifts, scale))
        own = self._measured()._replace(own_statistics=True)
        return trained if trained.quality > own.quality else own

    def _measured(self) -> Measured:
        evaluators = self.evaluators()
        with tqdm(self.loader, unit="batch", disable=None, leave=False) as batches:
            for batch in batches:
                outputs = self.model(batch)
                for evaluator in evaluators:
                    evaluator.process(batch, outputs)
        results: dict[str, Any] = {}
        with contextlib.redirect_stdout(io.StringIO()):  # COCO's program prints
            for evaluator in evaluators:
                results.update(evaluator.evaluate())
        return self.judge(results)

    def seconds(self, table: BudgetTable) -> BudgetTable:
        """The table with the seconds of an image at each budget: medians over rounds in which budgets alternate."""
        dataset: Any = self.loader.dataset
        items = [dataset[index] for index in evenly(range(len(dataset)), _TIMED_IMAGES)]

        @torch.no_grad()
        def run(prepared: None) -> None:
            for item in items:
                self.model([item])

        self.model.set_budget(table.points[0].budget, table)  # which is known from now on
        candidates = [
            Candidate(f"{point.budget:g}", run, partial(self.model.set_budget, point.budget)) for point in table.points
        ]
        times = interleaved_times(candidates, _ROUNDS, device=self.model.device)
        points = (replace(p, seconds=float(np.median(times[f"{p.budget:g}"])) / len(items)) for p in table.points)
        return replace(table, points=tuple(points))


class ClassifierSubject(Subject):
    """A classifier on labelled images; budgets are shares of the whole network.

    Args:
        cfg: of the trained classifier.
        name: of a registered data set.
        most: images, evenly spread; None: all.
    """

    of, metric = "network", "accuracy"

    def __init__(self, cfg: CfgNode, name: str, most: Optional[int] = None):
        self.model, self._cfg, self._name = load_classifier(cfg), cfg, name
        self.look_at(most)
        spec = self.model.spec
        self._reference = Reference.of(spec, spec.units, self.model.logits.out_channels)

    def look_at(self, most: Optional[int]) -> None:
        """As of Subject."""
        self.loader = classifier_loader.build_test_loader(self._cfg, self._name, most)

    def evaluators(self) -> list[Any]:
        """As of Subject."""
        return [ClassificationEvaluator(self._reference)]

    def judge(self, results: Mapping[str, Any]) -> Measured:
        """As of Subject."""
        own = results["classification"]
        return Measured(own["flops_percent"] / 100, own["flops_percent_std"] / 100, 100 * own["accuracy"])


class DetectorSubject(Subject):
    """A detector on a data set with boxes.

    Args:
        cfg: of the trained detector.
        name: of a registered data set.
        most: images, evenly spread; None: all.
        of: "detector": the whole detector, block 4 shifted, too; "extractor": stem and blocks 1-3 alone.
        folder: for files that the evaluation leaves, as long as this lives.
        classes: whose mean AP is the quality; (): all.
    """

    def __init__(self, cfg: CfgNode, name: str, most: Optional[int], of: str, folder: str, classes: Sequence[str] = ()):
        self.model, self.of, self._folder = Predictor(cfg).model, of, folder
        self._cfg, self._whole, self._classes = cfg, name, classes
        self.metric = f"AP of {', '.join(classes)}" if classes else "AP"
        self.look_at(most)
        extractor = extractor_of(self.model.backbone)
        self._extractor = extractor.blocks  # by name
        self._reference = Reference.of(extractor.spec, extractor.spec.units[: len(extractor.blocks)])
        self._detector = DetectorReference.of(self.model)

    def look_at(self, most: Optional[int]) -> None:
        """As of Subject."""
        whole = self._whole
        self._name = whole if most is None else register_few(whole, most, self._folder, "--max-images")
        self.loader = detector_loader.build_test_loader(self._cfg, self._name)

    @property
    def blocks(self) -> list[str]:
        """As of Subject."""
        own = super().blocks
        return own if self.of == "detector" else [name for name in own if name in self._extractor]

    def evaluators(self) -> list[Any]:
        """As of Subject."""
        ponder = PonderEvaluator(self._name, self._reference, detector=self._detector)
        return [ponder, BoxEvaluator(self._name, self._folder)]

    def judge(self, results: Mapping[str, Any]) -> Measured:
        """As of Subject."""
        ponder, key = results["ponder"], "flops_percent" if self.of == "extractor" else "detector_flops_percent"
        boxes = results["bbox"]
        quality = mean_over_present(boxes, self._classes) if self._classes else boxes["AP"]
        return Measured(ponder[key] / 100, ponder[f"{key}_std"] / 100, quality)


@contextlib.contextmanager
def subject_of(
    cfg: CfgNode, name: str, most: Optional[int], of: Optional[str], classes: Sequence[str] = ()
) -> Iterator[Subject]:
    """The network of a config on a data set.

    Args:
        cfg: names trained weights.
        name: of a registered data set.
        most: images, evenly spread; None: all.
        of: of a detector, "detector" (also by default) or "extractor".
        classes: of a detector, whose mean AP is the quality; (): all.

    Raises:
        InputError: weights or data cannot be used, there are fewer than two images, a class is unknown, or nothing
            halts.
    """
    with tempfile.TemporaryDirectory() as folder:
        if cfg.MODEL.META_ARCHITECTURE == "SACTClassifier":
            if of is not None:
                raise InputError(f"--of {of} is for detectors: a classifier's budgets are shares of all of it")
            if classes:
                raise InputError(f"--classes {' '.join(classes)}: for detectors, whose AP they choose")
            subject: Subject = ClassifierSubject(cfg, name, most)
        else:
            check_classes(classes, name)
            subject = DetectorSubject(cfg, name, most, of or "detector", folder, classes)
        if len(subject) < 2:
            raise InputError(f"{name}: a calibration needs 2 images at least; got {len(subject)}")
        if not subject.blocks:
            raise InputError(f"MODEL.SACT.HALTING {cfg.MODEL.SACT.HALTING!r}: nothing halts, so there are no budgets")
        yield subject
