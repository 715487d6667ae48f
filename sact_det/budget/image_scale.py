"""Images made smaller in front of a network: what a budget may save beside halting.

Shape shorthand in this module:
    N: images; C: channels; H, W: in pixels.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from sact_det.base.errors import InputError
from sact_det.base.recording import is_recording
from sact_det.base.value_rules import within
from sact_det.rule.padding import check_batch

SCALE = within(0, 1, "(]")


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) of an image after scaling, a pixel at least."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def scaled_images(images: Tensor, scale: float) -> Tensor:
    """Images [N, C, H, W] of `scaled_size`, bilinear with antialiasing: float32 of integers, else of their type.

    Raises:
        ValueError: it is no batch.
        InputError: PyTorch records the call, whose sizes would become constants, and the scale is not 1.
    """
    check_batch("images", images)
    if scale == 1:
        return images
    if is_recording():
        raise InputError(f"a budget that makes images smaller (by {scale:g}) cannot be recorded: choose another one")
    images = images if images.is_floating_point() else images.float()
    size = scaled_size((images.shape[2], images.shape[3]), scale)
    return F.interpolate(images, size, mode="bilinear", antialias=True)


def check_whole_images(model: Any, what: str) -> None:
    """Raises InputError, naming `what` the command does, if the budget of a model makes its images smaller."""
    if model.image_scale != 1:
        raise InputError(
            f"{what} is of whole images; a budget of {model.budget:g} makes them smaller, by {model.image_scale:g}: "
            "choose another one, or calibrate without --scales"
        )
