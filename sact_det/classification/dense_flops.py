"""What a plain network costs at a size: the 100% of a classifier's FLOPs."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from sact_det.classification.model import Classifier
from sact_det.network.spec import NetworkSpec
from sact_det.rule.flops import conv_flops


@lru_cache(maxsize=256)
def dense_flops(spec: NetworkSpec, units: tuple[int, ...], num_classes: int, size: tuple[int, int]) -> int:
    """FLOPs of a plain classifier on one image, by the paper's rule (sact_det/rule/flops.py).

    Counted at the convolutions of a network without memory, as they run: independent of how blocks account for
    themselves.

    Args:
        spec: of a network whose family and width the plain one has.
        units: residual units per block of the plain one.
        num_classes: outputs of the logits.
        size: (height, width) of the image, in pixels.
    """
    with torch.device("meta"):
        network = Classifier(replace(spec, units=units, halting="none", tile=1, norm="FrozenBN"), num_classes).eval()
    total = 0

    def count(conv: nn.Conv2d, inputs: Any, output: Tensor) -> None:
        nonlocal total
        total += conv_flops(conv) * output.shape[2] * output.shape[3]

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.empty(1, 3, *size, device="meta"))
    return total
