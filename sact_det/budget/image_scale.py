"""Images made smaller in front of a network: what a budget may save beside halting.

Shape shorthand in this module:
    N: images; C: channels; H, W: in pixels.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sact_det.base.errors import InputError
from sact_det.base.recording import is_recording
from sact_det.base.value_rules import within
from sact_det.rule.padding import check_batch

SCALE = within(0, 1, "(]")
_PARTS = 10**6  # of 1: sizes are arithmetic of integers, which a recording keeps for images of other sizes


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) of an image after scaling: rounded, halves up, a pixel at least."""
    parts = round(scale * _PARTS)
    height, width = ((2 * side * parts + _PARTS) // (2 * _PARTS) for side in size)
    if is_recording():  # where comparing a size would bind the recording to it
        return height, width
    return max(1, height), max(1, width)


def scaled_images(images: Tensor, scale: float) -> Tensor:
    """Images [N, C, H, W] of `scaled_size`, bilinear with antialiasing: float32 of integers, else of their type.

    In a recording they are the same to rounding, as two products of matrices, which every format has.

    Raises:
        ValueError: it is no batch.
    """
    check_batch("images", images)
    if scale == 1:
        return images
    images = images if images.is_floating_point() else images.float()
    size = (images.shape[2], images.shape[3])
    height, width = scaled_size(size, scale)
    if not is_recording():
        return F.interpolate(images, (height, width), mode="bilinear", antialias=True)
    narrower = F.linear(images, _weights(size[1], width, images))
    channels = narrower.flatten(0, 1)
    rows = _weights(size[0], height, images).expand(channels.shape[0], -1, -1)
    return torch.bmm(rows, channels).reshape(images.shape[0], images.shape[1], height, width)


def _weights(side: int, smaller: int, like: Tensor) -> Tensor:
    """[smaller, side]: by how much each pixel of a side counts for each of a smaller one, a triangle around it."""
    step = side / smaller
    at = (torch.arange(smaller, device=like.device) + 0.5) * step
    pixels = torch.arange(side, device=like.device) + 0.5
    weights = (1 - (pixels - at[:, None]).abs() / step).clamp_min(0)
    return (weights / weights.sum(1, keepdim=True)).to(like.dtype)


def check_whole_images(model: Any, what: str) -> None:
    """Raises InputError, naming `what` the command does, if the budget of a model makes its images smaller."""
    if model.image_scale != 1:
        raise InputError(
            f"{what} is of whole images; a budget of {model.budget:g} makes them smaller, by {model.image_scale:g}: "
            "choose another one, or calibrate without --scales"
        )
