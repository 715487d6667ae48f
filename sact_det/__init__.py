"""Spatially Adaptive Computation Time for object detection and visual saliency, on Detectron2."""

from sact_det.classification.model import build_classifier
from sact_det.config import add_sact_config

__version__ = "0.1.0"

__all__ = ["add_sact_config", "build_classifier"]
