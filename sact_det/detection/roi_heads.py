"""The box head: RoIAlign, block 4 of the pre-activation ResNet under a halting rule, box predictor."""

from typing import Any, Optional, Sequence

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ROIAlign, ShapeSpec
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, Res5ROIHeads, select_foreground_proposals
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from sact_det.detection.pooler import RegionPooler, check_pooler
from sact_det.detection.rejection import RegionRejection, Verdict, with_objectness
from sact_det.engine.logged import log_after_backward
from sact_det.engine.spec import box_head_spec
from sact_det.execution import set_execution
from sact_det.network.spec import NetworkSpec
from sact_det.network.unit import SplitUnit
from sact_det.rule import ledger
from sact_det.rule.padding import Sizes, own_sizes, positions, strided_sizes, valid_mask
from sact_det.rule.ponder import PonderRecord


class Block4Head(nn.Module):
    """Block 4 and postnorm + ReLU on cropped regions.

    What it spends is entered as "box_head" (sact_det/rule/ledger.py), a record of regions. The paper's ponder penalty
    is on the extractor alone (section 4.2).

    Args:
        spec: of the network.
        execution: of the block.
        map_products: whether the first unit's 1x1 products are computed on the map and then pooled: its first norm and
            ReLU stand before pooling, all others behind.
    """

    def __init__(self, spec: NetworkSpec, execution: str = "auto", map_products: bool = False):
        super().__init__()
        self.block4 = spec.build_block(4)
        self.block4.reads_products = map_products
        set_execution(self.block4, execution)
        self.postnorm = spec.make_norm(spec.out_channels(4))

    def forward(
        self,
        regions: Tensor,
        by_image: Optional[Sequence[int]] = None,
        verdict: Optional[Verdict] = None,
        shortcut: Optional[Tensor] = None,
    ) -> Tensor:
        """[K, C, 14, 14] -> [K, 2C, 7, 7].

        Args:
            regions: as the pooler leaves them; of the first map of `products`, where the head has such.
            by_image: how many of them each image has, in order.
            verdict: on these regions and on others, which do not run; `by_image` is then not read.
            shortcut: the same regions of the second map of `products`, [K, 2C, 7, 7].
        """
        if verdict is not None:
            by_image = verdict.by_image
        x, ponder = self.block4(regions, shortcut=shortcut, regions=by_image)
        if verdict is not None:
            ponder = verdict.account(ponder)
        ledger.enter("box_head", PonderRecord({"block4": ponder}, torch.zeros_like(ponder.flops)), by_image)
        return F.relu(self.postnorm(x))

    def products(self, x: Tensor, sizes: Optional[Sizes]) -> list[Tensor]:
        """The maps that regions are pooled from, where the head has map products: conv1's and the shortcut's.

        They are 0 at padding. What they take is entered as a record of images without blocks.

        Args:
            x: features, [N, C, H, W].
            sizes: (height, width) of each image's own part of x, or None.

        Returns:
            [N, C / 2, H, W] and [N, 2C, H, W].
        """
        map_size, unit = (x.shape[2], x.shape[3]), self.block4.units[0]
        assert isinstance(unit, SplitUnit)
        sizes = own_sizes(sizes, map_size)
        number = positions(sizes, map_size, len(x), x.device)
        ledger.enter("box_head", PonderRecord({}, unit.product_flops(number, number)))
        return list(unit.products(x, valid_mask(sizes, map_size, x.device)))


