"""Detectron2's detectors that pay for their extractor's computation and report it."""

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN, PanopticFPN, RetinaNet
from torch import nn

from sact_det.detection.box_transform import compute_side_by_side
from sact_det.detection.layers import plan_layers
from sact_det.detection.parts import check_parts
from sact_det.engine.priced import Priced


@META_ARCH_REGISTRY.register()
class SACTGeneralizedRCNN(Priced, GeneralizedRCNN):
    """Detectron2's GeneralizedRCNN on a `SACTBackbone`, or on a pyramid above one; what it adds is said in `Priced`.

    Faster R-CNN C4, the paper's, has block 4 in its box head (`SACTRes5ROIHeads`), with the price
    MODEL.SACT.TAU_BOX_HEAD, by default none. On a pyramid all four blocks have the price MODEL.SACT.TAU.
    """

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments of the constructor. Raises InputError if it takes no such parts."""
        check_parts(cfg)
        return _planned(cfg, super().from_config(cfg))


@META_ARCH_REGISTRY.register()
class SACTRetinaNet(Priced, RetinaNet):
    """Detectron2's RetinaNet on a pyramid above a `SACTBackbone`; what it adds is said in `Priced`.

    Trainings repeat: the moving mean of positive anchors, which its losses are divided by, is a buffer, so that a
    checkpoint has it; and the focal loss is computed alike in every step.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # Float64 as Python's numbers are; 100 is Detectron2's first value.
        self.register_buffer("loss_normalizer", torch.tensor(100.0, dtype=torch.float64))

    def losses(self, *args: Any) -> Any:
        """Detectron2's. TorchScript would compute a process's first steps otherwise than those it has optimised."""
        with torch.jit.optimized_execution(False):
            return super().losses(*args)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments of the constructor. Raises InputError if it takes no such parts."""
        check_parts(cfg)
        return _planned(cfg, super().from_config(cfg))


@META_ARCH_REGISTRY.register()
class SACTPanopticFPN(Priced, PanopticFPN):
    """Detectron2's PanopticFPN on a pyramid above a `SACTBackbone`; what it adds is said in `Priced`."""

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments of the constructor. Raises InputError if it takes no such parts."""
        check_parts(cfg)
        return _planned(cfg, super().from_config(cfg))


def _planned(cfg: CfgNode, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a detector, the layers of its parts computing as MODEL.SACT.EXECUTION says."""
    for part in arguments.values():
        if isinstance(part, nn.Module):
            plan_layers(part, cfg.MODEL.SACT.EXECUTION)
        compute_side_by_side(part)  # RetinaNet's is an argument of its own
    return arguments
