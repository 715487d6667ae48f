"""What 100% of the FLOPs is: a plain network on the same image."""

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Optional, Sequence

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
        flops = 0 if self.num_classes is None else logits
        for stride, at_position in by_stride.items():
            rows, columns = strided_size(size, stride)
            flops += at_position * rows * columns
        return flops


@lru_cache(maxsize=64)
def _count(spec: NetworkSpec, num_classes: int) -> tuple[dict[int, int], int]:
    """Of all convolutions whose output has a stride, FLOPs at one position, by that stride; those of the logits."""
    with torch.device("meta"):
        network = ClassifierNetwork(spec, num_classes).eval()
    by_stride: Counter[int] = Counter()

    def count(conv: nn.Conv2d, inputs: Any, output: Tensor) -> None:
        by_stride[_SIDE // output.shape[2]] += conv_flops(conv)

    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module is not network.logits:
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.empty(1, 3, _SIDE, _SIDE, device="meta"))
    return dict(by_stride), conv_flops(network.logits)
