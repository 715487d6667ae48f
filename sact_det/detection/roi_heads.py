"""The box head: RoIAlign, block 4 of the pre-activation ResNet under a halting rule, box predictor."""

from typing import Any, Optional, Sequence

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ROIAlign, ShapeSpec
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, Res5ROIHeads
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from sact_det.base.errors import InputError
from sact_det.detection.pooler import RegionPooler, check_max_pool
from sact_det.detection.rejection import RegionRejection, Verdict, with_objectness
from sact_det.engine.logged import log_after_backward
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

    def __init__(self, spec: NetworkSpec, execution: str = "auto"):
        super().__init__()
        self.block4 = spec.build_block(4)
        set_execution(self.block4, execution)
        self.postnorm = spec.make_norm(spec.out_channels(4))

    def forward(
        self, regions: Tensor, by_image: Optional[Sequence[int]] = None, verdict: Optional[Verdict] = None
    ) -> Tensor:
        """[K, C, 14, 14] -> [K, 2C, 7, 7].

        Args:
            regions: as the pooler leaves them.
            by_image: how many of them each image has, in order.
            verdict: on these regions and on others, which do not run; `by_image` is then not read.
        """
        x, ponder = self.block4(regions)
        if verdict is not None:
            ponder, by_image = verdict.account(ponder), verdict.by_image
        ledger.enter("box_head", PonderRecord({"block4": ponder}, torch.zeros_like(ponder.flops)), by_image)
        return F.relu(self.postnorm(x))


@ROI_HEADS_REGISTRY.register()
class SACTRes5ROIHeads(Res5ROIHeads):
    """Detectron2's C4 box head with the pre-activation block 4 in place of its post-activation res5.

    Args:
        rejection: judges regions before they are pooled (MODEL.SACT.REJECTION); None: all run through block 4.
        **kwargs: of Res5ROIHeads.
    """

    res5: Block4Head

    @configurable
    def __init__(self, *, rejection: Optional[RegionRejection] = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.rejection = rejection

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Arguments of the constructor."""
        check_max_pool(cfg)
        arguments = super().from_config(cfg, input_shape)
        (level,) = arguments["pooler"].level_poolers
        if isinstance(level, ROIAlign):
            arguments["pooler"] = RegionPooler(level, cfg.MODEL.SACT.BOX_HEAD_MAX_POOL)
            set_execution(arguments["pooler"], cfg.MODEL.SACT.EXECUTION)
        if cfg.MODEL.SACT.REJECTION:
            spec, feature = box_head_spec(cfg), input_shape[arguments["in_features"][0]]
            least = max(spec.eps, cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST)
            arguments["rejection"] = RegionRejection(feature.channels, feature.stride, spec.make_halting_norm, least)
        return arguments

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: Optional[list[Instances]] = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Detectron2's interface."""
        if self.rejection is None:
            return super().forward(images, features, proposals, targets)
        if self.training:
            assert targets is not None
            proposals = self.label_and_sample_proposals(*with_objectness(proposals, targets))
        maps = [features[name] for name in self.in_features]
        verdict = self.rejection(maps[0], proposals)
        proposals = verdict.running(proposals)
        x = self._shared_roi_transform(maps, [own.proposal_boxes for own in proposals], verdict)
        scores, deltas = self.box_predictor(x.mean((2, 3)))
        predictions = verdict.mixture(scores), deltas
        if not self.training:
            found, _ = self.box_predictor.inference(predictions, proposals)
            return self.forward_with_given_boxes(features, found), {}
        losses = self.box_predictor.losses(predictions, proposals)
        if len(verdict.rejected):
            log_after_backward({"sact/box_head_rejected": verdict.rejected.double().mean()}, losses["loss_cls"])
        return [], losses

    def _shared_roi_transform(
        self, features: list[Tensor], boxes: list[Boxes], verdict: Optional[Verdict] = None
    ) -> Tensor:
        judged = () if verdict is None else (verdict,)
        return self.res5(self.pooler(features, boxes), [len(own) for own in boxes], *judged)

    @classmethod
    def _build_res5_block(cls, cfg: CfgNode) -> tuple[Block4Head, int]:
        if cfg.MODEL.MASK_ON:
            raise InputError("MODEL.MASK_ON: SACTRes5ROIHeads detects boxes only")
        spec = box_head_spec(cfg)
        return Block4Head(spec, cfg.MODEL.SACT.EXECUTION), spec.out_channels(4)