@ROI_HEADS_REGISTRY.register()
class SACTRes5ROIHeads(Res5ROIHeads):
    """Detectron2's C4 box head with the pre-activation block 4 in place of its post-activation res5.

    With masks (MODEL.MASK_ON) the mask head reads what the box predictor reads the mean of: block 4's output,
    normalised and rectified. In training those of the foreground regions, which ran anyway. In evaluation, as in
    Detectron2, block 4 runs once more, on the boxes of the detections; their FLOPs join the part "box_head". It halts
    there by the same
    rule: a halted position keeps the mean of its units' outputs, weighted by the halting distribution, as everywhere.
    What is rejected before pooling becomes no detection, and so has no mask; detections are not judged again.

    Args:
        rejection: judges regions before they are pooled (MODEL.SACT.REJECTION); None: all run through block 4.
        shortcut_pooler: crops regions of the shortcut's product, and the pooler those of conv1's
            (MODEL.SACT.BOX_HEAD_MAP_PRODUCTS); None: block 4 makes its own products.
        **kwargs: of Res5ROIHeads.
    """

    res5: Block4Head

    @configurable
    def __init__(
        self,
        *,
        rejection: Optional[RegionRejection] = None,
        shortcut_pooler: Optional[RegionPooler] = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.rejection = rejection
        self.shortcut_pooler = shortcut_pooler

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Arguments of the constructor."""
        check_pooler(cfg)
        sact, spec = cfg.MODEL.SACT, box_head_spec(cfg)
        arguments = super().from_config(cfg, input_shape)
        (level,) = arguments["pooler"].level_poolers
        if isinstance(level, ROIAlign):
            arguments["pooler"] = RegionPooler(level, sact.BOX_HEAD_MAX_POOL)
            set_execution(arguments["pooler"], sact.EXECUTION)
        if sact.BOX_HEAD_MAP_PRODUCTS:
            arguments["shortcut_pooler"] = RegionPooler(level, sact.BOX_HEAD_MAX_POOL, spec.strides[3])
            set_execution(arguments["shortcut_pooler"], sact.EXECUTION)
        if sact.REJECTION:
            feature = input_shape[arguments["in_features"][0]]
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
        if self.rejection is None and self.shortcut_pooler is None:
            return super().forward(images, features, proposals, targets)
        if self.training:
            assert targets is not None
            marked = (proposals, targets) if self.rejection is None else with_objectness(proposals, targets)
            proposals = self.label_and_sample_proposals(*marked)
        maps = [features[name] for name in self.in_features]
        verdict = None if self.rejection is None else self.rejection(maps[0], proposals)
        maps = self._pooled_maps(maps, proposals)
        if verdict is not None:
            proposals = verdict.running(proposals)
        x = self._shared_roi_transform(maps, [own.proposal_boxes for own in proposals], verdict)
        scores, deltas = self.box_predictor(x.mean((2, 3)))
        predictions = scores if verdict is None else verdict.mixture(scores), deltas
        if not self.training:
            found, _ = self.box_predictor.inference(predictions, proposals)
            return self._with_masks(maps, found), {}
        losses = self.box_predictor.losses(predictions, proposals)
        if self.mask_on:
            foreground, chosen = select_foreground_proposals(proposals, self.num_classes)
            losses.update(self.mask_head(x[torch.cat(chosen)], foreground))
        if verdict is not None and len(verdict.rejected):
            log_after_backward({"sact/box_head_rejected": verdict.rejected.double().mean()}, losses["loss_cls"])
        return [], losses

    def forward_with_given_boxes(self, features: dict[str, Tensor], instances: list[Instances]) -> list[Instances]:
        """Detectron2's interface: adds "pred_masks" to instances with "pred_boxes" and "pred_classes"."""
        if not self.mask_on:
            return instances
        return self._with_masks(self._pooled_maps([features[name] for name in self.in_features], instances), instances)

    def _with_masks(self, maps: list[Tensor], instances: list[Instances]) -> list[Instances]:
        if not self.mask_on:
            return instances
        return self.mask_head(self._shared_roi_transform(maps, [own.pred_boxes for own in instances]), instances)

    def _pooled_maps(self, maps: list[Tensor], instances: list[Instances]) -> list[Tensor]:
        """The maps that regions are pooled from: the features, or block 4's products of them."""
        if self.shortcut_pooler is None:
            return maps
        stride = round(1 / self.shortcut_pooler.spatial_scale)
        return self.res5.products(maps[0], strided_sizes([own.image_size for own in instances], stride))

    def _shared_roi_transform(
        self, features: list[Tensor], boxes: list[Boxes], verdict: Optional[Verdict] = None
    ) -> Tensor:
        counts, judged = [len(own) for own in boxes], () if verdict is None else (verdict,)
        if self.shortcut_pooler is None:
            return self.res5(self.pooler(features, boxes), counts, *judged)
        x, shortcut = features
        return self.res5(self.pooler([x], boxes), counts, verdict, self.shortcut_pooler([shortcut], boxes))

    @classmethod
    def _build_res5_block(cls, cfg: CfgNode) -> tuple[Block4Head, int]:
        spec = box_head_spec(cfg)
        head = Block4Head(spec, cfg.MODEL.SACT.EXECUTION, cfg.MODEL.SACT.BOX_HEAD_MAP_PRODUCTS)
        return head, spec.out_channels(4)
