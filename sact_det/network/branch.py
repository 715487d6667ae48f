"""Halting branches: what scores the output of a residual unit, for ACT and for SACT.

Shape shorthand in this module:
    N: images; C: channels; H, W: feature map, padding included.
"""

from typing import Callable, Iterable

import torch
from torch import Tensor, nn
from typing_extensions import override

from sact_det.base.precision import exact_float32, widened
from sact_det.network.convolution import init_conv
from sact_det.network.norm import MovingBatchNorm2d, Norm, learns_from_batch
from sact_det.network.unit import Count, HaltingBranch, ResidualUnit
from sact_det.rule.flops import conv_flops
from sact_det.rule.padding import Mask

Activation = Callable[[Tensor], Tensor]

HALTING_BIAS = -3.0


def linear(x: Tensor) -> Tensor:
    """No activation."""
    return x


def mean_of_images(x: Tensor, valid: Mask) -> Tensor:
    """The mean over each image's own positions, where `valid`: [N, C, H, W] -> [N, C, 1, 1], of score_type both."""
    if valid is None:
        return x.mean((2, 3), keepdim=True)
    return (x * valid).sum((2, 3), keepdim=True) / valid.sum((2, 3), keepdim=True)


class SpatialHalting(HaltingBranch):
    """H^l of SACT: sigma(conv3x3(BN(x)) + conv1x1(BN(mean(x))) + b + shift) at every position (eq. 14).

    Both norms are the original program's; the equation leaves them out, and `shift`, which is ScoringBranch's `added`.
    Computed in score_type.

    Args:
        channels: C.
        norm: makes a norm of so many channels (sact_det/network/norm.py).
        activate: follows both norms; the original's ImageNet networks have none here, its CIFAR network has one.
    """

    def __init__(self, channels: int, norm: Norm, activate: Activation = linear):
        super().__init__()
        self.activate = activate
        self.local_norm = norm(channels)
        self.local_conv = init_conv(nn.Conv2d(channels, 1, 3, padding=1), HALTING_BIAS)
        self.global_norm = norm(channels)
        self.global_conv = init_conv(nn.Conv2d(channels, 1, 1, bias=False))

    @override
    def forward(self, x: Tensor, valid: Mask = None) -> Tensor:
        """x: [N, C, H, W] -> h^l, [N, H, W] in (0, 1)."""
        with exact_float32(x.device):
            x = widened(x)
            local = self.activate(self.local_norm(x, valid))
            if valid is not None:
                local = local * valid
            image = self._global_logits(mean_of_images(x, valid))
            # Not `offset`: the convolution has added the bias already, and another order would round otherwise.
            return torch.sigmoid(self.local_conv(local)[:, 0] + image[:, None, None])

    def offset(self, pooled: Tensor) -> Tensor:
        """What is the same at every position of an image: the bias, the shift and the part of its mean.

        Args:
            pooled: mean_of_images, [N, C, 1, 1].

        Returns:
            [N], to be added to the local convolution without its bias.
        """
        assert self.local_conv.bias is not None
        return self.local_conv.bias + self._global_logits(pooled)

    def _global_logits(self, pooled: Tensor) -> Tensor:
        return self.global_conv(self.activate(self.global_norm(pooled))).flatten() + self.added()

    def observe(self, count: Tensor, total: Tensor, squares: Tensor) -> None:
        """Teaches the local norm what a forward pass would: for runs that have sums in the place of a feature map.

        Args: as of MovingBatchNorm2d.observe.
        """
        if isinstance(self.local_norm, MovingBatchNorm2d):
            self.local_norm.observe(count, total, squares)

    @override
    def flops(self, evaluated: Count, image_active: Count) -> Count:
        """The local convolution where evaluated, and the global one once per image, active or not."""
        return conv_flops(self.local_conv) * evaluated + conv_flops(self.global_conv)


class ImageHalting(HaltingBranch):
    """H^l of ACT: sigma(conv1x1(BN(mean(x))) + b + shift), one score per image (eq. 6). Computed in score_type.

    Args: as of SpatialHalting.
    """

    def __init__(self, channels: int, norm: Norm, activate: Activation = linear):
        super().__init__()
        self.activate = activate
        self.global_norm = norm(channels)
        self.global_conv = init_conv(nn.Conv2d(channels, 1, 1), HALTING_BIAS)

    @override
    def forward(self, x: Tensor, valid: Mask = None) -> Tensor:
        """x: [N, C, H, W] -> h^l, [N, 1, 1] in (0, 1)."""
        with exact_float32(x.device):
            return self.scores(mean_of_images(widened(x), valid))[:, None, None]

    def scores(self, pooled: Tensor) -> Tensor:
        """h^l from mean_of_images: [N, C, 1, 1] -> [N] in (0, 1)."""
        return torch.sigmoid(self.global_conv(self.activate(self.global_norm(pooled))).flatten() + self.added())

    @override
    def flops(self, evaluated: Count, image_active: Count) -> Count:
        """The convolution of one vector for every image that evaluates the unit."""
        return conv_flops(self.global_conv) * image_active


def learn_from_positions(units: Iterable[ResidualUnit]) -> bool:
    """Whether any unit's halting branch has a local norm that, in its present mode, updates its statistics."""
    branches = (unit.halting for unit in units)
    return any(isinstance(branch, SpatialHalting) and learns_from_batch(branch.local_norm) for branch in branches)
