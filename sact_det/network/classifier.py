"""The classifier: stem, blocks, mean, logits; of any family."""

from dataclasses import dataclass, replace
from typing import Any, Optional

import torch
from torch import Tensor, nn

from sact_det.base.precision import widened
from sact_det.network.allowance import blocks_within
from sact_det.network.convolution import init_conv
from sact_det.network.resnet_cifar import ResNetCifarSpec
from sact_det.network.resnet_v2 import ResNetV2Spec
from sact_det.network.spec import NetworkSpec
from sact_det.rule.flops import conv_flops
from sact_det.rule.padding import check_batch
from sact_det.rule.ponder import PonderRecord

FAMILIES: dict[str, type[NetworkSpec]] = {spec.family: spec for spec in (ResNetV2Spec, ResNetCifarSpec)}
_CHANNELS = 3


@dataclass(frozen=True)
class ClassifierOutput:
    """What a classifier says of N images.

    Attributes:
        logits: float32 [N, num_classes]; float64 of a model that computes in it.
        ponder: the PonderRecord of all blocks, root convolution and logits.
    """

    logits: Tensor
    ponder: PonderRecord


class ClassifierNetwork(nn.Module):
    """Pre-activation ResNet classifier under a halting rule; fully convolutional, so any image size will do.

    Args:
        spec: of the network.
        num_classes: outputs of the logits.
        head_norm: norm of the last block and of postnorm; default: as `spec` says.

    Attributes:
        flops_limit: in evaluation no image takes more than this share of the plain network's FLOPs (allowance.py);
            None: there is no limit.
    """

    flops_limit: Optional[float] = None

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
        dense_flops = conv_flops(self.logits) + self.stem.flops(  # type: ignore[operator]
            None, size, images.shape[0], images.device
        )
        parts: dict[str, Any] = {name: self.get_submodule(name) for name in self.block_names}
        share = None if self.training else self.flops_limit
        run = blocks_within(share, list(parts.values()), dense_flops, (x.shape[2], x.shape[3]))
        blocks = {}
        for name, block in parts.items():
            x, blocks[name] = run(block, x, None)
        logits = self.logits(self.spec.pool(x, self.postnorm)).flatten(1)
        logits = widened(logits)
        return ClassifierOutput(logits, PonderRecord(blocks, dense_flops))


def _check_images(images: Tensor) -> None:
    if images.shape[1] != _CHANNELS or 0 in images.shape or not images.is_floating_point():
        raise ValueError(
            f"`images` must be floats [N, {_CHANNELS}, H, W] with N, H and W at least 1; got "
            f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
        )
