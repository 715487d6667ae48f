"""Spatially Adaptive Computation Time for object detection and visual saliency, on Detectron2."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sact_det.classification.model import build_classifier
    from sact_det.config import add_sact_config

__version__ = "0.1.0"

__all__ = ["add_sact_config", "build_classifier"]


def __getattr__(name: str) -> Any:
    # Late: `saliency` shares errors and files with this package and needs no torch.
    if name == "build_classifier":
        from sact_det.classification.model import build_classifier

        return build_classifier
    if name == "add_sact_config":
        from sact_det.config import add_sact_config

        return add_sact_config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
