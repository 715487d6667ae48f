"""The box head: RoIAlign, block 4 of the pre-activation ResNet under a halting rule, box predictor."""

from typing import Any, Optional, Sequence

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import ROIAlign, ShapeSpec
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, Res5ROIHeads
from detectron2.structures import Boxes
from torch import Tensor, nn

from sact_det.base.errors import InputError
from sact_det.detection.pooler import RegionPooler
from sact_det.engine.spec import box_head_spec
from sact_det.execution import set_execution
from sact_det.network.spec import NetworkSpec
from sact_det.rule import ledger
from sact_det.rule.ponder import PonderRecord


class Block4Head(nn.Module):
    """Block 4 and postnorm + ReLU on cropped regions.

    What it spends is entered as "box_head" (sact_det/rule/ledger.py), a record of regions. The paper's ponder penalty
    is on the extractor alone (section 4.2).
    """

    def __init__(self, spec: NetworkSpec, execution: str = "dense"):
        super().__init__()
        self.block4 = spec.build_block(4)
        set_execution(self.block4, execution)
        self.postnorm = spec.make_norm(spec.out_channels(4))

    def forward(self, regions: Tensor, by_image: Optional[Sequence[int]] = None) -> Tensor:
        """regions: [R, C, 14, 14] -> [R, 2C, 7, 7]; `by_image`: how many of them each image has, in order."""
        x, ponder = self.block4(regions)
        ledger.enter("box_head", PonderRecord({"block4": ponder}, torch.zeros_like(ponder.flops)), by_image)
        return F.relu(self.postnorm(x))


@ROI_HEADS_REGISTRY.register()
class SACTRes5ROIHeads(Res5ROIHeads):
    """Detectron2's C4 box head with the pre-activation block 4 in place of its post-activation res5."""

    res5: Block4Head

    def _shared_roi_transform(self, features: list[Tensor], boxes: list[Boxes]) -> Tensor:
        return self.res5(self.pooler(features, boxes), [len(own) for own in boxes])

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Arguments of the constructor."""
        arguments = super().from_config(cfg, input_shape)
        (level,) = arguments["pooler"].level_poolers
        if isinstance(level, ROIAlign):
            arguments["pooler"] = RegionPooler(level)
            set_execution(arguments["pooler"], cfg.MODEL.SACT.EXECUTION)
        return arguments

    @classmethod
    def _build_res5_block(cls, cfg: CfgNode) -> tuple[Block4Head, int]:
        if cfg.MODEL.MASK_ON:
            raise InputError("MODEL.MASK_ON: SACTRes5ROIHeads detects boxes only")
        spec = box_head_spec(cfg)
        return Block4Head(spec, cfg.MODEL.SACT.EXECUTION), spec.out_channels(4)
