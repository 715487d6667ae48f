"""RoIAlign whose execution can be chosen."""

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import convert_boxes_to_pooler_format
from detectron2.structures import Boxes
from torch import Tensor
from torchvision.ops import roi_align
from typing_extensions import override

from sact_det.base.errors import InputError
from sact_det.network.plan import PlannedPooler


def check_max_pool(cfg: CfgNode) -> None:
    """Raises InputError if MODEL.SACT.BOX_HEAD_MAX_POOL has nothing that it can halve."""
    head, key = cfg.MODEL.ROI_BOX_HEAD, "MODEL.SACT.BOX_HEAD_MAX_POOL True needs MODEL.ROI_BOX_HEAD"
    if not cfg.MODEL.SACT.BOX_HEAD_MAX_POOL:
        return
    if head.POOLER_TYPE not in ("ROIAlign", "ROIAlignV2"):
        raise InputError(f"{key}.POOLER_TYPE ROIAlign or ROIAlignV2; got {head.POOLER_TYPE!r}")
    if head.POOLER_RESOLUTION < 2:
        raise InputError(f"{key}.POOLER_RESOLUTION 2 or more; got {head.POOLER_RESOLUTION}")


class RegionPooler(PlannedPooler):
    """Detectron2's ROIPooler for RoIAlign on one feature map: the same interface, the same regions.

    Boxes keep float32 where features have 16 bits; bfloat16 would move them by pixels.

    Args:
        align: what it computes.
        max_pool: whether 2x2 max pooling of stride 2 follows.

    Raises:
        ValueError: max pooling would leave nothing.
    """

    def __init__(self, align: ROIAlign, max_pool: bool = False):
        super().__init__()
        if max_pool and min(align.output_size) < 2:
            raise ValueError(f"`max_pool` needs at least 2x2 bins; got {align.output_size}")
        self.bins, self.max_pool = align.output_size, max_pool
        self.spatial_scale, self.sampling_ratio = align.spatial_scale, align.sampling_ratio
        self.aligned = align.aligned

    def forward(self, features: list[Tensor], boxes: list[Boxes]) -> Tensor:
        """Crops regions, those of all images in one list.

        Args:
            features: one map, [N, C, H, W].
            boxes: of each image, in pixels.

        Returns:
            [R, C, *output_size]; the execution chooses its memory format.
        """
        (x,) = features
        return self.present_plan.pool(self, x, convert_boxes_to_pooler_format(boxes))

    @override
    def compute(self, x: Tensor, boxes: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        align = (self.bins, self.spatial_scale, self.sampling_ratio, self.aligned)
        regions = roi_align(wide, boxes.to(wide.dtype), *align).to(x.dtype)
        return F.max_pool2d(regions, 2) if self.max_pool else regions
