"""Detectron2's layers of pyramids and heads, which compute by plans."""

from typing import Any, Optional

import torch.nn.functional as F
from detectron2.layers import Conv2d
from detectron2.modeling.backbone.fpn import FPN
from detectron2.modeling.poolers import ROIPooler
from torch import Tensor, nn

from sact_det.detection.box_transform import compute_side_by_side
from sact_det.detection.pooler import PyramidPooler
from sact_det.execution import set_execution
from sact_det.network.plan import DensePlan, Planned, PlannedConvolution, PlannedProjection


def plan_layers(model: nn.Module, execution: str) -> None:
    """Makes the layers of a pyramid or of heads compute by plans, in place.

    These are convolutions with their ReLU, poolers by RoIAlign on a pyramid, and linear layers that read regions. They
    stay the same objects under the same names, with the same parameters: only their class changes, to one derived from
    it. So does that of transforms of boxes. Parts that have a plan already, such as stems and blocks, keep it.

    Args:
        model: a detector, or parts of one.
        execution: as of set_execution.

    Raises:
        ValueError: there is no such execution.
    """
    _plan(model)
    set_execution(model, execution)


class Convolution(PlannedConvolution, Conv2d):
    """Detectron2's Conv2d, which computes by a plan."""

    def forward(self, x: Tensor, coarser: Optional[Tensor] = None) -> Tensor:
        """[N, C, H, W] -> [N, D, H, W]; the execution chooses its memory format. `coarser`: as of Plan.merge."""
        plan = self.present_plan
        return plan.convolve(self, x) if coarser is None else plan.merge(self, x, coarser)

    def compute(self, x: Tensor) -> Tensor:
        """See PlannedConvolution.compute."""
        return Conv2d.forward(self, x)


class Projection(PlannedProjection):
    """A linear layer that reads regions and computes by a plan."""

    def forward(self, x: Tensor) -> Tensor:
        """[R, C, H, W] -> [R, D]."""
        return self.present_plan.project(self, x)


class Pyramid(FPN):
    """Detectron2's FPN, whose lateral convolutions add the level above."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """See FPN.forward: images [N, 3, H, W] -> level -> [N, D, h, w]."""
        features, merged = self.bottom_up(x), None
        levels: list[Tensor] = []
        for name, lateral, output in zip(reversed(self.in_features), self.lateral_convs, self.output_convs):
            merged = lateral(features[name], merged)
            if levels and self._fuse_type == "avg":
                merged = merged / 2
            levels.insert(0, output(merged))
        if self.top_block is not None:
            read = self.top_block.in_feature
            levels += self.top_block(features[read] if read in features else levels[self._out_features.index(read)])
        return dict(zip(self._out_features, levels, strict=True))


def _plan(module: nn.Module) -> None:
    if type(module) is FPN:
        module.__class__ = Pyramid
    compute_side_by_side(getattr(module, "box2box_transform", None))
    for child in module.children():
        if isinstance(child, Planned):
            continue
        if type(child) in (nn.Conv2d, Conv2d):
            _become(
                child, Convolution, norm=getattr(child, "norm", None), activation=getattr(child, "activation", None)
            )
        elif type(child) is ROIPooler and PyramidPooler.can_be(child):
            PyramidPooler.of(child)
        else:
            _plan(child)
    if isinstance(module, nn.Sequential):
        _join(module)


def _become(layer: Any, planned: type[Planned], **attributes: Any) -> None:
    layer.__class__, layer.plan = planned, DensePlan()
    for name, value in attributes.items():
        setattr(layer, name, value)


def _join(layers: nn.Sequential) -> None:
    """A ReLU behind a convolution becomes its own; a linear layer flattens what it reads itself."""
    for index, (layer, following) in enumerate(zip(layers, [*layers][1:])):
        if type(layer) is Convolution and layer.norm is layer.activation is None and type(following) is nn.ReLU:
            layer.activation, layers[index + 1] = F.relu, nn.Identity()
        elif type(layer) is nn.Flatten and type(following) is nn.Linear:
            _become(following, Projection)
            layers[index] = nn.Identity()
