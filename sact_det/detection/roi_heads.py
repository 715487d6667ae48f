"""The box head: RoIAlign, block 4 of the pre-activation ResNet under a halting rule, box predictor."""

from dataclasses import replace
from typing import Optional

import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, Res5ROIHeads
from torch import Tensor, nn

from sact_det.base.errors import InputError
from sact_det.engine.spec import spec_from_config
from sact_det.network.spec import NetworkSpec
from sact_det.rule.ponder import BlockPonder


class Block4Head(nn.Module):
    """Block 4 and postnorm + ReLU on cropped regions.

    Attributes:
        ponder: BlockPonder of the last call, one "image" per region, without gradient. The ponder penalty is on the
            extractor alone (section 4.2), so this one never enters a loss.
    """

    def __init__(self, spec: NetworkSpec, execution: str = "dense"):
        super().__init__()
        self.block4 = spec.build_block(4)
        self.block4.set_execution(execution)
        self.postnorm = spec.make_norm(spec.out_channels(4))
        self.ponder: Optional[BlockPonder] = None

    def forward(self, regions: Tensor) -> Tensor:
        """regions: [R, C, 14, 14] -> [R, 2C, 7, 7]."""
        x, ponder = self.block4(regions)
        self.ponder = ponder.detached()
        return F.relu(self.postnorm(x))


@ROI_HEADS_REGISTRY.register()
class SACTRes5ROIHeads(Res5ROIHeads):
    """Detectron2's C4 box head with the pre-activation block 4 in place of its post-activation res5."""

    res5: Block4Head

    @classmethod
    def _build_res5_block(cls, cfg: CfgNode) -> tuple[Block4Head, int]:
        if cfg.MODEL.MASK_ON:
            raise InputError("MODEL.MASK_ON: SACTRes5ROIHeads detects boxes only")
        sact, spec = cfg.MODEL.SACT, spec_from_config(cfg)
        norms = {"norm": sact.BOX_HEAD_NORM, "halting_norm": sact.BOX_HEAD_HALTING_NORM}
        spec = replace(spec, **{name: norm for name, norm in norms.items() if norm})
        return Block4Head(spec, sact.EXECUTION), spec.out_channels(4)
