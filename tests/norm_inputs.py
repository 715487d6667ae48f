"""Norms that are neither fresh nor trivial, and what is fed to them."""

from typing import Callable

import torch
from small_networks import images
from torch import Tensor, nn

from sact_det.network.norm import BatchNorm2d, MovingBatchNorm2d, SyncBatchNorm2d

CHANNELS = 5
BATCH_NORMS = (BatchNorm2d, SyncBatchNorm2d, MovingBatchNorm2d)


def randomized(norm: nn.Module, seed: int = 0) -> nn.Module:
    """Statistics and affine parameters that are neither 0 nor 1."""
    values = torch.rand(4, CHANNELS, generator=torch.Generator().manual_seed(seed))
    state = dict(zip(("weight", "bias", "running_mean", "running_var"), values + 0.5))
    norm.load_state_dict({**norm.state_dict(), **state})
    return norm


def run(norm: Callable[..., Tensor], x: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The output, and the gradient of x where the loss weighs positions differently."""
    x = x.clone().requires_grad_()
    y = norm(x, valid)
    weights = torch.sin(x.detach())
    (y * (weights if valid is None else weights * valid)).sum().backward()
    return y.detach(), x.grad


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Channels of different mean and spread."""
    channels = torch.arange(1.0, CHANNELS + 1)[:, None, None]
    return images(shape[0], *shape[1:], CHANNELS, seed) * channels / 2 + channels


def positions_as_images(x: Tensor, valid: Tensor) -> Tensor:
    """The valid positions of [N, C, H, W] as a batch of 1 x 1 images."""
    return x.permute(0, 2, 3, 1)[valid[:, 0]][:, :, None, None]


def mask_of_three() -> Tensor:
    """bool [3, 1, 6, 7]: images of 6 x 7, 2 x 5 and 1 x 1."""
    mask = torch.zeros(3, 1, 6, 7, dtype=torch.bool)
    for image, (height, width) in zip(mask, [(6, 7), (2, 5), (1, 1)]):
        image[:, :height, :width] = True
    return mask


def observe(norm: MovingBatchNorm2d, x: Tensor) -> None:
    """What a run does that has sums instead of features."""
    x = x.double()
    norm.observe(torch.tensor(x.numel() / CHANNELS).double(), x.sum((0, 2, 3)), x.square().sum((0, 2, 3)))
