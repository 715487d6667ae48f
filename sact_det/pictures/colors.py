"""Ponder maps as colours: viridis, as in the original program, or another of matplotlib's colour maps.

Shape shorthand in this module:
    H, W: size of an image in pixels; h, w: size of a block's feature map. Images are uint8 RGB [H, W, 3].
"""

from typing import Optional

import cv2
import matplotlib
import numpy as np

from sact_det.pictures.scales import map_limits
from sact_det.pictures.style import COLORMAP, Limits


def colorize(ponder_map: np.ndarray, limits: Optional[Limits] = None, colormap: str = COLORMAP) -> np.ndarray:
    """Ponder map [H, W] -> image, a colour map from limits[0] to limits[1] (default: the map's own); beyond, it clips.

    Raises:
        ValueError: the map is not two-dimensional, empty or not finite, or the limits are not (low, high).
    """
    ponder_map = np.asarray(ponder_map, dtype=np.float64)
    if ponder_map.ndim != 2 or ponder_map.size == 0 or not np.isfinite(ponder_map).all():
        raise ValueError(f"`ponder_map` must be [H, W] and finite; got shape {ponder_map.shape}")
    low, high = map_limits(ponder_map) if limits is None else limits
    if not low < high:
        raise ValueError(f"`limits` must be (low, high) with low < high; got {limits}")
    return matplotlib.colormaps[colormap](np.clip((ponder_map - low) / (high - low), 0, 1), bytes=True)[..., :3]


def blend(
    image: np.ndarray,
    ponder_map: np.ndarray,
    limits: Optional[Limits] = None,
    opacity: float = 0.6,
    colormap: str = COLORMAP,
) -> np.ndarray:
    """The colours of a ponder map [H, W] over the image in grey, so that every colour still means a cost.

    Args:
        opacity: of the map, from 0 (only the image) to 1.
    """
    check_image("image", image, ponder_map)
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)[..., None]
    return np.rint(opacity * colorize(ponder_map, limits, colormap) + (1 - opacity) * grey).astype(np.uint8)


def check_image(name: str, image: np.ndarray, ponder_map: np.ndarray, density: float = 1) -> None:
    """Raises ValueError, naming the argument, unless an image is uint8 RGB, `density` times the size of a map."""
    size = tuple(round(density * side) for side in np.shape(ponder_map))
    if image.dtype != np.uint8 or image.shape != (*size, 3):
        expected = "x".join(map(str, size))
        raise ValueError(f"`{name}` must be uint8 RGB of the map's size, {expected}; got {image.dtype} {image.shape}")
