"""The ImageNet classifier: stem, four blocks, mean, logits."""

from dataclasses import dataclass
from typing import Optional

import torch.nn.functional as F
from torch import Tensor, nn

from sact_det.flops import conv_flops
from sact_det.ponder import PonderRecord
from sact_det.resnet_v2 import UNITS_BY_DEPTH, ResNetV2Spec, Stem, init_conv


@dataclass(frozen=True)
class ClassifierOutput:
    """logits: float32 [N, num_classes]; ponder: the PonderRecord of all blocks, root convolution and logits."""

    logits: Tensor
    ponder: PonderRecord


class ResNetV2Classifier(nn.Module):
    """Pre-activation ResNet classifier under a halting rule; fully convolutional, so any image size will do."""

    def __init__(self, spec: ResNetV2Spec, num_classes: int):
        super().__init__()
        self.spec = spec
        self.stem = Stem()
        self.block_names = [f"block{i}" for i in range(1, len(spec.units) + 1)]
        for index, name in enumerate(self.block_names, 1):
            self.add_module(name, spec.build_block(index))
        channels = spec.out_channels(len(spec.units))
        self.postnorm = spec.make_norm(channels)
        self.logits = init_conv(nn.Conv2d(channels, num_classes, 1))

    def set_execution(self, execution: str) -> None:
        """How every block computes (sact_det/block.py: EXECUTIONS); the results do not depend on it."""
        for name in self.block_names:
            self.get_submodule(name).set_execution(execution)  # type: ignore[operator]

    def forward(self, images: Tensor) -> ClassifierOutput:
        """images: float32 [N, 3, H, W], RGB in [-1, 1]; H and W at least 1."""
        x = self.stem(images)
        root_flops = self.stem.flops(None, (images.shape[2], images.shape[3]), len(images), images.device)
        blocks = {}
        for name in self.block_names:
            x, blocks[name] = self.get_submodule(name)(x)
        pooled = F.relu(self.postnorm(x)).mean((2, 3), keepdim=True)
        logits = self.logits(pooled).flatten(1).float()
        return ClassifierOutput(logits, PonderRecord(blocks, root_flops + conv_flops(self.logits)))


def build_classifier(
    units: Optional[tuple[int, ...]] = None,
    depth: Optional[int] = None,
    halting: str = "sact",
    num_classes: int = 1001,
    base_channels: int = 64,
    tile: int = 1,
) -> ResNetV2Classifier:
    """A classifier with fresh weights, in training mode.

    Args:
        units: residual units per block, e.g. (3, 4, 23, 3); or give `depth`: 50, 101, 152 or 200. Default: depth 101.
        halting: "none", "act" or "sact".
        num_classes: 1001 for the original's ImageNet models (0 is background).
        base_channels: bottleneck width of block 1.
        tile: SACT shares halting scores in tile x tile cells.

    Raises:
        ValueError: an argument is out of range, or both `units` and `depth` are given.
    """
    if units is not None and depth is not None:
        raise ValueError("give `units` or `depth`, not both")
    if units is None:
        depth = 101 if depth is None else depth
        if depth not in UNITS_BY_DEPTH:
            raise ValueError(f"`depth` must be one of {', '.join(map(str, UNITS_BY_DEPTH))}; got {depth}")
        units = UNITS_BY_DEPTH[depth]
    spec = ResNetV2Spec(units=tuple(units), base_channels=base_channels, halting=halting, tile=tile)
    return ResNetV2Classifier(spec, num_classes)
