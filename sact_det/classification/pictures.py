"""Image files as a classifier sees them, for pictures of its ponder maps."""

from pathlib import Path
from typing import Any, Callable, Iterator, Optional, Sequence

import numpy as np
import torch
from detectron2.config import CfgNode

from sact_det.classification.class_names import class_names
from sact_det.classification.meta_arch import SACTClassifier
from sact_det.classification.predictor import ClassPrediction, ClassPredictor
from sact_det.classification.preprocessing import whole_image
from sact_det.data.image_files import read_checked
from sact_det.pictures.at_budgets import AtBudget
from sact_det.pictures.image_sets import PonderedImage, PonderedImages, block_costs, check_drawable
from sact_det.pictures.style import ON_SCREEN, Style


class ClassifiedImages(PonderedImages):
    """The images of files under a trained classifier, single scale, nothing cut off; the title says the class.

    Going through them a second time reads the files again, but does not run the network.

    Args:
        cfg: of the trained classifier.
        paths: of the files.
        longer_edge: resizes the longer side to so many pixels; None: images keep their size.

    Raises:
        InputError: the weights or an image cannot be used.
    """

    def __init__(self, cfg: CfgNode, paths: Sequence[Path], longer_edge: Optional[int] = None):
        self._predictor = ClassPredictor(cfg)
        self._names = class_names(cfg)
        self._paths, self._longer_edge = paths, longer_edge
        self._seen: dict[int, dict[str, Any]] = {}

    @property
    def model(self) -> SACTClassifier:
        """The classifier."""
        return self._predictor.model

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[PonderedImage]:
        for index, path in enumerate(self._paths):
            image = whole_image(read_checked(path, "RGB"), self._longer_edge)
            check_drawable(path, (image.shape[1], image.shape[2]))
            if index not in self._seen:
                self._seen[index] = self._classify(image)
            yield PonderedImage(name=str(path), image=pixels_of(image), **self._seen[index])

    def _classify(self, image: torch.Tensor) -> dict[str, Any]:
        prediction = self._predictor(image)
        return {"block_costs": block_costs(prediction.ponder), **described(prediction, self._names)}


def described(prediction: ClassPrediction, names: Optional[Sequence[str]]) -> dict[str, Any]:
    """A "title" and "numbers" for what a classifier took an image for; `names` are those of its classes if known."""
    label = int(prediction.probabilities.argmax())
    name, probability = names[label] if names else f"class {label}", float(prediction.probabilities[label])
    numbers = {**prediction.numbers, "label": label, "class": name, "probability": probability}
    return {"title": f"{name} {probability:.0%}", "numbers": numbers}


def classifier_at_budgets(
    cfg: CfgNode, longer_edge: Optional[int], style: Style = ON_SCREEN
) -> tuple[SACTClassifier, Callable[[Path], AtBudget]]:
    """A classifier, and what it makes of a file whose longer side is resized to `longer_edge` (None: kept)."""
    predictor, names = ClassPredictor(cfg), class_names(cfg)

    def look(path: Path) -> AtBudget:
        image = whole_image(read_checked(path, "RGB"), longer_edge)
        check_drawable(path, (image.shape[1], image.shape[2]))
        prediction, pixels = predictor(image), pixels_of(image)
        told = described(prediction, names)
        return AtBudget(style.enlarged(pixels), pixels, block_costs(prediction.ponder), **told)

    return predictor.model, look


def pixels_of(image: torch.Tensor) -> np.ndarray:
    """[3, H, W] in [0, 255] -> uint8 RGB [H, W, 3]."""
    return image.round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
