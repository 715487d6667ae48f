"""RoIAlign whose execution can be chosen."""

import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import convert_boxes_to_pooler_format
from detectron2.structures import Boxes
from torch import Tensor
from torchvision.ops import roi_align
from typing_extensions import override

from sact_det.network.plan import PlannedPooler


class RegionPooler(PlannedPooler):
    """Detectron2's ROIPooler for RoIAlign on one feature map: the same interface, the same regions.

    Boxes keep float32 where features have 16 bits; bfloat16 would move them by pixels.

    Args:
        align: what it computes.
    """

    def __init__(self, align: ROIAlign):
        super().__init__()
        self.output_size = align.output_size
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
        align = (self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned)
        return roi_align(wide, boxes.to(wide.dtype), *align).to(x.dtype)
