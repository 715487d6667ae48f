"""A block whose executions are compared, and masks that shrink from unit to unit."""

import torch
from small_networks import images, randomize
from torch import Tensor

from sact_det.network.block import AdaptiveBlock
from sact_det.network.resnet_cifar import ResNetCifarSpec
from sact_det.network.resnet_v2 import ResNetV2Spec

UNITS = 5
CHANNELS = {"imagenet": 16, "cifar": 4}  # that block 2 reads


def block_of(family: str, halting: str = "sact", **fields: object) -> AdaptiveBlock:
    """Block 2 of a small network, so that its first unit has a stride."""
    spec_class = {"imagenet": ResNetV2Spec, "cifar": ResNetCifarSpec}[family]
    spec = spec_class(units=(1, UNITS), base_channels=4, halting=halting, **fields)
    return randomize(spec.build_block(2), inputs(4, 24, 24, CHANNELS[family]), halting_bias=-1.0)


def inputs(number: int, height: int, width: int, channels: int) -> Tensor:
    """Noise around a mean that differs from image to image and channel to channel."""
    return images(number, height, width, channels) + images(number, 1, 1, channels, seed=1)


def shrinking_masks(pattern: str, shape: tuple[int, int, int]) -> list[Tensor]:
    """One mask per unit but the first, each within the one before."""
    _, height, width = shape
    generator = torch.Generator().manual_seed(3)
    full = torch.ones(shape, dtype=torch.bool)
    if pattern == "full":
        return [full] * (UNITS - 1)
    if pattern == "empty":
        return [~full] * (UNITS - 1)
    if pattern == "random":
        chance = torch.rand(shape, generator=generator)
        return [chance < share for share in (0.7, 0.4, 0.2, 0.05)]
    if pattern == "corners":
        mask = ~full
        mask[:, :: max(height - 1, 1), :: max(width - 1, 1)] = True
        return [mask] * 3 + [mask & full.cumsum(0).eq(1)]
    if pattern == "border":
        mask = full.clone()
        mask[:, 1:-1, 1:-1] = False
        return [full, mask, mask, mask]
    if pattern == "single":
        mask = ~full
        mask[-1, height // 2, width // 2] = True
        return [mask] * (UNITS - 1)
    assert pattern == "one image"
    mask = ~full
    mask[0] = True
    return [full, mask, mask, ~full]


PATTERNS = ("full", "empty", "random", "corners", "border", "single", "one image")
