"""Classifiers: stem, blocks, mean, logits; the ImageNet and the CIFAR family."""

from dataclasses import dataclass, replace
from typing import Optional

import torch
from torch import Tensor, nn

from sact_det.block import check_choice
from sact_det.convolution import init_conv
from sact_det.flops import conv_flops
from sact_det.network_spec import NetworkSpec
from sact_det.padding import check_batch
from sact_det.ponder import PonderRecord
from sact_det.precision import widened
from sact_det.resnet_cifar import ResNetCifarSpec
from sact_det.resnet_v2 import UNITS_BY_DEPTH, ResNetV2Spec

FAMILIES: dict[str, type[NetworkSpec]] = {spec.family: spec for spec in (ResNetV2Spec, ResNetCifarSpec)}
_CHANNELS = 3
DEFAULT_CLASSES = {"imagenet": 1001, "cifar": 10}


@dataclass(frozen=True)
class ClassifierOutput:
    """What a classifier says of N images.

    Attributes:
        logits: float32 [N, num_classes]; float64 of a model that computes in it.
        ponder: the PonderRecord of all blocks, root convolution and logits.
    """

    logits: Tensor
    ponder: PonderRecord


class Classifier(nn.Module):
    """Pre-activation ResNet classifier under a halting rule; fully convolutional, so any image size will do.

    Args:
        spec: of the network.
        num_classes: outputs of the logits.
        head_norm: norm of the last block and of postnorm; default: as `spec` says.
    """

    def __init__(self, spec: NetworkSpec, num_classes: int, head_norm: Optional[str] = None):
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"`num_classes` must be positive; got {num_classes}")
        self.spec = spec
        head_spec = replace(spec, norm=head_norm or spec.norm)
        self.stem = spec.build_stem()
        last = len(spec.units)
        self.block_names = [f"block{index}" for index in range(1, last + 1)]
        for index, name in enumerate(self.block_names, 1):
            self.add_module(name, (head_spec if index == last else spec).build_block(index))
        self.postnorm = head_spec.make_norm(spec.out_channels(last))
        self.logits = init_conv(nn.Conv2d(spec.out_channels(last), num_classes, 1))

    def set_execution(self, execution: str) -> None:
        """How stem and blocks compute (sact_det/block.py: EXECUTIONS); the results do not depend on it."""
        for name in ("stem", *self.block_names):
            self.get_submodule(name).set_execution(execution)  # type: ignore[operator]

    def forward(self, images: Tensor) -> ClassifierOutput:
        """images: float32 [N, 3, H, W], RGB in [-1, 1]; N, H and W at least 1. Raises ValueError for anything else."""
        return self.classify(images)

    def classify(self, images: Tensor) -> ClassifierOutput:
        """What `forward` does, for subclasses whose `forward` takes something else."""
        check_batch("images", images)
        if not torch.jit.is_tracing():  # which would take the sizes for constants
            _check_images(images)
        x = self.stem(images)
        size = (images.shape[2], images.shape[3])
        root_flops = self.stem.flops(None, size, images.shape[0], images.device)  # type: ignore[operator]
        blocks = {}
        for name in self.block_names:
            x, blocks[name] = self.get_submodule(name)(x)
        logits = self.logits(self.spec.pool(x, self.postnorm)).flatten(1)
        logits = widened(logits)
        return ClassifierOutput(logits, PonderRecord(blocks, root_flops + conv_flops(self.logits)))


def _check_images(images: Tensor) -> None:
    if images.shape[1] != _CHANNELS or 0 in images.shape or not images.is_floating_point():
        raise ValueError(
            f"`images` must be floats [N, {_CHANNELS}, H, W] with N, H and W at least 1; got "
            f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
        )


def build_classifier(
    units: Optional[tuple[int, ...]] = None,
    depth: Optional[int] = None,
    halting: str = "sact",
    num_classes: Optional[int] = None,
    base_channels: Optional[int] = None,
    tile: int = 1,
    family: str = "imagenet",
) -> Classifier:
    """A classifier with fresh weights, in training mode.

    Args:
        units: residual units per block, e.g. (3, 4, 23, 3).
        depth: instead of `units`: 50, 101, 152 or 200 ("imagenet"), 6n + 2 ("cifar": n units in each of three blocks).
            Default: 101 and 32.
        halting: "none", "act" or "sact".
        num_classes: default 1001 ("imagenet"; the original's models have 0 for background), 10 ("cifar").
        base_channels: width of block 1, in the bottleneck for "imagenet". Default: 64 and 16.
        tile: SACT shares halting scores in tile x tile cells.
        family: "imagenet" (sact_det/resnet_v2.py) or "cifar" (sact_det/resnet_cifar.py).

    Raises:
        ValueError: an argument is out of range, or both `units` and `depth` are given.
    """
    check_choice("family", family, tuple(FAMILIES))
    if units is not None and depth is not None:
        raise ValueError("give `units` or `depth`, not both")
    fields = {"base_channels": base_channels, "units": units if depth is None else units_of_depth(family, depth)}
    given = {name: value for name, value in fields.items() if value is not None}
    spec = FAMILIES[family](halting=halting, tile=tile, **given)  # type: ignore[arg-type]
    return Classifier(spec, DEFAULT_CLASSES[family] if num_classes is None else num_classes)


def units_of_depth(family: str, depth: int) -> tuple[int, ...]:
    """Residual units per block of the network with so many layers. Raises ValueError if there is none."""
    if family == "cifar":
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"`depth` must be 6n + 2 (8, 14, 20, 26, 32, ...); got {depth}")
        return ((depth - 2) // 6,) * 3
    if depth not in UNITS_BY_DEPTH:
        raise ValueError(f"`depth` must be one of {', '.join(map(str, UNITS_BY_DEPTH))}; got {depth}")
    return UNITS_BY_DEPTH[depth]
