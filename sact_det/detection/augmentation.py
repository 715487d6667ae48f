"""Detectron2's augmentations, for images of every shape: no side becomes 0, however thin an image is."""

from contextlib import AbstractContextManager

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import detection_utils
from detectron2.data import transforms as T

from sact_det.base.errors import naming

_SAMPLE = np.zeros((480, 640, 3), np.uint8)


class ResizeShortestEdge(T.ResizeShortestEdge):
    """Detectron2's, but a scanner's line of 1x5000 pixels stays one pixel wide when its longer side is resized."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """The transform of an image [H, W, C]."""
        transform = super().get_transform(image)
        if isinstance(transform, T.ResizeTransform):
            transform.new_h, transform.new_w = max(transform.new_h, 1), max(transform.new_w, 1)
        return transform


class ResizeScale(T.ResizeScale):
    """Detectron2's, likewise."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """The transform of an image [H, W, C]."""
        transform = super().get_transform(image)
        transform.new_h, transform.new_w = max(transform.new_h, 1), max(transform.new_w, 1)
        return transform


class RandomCrop(T.RandomCrop):
    """Detectron2's, but of a relative size at least one pixel is left."""

    def get_crop_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of what is cut out of an image of this size."""
        height, width = super().get_crop_size(image_size)
        return max(height, 1), max(width, 1)


def build_augmentation(cfg: CfgNode, is_train: bool) -> list[T.Augmentation]:
    """What happens to a detector's images: Detectron2's crop (in training), resizing and flip, by the keys of INPUT.

    In training under INPUT.SCALE_JITTER an image is scaled to a random share of a square, by its longer side, and a
    part that fits into the square is cut out (large-scale jitter, arXiv 2012.07177); no padding is added.

    Raises:
        InputError: by these keys an augmentation cannot be applied to any image.
    """
    sizes = cfg.INPUT
    names = ("MIN_SIZE_TRAIN", "MAX_SIZE_TRAIN", "MIN_SIZE_TRAIN_SAMPLING") if is_train else ("MIN_SIZE_TEST",)
    with _naming(**{name: sizes[name] for name in names}):
        augmentations = [_at_least_a_pixel(one) for one in detection_utils.build_augmentation(cfg, is_train)]
        augmentations[0].get_transform(_SAMPLE)
    if is_train and sizes.SCALE_JITTER:
        side = sizes.SCALE_JITTER_SIZE
        jitter = [ResizeScale(*sizes.SCALE_JITTER, side, side), T.FixedSizeCrop((side, side), pad=False)]
        return [*jitter, *augmentations[1:]]
    if is_train and sizes.CROP.ENABLED:
        with _naming(**{"CROP.TYPE": sizes.CROP.TYPE, "CROP.SIZE": list(sizes.CROP.SIZE)}):
            augmentations.insert(0, RandomCrop(sizes.CROP.TYPE, sizes.CROP.SIZE))
            augmentations[0].get_transform(_SAMPLE)
    return augmentations


def _at_least_a_pixel(augmentation: T.Augmentation) -> T.Augmentation:
    if not isinstance(augmentation, T.ResizeShortestEdge):
        return augmentation
    arguments = (augmentation.short_edge_length, augmentation.max_size, augmentation.sample_style, augmentation.interp)
    return ResizeShortestEdge(*arguments)


def _naming(**values: object) -> AbstractContextManager[None]:
    stated = ", ".join(f"INPUT.{key} {value!r}" for key, value in values.items())
    return naming(f"{stated}: cannot be applied to images")
