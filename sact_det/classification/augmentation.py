"""How training images are varied. Everything is drawn from torch's generator."""

from functools import partial
from typing import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from sact_det.classification.preprocessing import evaluation_image

AUGMENTATIONS = ("inception", "cifar", "none")
_CIFAR_PADDING = 4


def build_augmentation(name: str, size: int, crop_fraction: float) -> Callable[[np.ndarray], Tensor]:
    """Maps uint8 RGB [H, W, 3] to [3, size, size] in [0, 255], uint8 or float32.

    Args:
        name: one of AUGMENTATIONS.
            "inception": a random part of the image of 5% to 100% of its area and aspect ratio 3/4 to 4/3, resized; a
            flip; brightness, contrast, saturation and hue in random order, as far as in Inception's preprocessing
            (its brightness is a shift, torchvision's a factor of the same size).
            "cifar": 4 black pixels around the image, a random part of `size`, a flip.
            "none": the crop of the evaluation (classification/preprocessing.py).
        size: side of the result, in pixels.
        crop_fraction: of the evaluation's crop.
    """
    if name == "none":
        return partial(evaluation_image, size=size, crop_fraction=crop_fraction)
    if name == "cifar":
        varied = v2.Compose([v2.RandomCrop(size, padding=_CIFAR_PADDING), v2.RandomHorizontalFlip()])
    else:
        varied = v2.Compose(
            [
                v2.RandomResizedCrop(size, scale=(0.05, 1.0), ratio=(3 / 4, 4 / 3), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(brightness=32 / 255, contrast=0.5, saturation=0.5, hue=0.2),
            ]
        )
    return partial(_augmented, varied)


def _augmented(transform: Callable[[Tensor], Tensor], image: np.ndarray) -> Tensor:
    return transform(torch.from_numpy(image).permute(2, 0, 1))
