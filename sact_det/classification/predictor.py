"""One image in, its class and an account of the computation out."""

from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor

from sact_det.base.errors import InputError
from sact_det.classification.checkpoint import ClassifierCheckpointer
from sact_det.classification.meta_arch import SACTClassifier
from sact_det.engine.evaluator import ponder_row
from sact_det.engine.failures import build_model
from sact_det.rule.ponder import PonderRecord


@dataclass(frozen=True)
class ClassPrediction:
    """What the network took an image for and what that took.

    Attributes:
        probabilities: float32 [num_classes], on the CPU.
        ponder: of the whole network, N = 1, on the CPU.
        numbers: as ClassificationEvaluator's per-image rows (sact_det/classification/evaluator.py).
    """

    probabilities: Tensor
    ponder: PonderRecord
    numbers: dict[str, Any]


class ClassPredictor:
    """The trained classifier of a config, for single images. Raises InputError as `load_classifier` does."""

    def __init__(self, cfg: CfgNode):
        self.model: SACTClassifier = load_classifier(cfg)

    @torch.no_grad()
    def __call__(self, image: Tensor) -> ClassPrediction:
        """Runs the network on [3, H, W], RGB in [0, 255], H and W as they are."""
        output = self.model([{"image": image}])[0]
        return ClassPrediction(
            probabilities=output["logits"].softmax(0),
            ponder=output["ponder"],
            numbers=ponder_row(output["ponder"], (image.shape[1], image.shape[2]), self.model.reference),
        )


def load_classifier(cfg: CfgNode) -> SACTClassifier:
    """The trained classifier of a config, in evaluation mode; MODEL.WEIGHTS names a file with all of it.

    Raises:
        InputError: the model is another one, or its weights are missing, broken or do not fit.
    """
    if cfg.MODEL.META_ARCHITECTURE != "SACTClassifier":
        raise InputError(f"MODEL.META_ARCHITECTURE must be SACTClassifier; got {cfg.MODEL.META_ARCHITECTURE}")
    model = build_model(cfg)
    ClassifierCheckpointer(model, evaluate=True).load(cfg.MODEL.WEIGHTS)
    return model.eval()
