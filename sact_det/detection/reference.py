"""What a whole plain detector computes on an image: 100% of all its parts together."""

import copy
import math
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Sequence

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn

from sact_det.detection.backbone import SACTBackbone
from sact_det.detection.rpn_head import SACTRPNHead
from sact_det.engine.reference import count_by_stride, flops_at
from sact_det.execution import set_execution
from sact_det.network.block import AdaptiveBlock
from sact_det.network.halting_rule import HALTING_RULES
from sact_det.rule.flops import MULTIPLY_ADD, conv_flops


@dataclass(frozen=True)
class DetectorReference:
    """FLOPs of a plain detector by the paper's rule, of linear layers too; `of` and `from_config` make one.

    Its block 4 evaluates whole units on regions, even if the adaptive detector makes products on the map (Block4Head).

    Attributes:
        by_stride: of what runs on images, part -> stride -> FLOPs at one position of the maps of that stride; parts are
            "backbone" (stem and blocks), "neck" and, if there are such, "proposal_generator", "head", "sem_seg_head".
        by_region: part -> FLOPs of one region: "box_head", "box_predictor", "mask_head" and "keypoint_head" where there
            are such.
        shares_block_4: whether masks are made of what block 4 leaves, which then runs on detections, too.
    """

    by_stride: Mapping[str, Mapping[int, int]]
    by_region: Mapping[str, int]
    shares_block_4: bool = False

    @classmethod
    def of(cls, model: Any) -> "DetectorReference":
        """That of the plain detector with a model's own units.

        Args:
            model: on any device, adaptive or plain: Detectron2's GeneralizedRCNN with StandardROIHeads,
                CascadeROIHeads or Res5ROIHeads, PanopticFPN or RetinaNet, over a SACTBackbone or a pyramid of its
                features.
        """
        model = copy.deepcopy(model).eval()
        set_execution(model, "dense")
        model.to("meta")
        for part in model.modules():
            if isinstance(part, AdaptiveBlock):
                part.rule, part.reads_products = HALTING_RULES["none"], False
            elif isinstance(part, SACTRPNHead):
                part.blocks = None
        blocks = [part for part in model.backbone.modules() if isinstance(part, SACTBackbone)]
        own = {layer for part in blocks for layer in part.modules()}
        parts = {"backbone": own, "neck": set(model.backbone.modules()) - own}
        heads = {name: part for name, part in model.named_children() if name in _IMAGE_HEADS}
        parts.update({name: set(part.modules()) for name, part in heads.items()})

        def run(images: Tensor) -> None:
            features = model.backbone(images)
            for name in heads:
                _IMAGE_HEADS[name](model, features)

        by_stride = {name: count_by_stride(layers, run) for name, layers in parts.items()}
        if not hasattr(model, "roi_heads"):
            return cls(by_stride, {})
        shares = hasattr(model.roi_heads, "res5") and model.roi_heads.mask_on
        return cls(by_stride, _by_region(model), shares)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "DetectorReference":
        """That of a config's detector with the blocks of MODEL.SACT.REFERENCE_UNITS."""
        cfg = cfg.clone()
        cfg.defrost()
        sact, units = cfg.MODEL.SACT, tuple(cfg.MODEL.SACT.REFERENCE_UNITS)
        sact.HALTING, sact.BOX_HEAD_HALTING, sact.TILE = "none", "", 1
        sact.UNITS = (*units, *sact.UNITS[len(units) :])
        sact.REJECTION, sact.BOX_HEAD_MAP_PRODUCTS = False, False
        sact.RPN_POSITIONS = "all"
        sact.EXECUTION, cfg.MODEL.DEVICE = "dense", "cpu"
        with torch.random.fork_rng(devices=[]):
            return cls.of(build_model(cfg))

    def flops(self, size: tuple[int, int], regions: int = 0, detections: int = 0) -> dict[str, int]:
        """FLOPs of one image by part, and their sum, "total".

        Args:
            size: (height, width) of the image in pixels; maps count where they show it, not in their padding.
            regions: that the box head looks at: proposals and, where it `shares_block_4`, detections.
            detections: that mask and keypoint heads look at.
        """
        flops = {part: flops_at(size, by_stride) for part, by_stride in self.by_stride.items()}
        numbers = {"mask_head": detections, "keypoint_head": detections}
        numbers["box_predictor"] = regions - (detections if self.shares_block_4 else 0)
        for part, of_one in self.by_region.items():
            flops[part] = of_one * numbers.get(part, regions)
        return {**flops, "total": sum(flops.values())}

    def flops_with(
        self, spent: Mapping[str, int], size: tuple[int, int], regions: int = 0, detections: int = 0
    ) -> dict[str, int]:
        """FLOPs of a detector some of whose parts are adaptive, by part, and their sum, "total".

        Args:
            spent: part -> what the adaptive parts took; a "total" among them, as in an output's "flops", is left out.
            size, regions, detections: as of `flops`.
        """
        flops = {**self.flops(size, regions, detections), **spent}
        del flops["total"]
        return {**flops, "total": sum(flops.values())}


_IMAGE_HEADS: dict[str, Callable[[Any, dict[str, Tensor]], Any]] = {
    "proposal_generator": lambda model, features: model.proposal_generator.rpn_head(
        [features[name] for name in model.proposal_generator.in_features]
    ),
    "head": lambda model, features: model.head([features[name] for name in model.head_in_features]),
    "sem_seg_head": lambda model, features: model.sem_seg_head.layers(features),
}


def _by_region(model: Any) -> dict[str, int]:
    heads = model.roi_heads
    channels = model.backbone.output_shape()[heads.in_features[0]].channels
    is_c4 = hasattr(heads, "res5")

    def crop(pooler: Any) -> Tensor:
        return torch.empty(1, channels, *pooler.output_size, device="meta")

    x, found = crop(heads.pooler if is_c4 else heads.box_pooler), {"box_head": 0, "box_predictor": 0}
    for body, predictor in zip(*map(_stages, (heads.res5 if is_c4 else heads.box_head, heads.box_predictor))):
        flops, y = _counted(body, body, x)
        found["box_head"] += flops
        found["box_predictor"] += _counted(predictor, predictor, y.mean((2, 3)) if is_c4 else y)[0]
    for name in ("mask", "keypoint"):
        if getattr(heads, f"{name}_on", False):
            head, x = getattr(heads, f"{name}_head"), y if is_c4 else crop(getattr(heads, f"{name}_pooler"))
            found[f"{name}_head"] = _counted(head, head.layers, x)[0]
    return found


def _stages(head: nn.Module) -> Sequence[nn.Module]:
    """Those of a cascade, each of which looks at every region; any other head is one."""
    return list(head) if isinstance(head, nn.ModuleList) else [head]


def _counted(part: nn.Module, run: Callable[[Tensor], Any], x: Tensor) -> tuple[int, Any]:
    """FLOPs of all layers of a part as it runs on one region, and what comes out."""
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            total += conv_flops(layer) * math.prod(output.shape[2:])
        elif isinstance(layer, nn.ConvTranspose2d):
            total += MULTIPLY_ADD * layer.weight.numel() * math.prod(inputs[0].shape[2:])
        elif isinstance(layer, nn.Linear):
            total += MULTIPLY_ADD * layer.weight.numel()

    hooks = [layer.register_forward_hook(count) for layer in part.modules()]
    with torch.no_grad():
        y = run(x)
    for hook in hooks:
        hook.remove()
    return total, y
