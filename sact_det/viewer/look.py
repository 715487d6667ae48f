"""One picture under a trained detector or classifier: what it found, where it computed, and what that took."""

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Optional, Sequence, Union

import numpy as np
from detectron2.config import CfgNode
from torch import nn

import sact_det.classification.class_names as classes
from sact_det.classification.pictures import pixels_of
from sact_det.classification.predictor import ClassPrediction, ClassPredictor
from sact_det.classification.preprocessing import whole_image
from sact_det.detection.class_names import class_names, segment_names
from sact_det.detection.drawing import draw_detections, draw_segments
from sact_det.detection.evaluator import detector_row
from sact_det.detection.predictor import Prediction, Predictor
from sact_det.detection.reference import DetectorReference
from sact_det.network.block import AdaptiveBlock
from sact_det.pictures.scales import widened
from sact_det.pictures.style import Limits
from sact_det.rule.ponder import PonderRecord

_GIGA = 1e9


@dataclass(frozen=True)
class Look(ABC):
    """What a network makes of a picture.

    Attributes:
        image: uint8 RGB [H, W, 3]; a classifier's, at the size that the network saw.
        ponder: of the extractor, or of a classifier, N = 1.
        flops: of the whole network.
        flops_percent: of what the plain one takes for this picture and as many regions.
        extractor_percent: of what the plain extractor takes; of a classifier, the same as flops_percent.
        seconds: from the pixels to what was found.
    """

    image: np.ndarray
    ponder: PonderRecord
    flops: int
    flops_percent: float
    extractor_percent: float
    seconds: float

    @abstractmethod
    def title(self, score: float) -> str:
        """What was found with at least this score, in a few words."""

    @abstractmethod
    def draw(self, score: float, scale: int = 1, image: Optional[np.ndarray] = None) -> np.ndarray:
        """What was found with at least this score, uint8 RGB [scale * H, scale * W, 3], on the image or another one."""

    def ponder_map(self, size: tuple[int, int]) -> np.ndarray:
        """float32 [H, W] for `size` = (H, W), by the rule of PonderRecord.map."""
        return self.ponder.map(size)[0].numpy()

    def price(self) -> str:
        """FLOPs and milliseconds in words."""
        return (
            f"{self.flops / _GIGA:.3g} GFLOPs, {self.flops_percent:.1f}% of the plain network's, "
            f"in {1000 * self.seconds:.0f} ms"
        )


@dataclass(frozen=True)
class DetectorLook(Look):
    """A detector's, with its prediction, and its config for the names of classes."""

    prediction: Prediction
    cfg: CfgNode

    def title(self, score: float) -> str:
        """How many objects, or segments of a panoptic detector."""
        if self.prediction.segments is not None:
            return _counted(len(self._segments(score)), "segment")
        return _counted(int((self.prediction.instances.scores >= score).sum()), "detection")

    def draw(self, score: float, scale: int = 1, image: Optional[np.ndarray] = None) -> np.ndarray:
        """Boxes, masks and keypoints, or segments: stuff has no score, and is always there."""
        image = self.image if image is None else image
        if self.prediction.segments is not None:
            ids = self.prediction.segments[0]
            return draw_segments(image, ids, self._segments(score), segment_names(self.cfg), scale)
        instances = self.prediction.instances
        return draw_detections(image, instances[instances.scores >= score], class_names(self.cfg), scale)

    def _segments(self, score: float) -> list[dict[str, Any]]:
        assert self.prediction.segments is not None
        return [one for one in self.prediction.segments[1] if not one["isthing"] or one["score"] >= score]


@dataclass(frozen=True)
class ClassifierLook(Look):
    """A classifier's, with its prediction and the names of the classes, where they are known."""

    prediction: ClassPrediction
    names: Optional[Sequence[str]]

    def title(self, score: float) -> str:
        """The class, if it is as probable as that."""
        probability, label = self.prediction.probabilities.max(0)
        if probability < score:
            return f"no class of {score:.0%}"
        return f"{self.names[int(label)] if self.names else f'class {int(label)}'} {float(probability):.0%}"

    def draw(self, score: float, scale: int = 1, image: Optional[np.ndarray] = None) -> np.ndarray:
        """The image alone."""
        image = self.image if image is None else image
        return image.repeat(scale, 0).repeat(scale, 1)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def cost_limits(extractor: nn.Module) -> Limits:
    """The least and the most that a position of a network can cost, N + R (eq. 9): over its blocks, sums."""
    low = high = 0.0
    for block in (part for part in extractor.modules() if isinstance(part, AdaptiveBlock)):
        low += 2 if block.rule.adaptive else len(block.units)
        high += len(block.units) + block.rule.adaptive
    return widened(low, high)


class DetectorViewer:
    """The trained detector of a config. Raises InputError as `Predictor` does.

    Attributes:
        model: it.
        limits: what a position can cost, of one colour scale for all pictures.
    """

    def __init__(self, cfg: CfgNode):
        self._cfg, self._predictor = cfg, Predictor(cfg)
        self._reference = DetectorReference.from_config(cfg)
        self.model = self._predictor.model
        self.limits = cost_limits(self.model.backbone)

    def __call__(self, image: np.ndarray) -> DetectorLook:
        """Looks at uint8 RGB [H, W, 3]."""
        start = time.perf_counter()
        prediction = self._predictor(np.ascontiguousarray(image[:, :, ::-1]))
        seconds = time.perf_counter() - start
        size = prediction.numbers["height"], prediction.numbers["width"]
        row = detector_row(prediction.spent, size, self._reference)
        flops, percent = row["detector_flops"]["total"], row["detector_flops_percent"]
        extractor = prediction.numbers["flops_percent"]
        return DetectorLook(image, prediction.ponder, flops, percent, extractor, seconds, prediction, self._cfg)


class ClassifierViewer:
    """The trained classifier of a config. Raises InputError as `ClassPredictor` does.

    Args:
        cfg: its config.
        longer_edge: pixels to which the longer side of a picture is resized; None: pictures keep their size.

    Attributes: as of DetectorViewer.
    """

    def __init__(self, cfg: CfgNode, longer_edge: Optional[int] = None):
        self._predictor, self._names = ClassPredictor(cfg), classes.class_names(cfg)
        self._longer_edge = longer_edge
        self.model = self._predictor.model
        self.limits = cost_limits(self.model)

    def __call__(self, image: np.ndarray) -> ClassifierLook:
        """Looks at uint8 RGB [H, W, 3]."""
        start = time.perf_counter()
        resized = whole_image(image, self._longer_edge)
        prediction = self._predictor(resized)
        seconds = time.perf_counter() - start
        flops, percent = int(prediction.ponder.flops), prediction.numbers["flops_percent"]
        pixels = pixels_of(resized)
        return ClassifierLook(pixels, prediction.ponder, flops, percent, percent, seconds, prediction, self._names)


Viewer = Union[DetectorViewer, ClassifierViewer]


def viewer_of(cfg: CfgNode, longer_edge: Optional[int] = None) -> Viewer:
    """The trained network of a config; `longer_edge` is a classifier's. Raises InputError as the viewers do."""
    if cfg.MODEL.META_ARCHITECTURE == "SACTClassifier":
        return ClassifierViewer(cfg, longer_edge)
    return DetectorViewer(cfg)
