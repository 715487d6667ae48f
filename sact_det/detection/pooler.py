"""RoIAlign whose execution can be chosen."""

from typing import Any, Sequence

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels, convert_boxes_to_pooler_format
from detectron2.structures import Boxes
from torch import Tensor, nn
from torchvision.ops import roi_align
from typing_extensions import override

from sact_det.base.errors import InputError
from sact_det.network.plan import DensePlan, Planned, PlannedPooler


def check_pooler(cfg: CfgNode) -> None:
    """Raises InputError if the box head's pooler is none for MODEL.SACT.BOX_HEAD_MAX_POOL or BOX_HEAD_MAP_PRODUCTS."""
    head = cfg.MODEL.ROI_BOX_HEAD
    for key in ("BOX_HEAD_MAX_POOL", "BOX_HEAD_MAP_PRODUCTS"):
        if cfg.MODEL.SACT[key] and head.POOLER_TYPE not in ("ROIAlign", "ROIAlignV2"):
            raise InputError(
                f"MODEL.SACT.{key} True needs MODEL.ROI_BOX_HEAD.POOLER_TYPE ROIAlign or ROIAlignV2; "
                f"got {head.POOLER_TYPE!r}"
            )
    if cfg.MODEL.SACT.BOX_HEAD_MAX_POOL and head.POOLER_RESOLUTION < 2:
        raise InputError(
            "MODEL.SACT.BOX_HEAD_MAX_POOL True needs MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION 2 or more; "
            f"got {head.POOLER_RESOLUTION}"
        )


class RegionPooler(PlannedPooler):
    """Detectron2's ROIPooler for RoIAlign on one feature map: the same interface, the same regions.

    Boxes keep float32 where features have 16 bits; bfloat16 would move them by pixels.

    Args:
        align: what it computes.
        max_pool: whether 2x2 max pooling of stride 2 follows.
        step: every step-th bin along either axis is pooled.

    Raises:
        ValueError: max pooling would leave nothing, or has a step.
    """

    def __init__(self, align: ROIAlign, max_pool: bool = False, step: int = 1):
        super().__init__()
        if max_pool and (min(align.output_size) < 2 or step != 1):
            raise ValueError(f"`max_pool` needs at least 2x2 bins and `step` 1; got {align.output_size} and {step}")
        self.bins, self.max_pool, self.step = align.output_size, max_pool, step
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
        return F.max_pool2d(regions, 2) if self.max_pool else regions[..., :: self.step, :: self.step]


class PyramidPooler(Planned, ROIPooler):
    """Detectron2's ROIPooler for RoIAlign on the levels of a pyramid, which computes by a plan; `of` makes one."""

    level_poolers: Sequence[RegionPooler]  # a ModuleList

    @staticmethod
    def can_be(pooler: Any) -> bool:
        """Whether every level's pooler is ROIAlign."""
        return all(isinstance(level, ROIAlign) for level in pooler.level_poolers)

    @classmethod
    def of(cls, pooler: Any) -> "PyramidPooler":
        """Changes a pooler of Detectron2's, which `can_be` one of these, in place."""
        pooler.__class__ = cls
        pooler.plan = DensePlan()
        pooler.level_poolers = nn.ModuleList(map(RegionPooler, pooler.level_poolers))
        return pooler

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """See ROIPooler.forward: x are maps [N, C, H, W]; the regions of all images, [R, C, *output_size], come out."""
        if not box_lists:
            return x[0].new_zeros(0, x[0].shape[1], *self.level_poolers[0].output_size)
        boxes = convert_boxes_to_pooler_format(box_lists)
        limits = self.min_level, self.max_level, self.canonical_box_size, self.canonical_level
        levels = assign_boxes_to_levels(box_lists, *limits)
        return self.present_plan.pool_levels(self.level_poolers, x, boxes, levels)
