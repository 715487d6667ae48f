"""How the original program prepares an image for evaluation, to the last step.

* The centre is cut out by TensorFlow 1's `central_crop`: the fraction 0.875 leaves out side // 16 pixels at either end.
* The crop is resized to a square, whatever its shape, by TensorFlow 1's bilinear rule: a pixel at `i` reads
  `i * float32(in / out)`, without half-pixel offset and without smoothing when it shrinks.

Pixels keep the range [0, 255]; the model maps them to [-1, 1] (MODEL.PIXEL_MEAN, PIXEL_STD). Images come upright
(sact_det/data/decoding.py); the original did not look at the orientation that a file may note.

Shape shorthand in this module:
    H, W: of the image.
"""

from typing import Optional

import numpy as np
import torch
from torch import Tensor


def central_crop(image: np.ndarray, fraction: float) -> np.ndarray:
    """The middle of [H, W, C], `fraction` of each side (0 < fraction <= 1), by TensorFlow 1's arithmetic; a view."""
    if fraction == 1:
        return image
    share = int(1 / ((1 - fraction) / 2))
    top, left = image.shape[0] // share, image.shape[1] // share
    return image[top : image.shape[0] - top, left : image.shape[1] - left]


def _taps(size_in: int, size_out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every output pixel: the two input pixels it lies between (int64), and how far it is towards the second."""
    position = np.arange(size_out, dtype=np.float32) * (np.float32(size_in) / np.float32(size_out))
    lower = position.astype(np.int64)
    return lower, np.minimum(lower + 1, size_in - 1), position - lower.astype(np.float32)


def legacy_bilinear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """TensorFlow 1's `resize_bilinear` (align_corners false).

    Args:
        image: uint8 or float32 [H, W, C].
        size: (height, width) of the result.

    Returns:
        float32 [height, width, C], in the range of the image.
    """
    if image.shape[:2] == tuple(size):
        return image.astype(np.float32)
    top, bottom, down = _taps(image.shape[0], size[0])
    left, right, across = _taps(image.shape[1], size[1])
    rows, row_of = np.unique(np.concatenate([top, bottom]), return_inverse=True)  # neighbours share their rows
    lines = image[rows].astype(np.float32)
    lines_left = lines[:, left]
    lines = lines_left + (lines[:, right] - lines_left) * across[:, None]
    above, below = lines[row_of[: size[0]]], lines[row_of[size[0] :]]
    return above + (below - above) * down[:, None, None]


def evaluation_image(image: np.ndarray, size: int, crop_fraction: float = 0.875) -> Tensor:
    """What the network sees in evaluation.

    Args:
        image: uint8 RGB [H, W, 3].
        size: side of the square result, in pixels.
        crop_fraction: share of each side that is kept.

    Returns:
        float32 [3, size, size] in [0, 255].
    """
    return _channels_first(legacy_bilinear(central_crop(image, crop_fraction), (size, size)))


def whole_image(image: np.ndarray, longer_edge: Optional[int] = None) -> Tensor:
    """What the network sees when ponder maps are drawn: nothing is cut off, and the aspect ratio stays.

    Args:
        image: uint8 RGB [H, W, 3].
        longer_edge: resize the longer side to so many pixels; None keeps the size.

    Returns:
        float32 [3, height, width] in [0, 255].
    """
    if longer_edge is not None:
        return _channels_first(legacy_bilinear(image, whole_size(image.shape[:2], longer_edge)))
    return _channels_first(image.astype(np.float32))


def whole_size(size: tuple[int, int], longer_edge: int) -> tuple[int, int]:
    """(height, width) of `whole_image` for an image of `size`; no side becomes 0."""
    height, width = (max(round(side * longer_edge / max(size)), 1) for side in size)
    return height, width


def _channels_first(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
