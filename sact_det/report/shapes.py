"""Masks and keypoints as a page draws them: outlines as SVG paths, points as whole pixels.

Shape shorthand in this module:
    H, W: size of an image in pixels; K: keypoints of an object.
"""

from typing import Any, NamedTuple, Optional, Sequence

import cv2
import numpy as np

TOLERANCES = (0.5, 1.0, 2.0, 4.0, 8.0)  # pixels between a mask's outline and its path, of an image 640 pixels long

_LONGEST = 640
_LEAST_SCORE = 0.05  # of a keypoint, as Detectron2 draws them


class Shape(NamedTuple):
    """What was found of an object beside its box.

    Attributes:
        mask: bool [H, W].
        keypoints: float [K, 3], x, y and score, in pixels.
    """

    mask: Optional[np.ndarray] = None
    keypoints: Optional[np.ndarray] = None


def mask_path(mask: np.ndarray, tolerance: float = 0.5) -> str:
    """The outline of a mask as the path of SVG whose even-odd rule fills it; "" of an empty one.

    Args:
        mask: bool [H, W].
        tolerance: pixels by which the path may leave the outline.
    """
    # Outlines run through the middles of pixels: four to a pixel, so that they run along the edges.
    fine = cv2.resize(mask.astype(np.uint8), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts = []
    for contour in contours:
        points = cv2.approxPolyDP(contour, 2 * tolerance, closed=True)[:, 0]
        if len(points) < 3:
            continue
        corners = np.rint((points + 0.5) / 2).astype(int)
        steps = np.diff(corners, axis=0)
        steps = steps[(steps != 0).any(1)]
        parts.append(f"M{corners[0, 0]} {corners[0, 1]}l{' '.join(f'{x} {y}' for x, y in steps)}z")
    return "".join(parts)


def pack_shapes(shapes: Sequence[Shape], characters: float) -> list[dict[str, Any]]:
    """Masks at the finest of TOLERANCES at which all shapes take so many characters; beyond, the last have none.

    Args:
        shapes: the most important first.
        characters: that there is room for.

    Returns:
        For each, "mask", the path, and "points", [x, y] or None for every keypoint, where it has them.
    """
    points = [_points(shape.keypoints) for shape in shapes]
    room = characters - sum(12 * len(own or ()) for own in points)
    for tolerance in TOLERANCES:
        paths = [
            "" if one.mask is None else mask_path(one.mask, tolerance * max(one.mask.shape) / _LONGEST)
            for one in shapes
        ]
        if sum(map(len, paths)) <= room:
            break
    ends = np.cumsum([len(path) for path in paths])
    packed = []
    for path, end, own in zip(paths, ends, points):
        parts = {"mask": path if end <= room else "", "points": own}
        packed.append({key: value for key, value in parts.items() if value})
    return packed


def _points(keypoints: Optional[np.ndarray]) -> Optional[list[Optional[list[int]]]]:
    if keypoints is None:
        return None
    return [[round(float(x)), round(float(y))] if score >= _LEAST_SCORE else None for x, y, score in keypoints]
