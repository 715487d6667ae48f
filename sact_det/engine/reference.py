"""What 100% of the FLOPs is: a plain network on the same image."""

import math
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Callable, Iterable, Mapping, Optional, Sequence

import torch
from torch import Tensor, nn
from yacs.config import CfgNode as CN

from sact_det.engine.spec import spec_from_config
from sact_det.network.classifier import ClassifierNetwork
from sact_det.network.resnet_v2 import ResNetV2Spec
from sact_det.network.spec import NetworkSpec
from sact_det.rule.flops import conv_flops
from sact_det.rule.padding import strided_size

_SIDE = 256  # of the image that is counted: every stride divides it, and behind stride s a side n is ceil(n / s)


@dataclass(frozen=True)
class Reference:
    """A plain network, counted by the paper's rule (sact_det/rule/flops.py).

    Counted at the convolutions of a network without memory, as they run: independent of how blocks account for
    themselves. `of` and `from_config` make one.

    Attributes:
        spec: of stem and blocks.
        num_classes: of a whole classifier, whose logits count; None: a feature extractor.
    """

    spec: NetworkSpec
    num_classes: Optional[int] = None

    @classmethod
    def of(cls, spec: NetworkSpec, units: Sequence[int], num_classes: Optional[int] = None) -> "Reference":
        """The plain network of a family and width, that of `spec`, with so many residual units per block."""
        plain = replace(spec, units=tuple(units), halting="none", tile=1, norm="FrozenBN")
        return cls(plain, num_classes)

    @classmethod
    def from_config(
        cls, cfg: CN, family: type[NetworkSpec] = ResNetV2Spec, num_classes: Optional[int] = None
    ) -> "Reference":
        """That of MODEL.SACT.REFERENCE_UNITS. Raises ValueError, naming the argument, if a value is out of range."""
        return cls.of(spec_from_config(cfg, family), cfg.MODEL.SACT.REFERENCE_UNITS, num_classes)

    def flops(self, size: tuple[int, int]) -> int:
        """FLOPs of one image of (height, width) pixels."""
        by_stride, logits = _count(self.spec, self.num_classes or 1)
        return flops_at(size, by_stride) + (0 if self.num_classes is None else logits)


def count_by_stride(layers: Iterable[nn.Module], run: Callable[[Tensor], Any]) -> dict[int, int]:
    """FLOPs of convolutions at one position of their output, summed by the stride of that output.

    Args:
        layers: those to count; what is no convolution is passed over.
        run: takes a batch of one image on the meta device.
    """
    by_stride: Counter[int] = Counter()

    def count(conv: nn.Conv2d, inputs: Any, output: Tensor) -> None:
        by_stride[_SIDE // output.shape[2]] += conv_flops(conv)

    hooks = [layer.register_forward_hook(count) for layer in layers if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        run(torch.empty(1, 3, _SIDE, _SIDE, device="meta"))
    for hook in hooks:
        hook.remove()
    return dict(by_stride)


def flops_at(size: tuple[int, int], by_stride: Mapping[int, int]) -> int:
    """FLOPs of one image of (height, width) pixels, of those at one position by stride."""
    return sum(flops * math.prod(strided_size(size, stride)) for stride, flops in by_stride.items())


@lru_cache(maxsize=64)
def _count(spec: NetworkSpec, num_classes: int) -> tuple[dict[int, int], int]:
    """Stem and blocks, as of `count_by_stride`; FLOPs of the logits."""
    with torch.device("meta"):
        network = ClassifierNetwork(spec, num_classes).eval()
    layers = [layer for layer in network.modules() if layer is not network.logits]
    return count_by_stride(layers, network), conv_flops(network.logits)
