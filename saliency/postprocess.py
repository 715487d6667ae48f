"""From a ponder map to a saliency map: blur, resize, min-max, centre baseline; and a softmax for pictures.

    image --(longer_edge)--> model --> ponder map --blur, resize--> size of the fixation map --min-max--> + m x centre

The paper resizes the 1920x1080 images to 320x180 (ImageNet model) or 640x360 (COCO model): a longer edge of 320 or 640
pixels. It leaves open at which scale it blurs. `PostProcessing` states every step.
"""

from dataclasses import dataclass, field
from typing import Iterator, Optional, Sequence

import cv2
import numpy as np

from sact_det.base.errors import InputError
from saliency.blur import ReflectingBlur
from saliency.center import CenterBaseline
from saliency.fixations import Shape

SCALES = ("map", "image")
INTERPOLATIONS = {"nearest": cv2.INTER_NEAREST_EXACT, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}
SOFTMAX_TEMPERATURE = 1 / 5


def resize(values: np.ndarray, shape: Shape, interpolation: str = "linear") -> np.ndarray:
    """Resizes a map by pixel areas (half-pixel centres), without a filter against aliasing where it shrinks.

    Args:
        values: float [H, W].
        shape: (height, width) of the result.
        interpolation: a key of INTERPOLATIONS.

    Returns:
        float32 or float64 as `values`, else float64; a new array unless the shape is the same.
    """
    if interpolation not in INTERPOLATIONS:
        raise InputError(f"`interpolation` must be one of {', '.join(INTERPOLATIONS)}; got {interpolation!r}")
    values = np.asarray(values)
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    if values.shape == tuple(shape):
        return values
    return cv2.resize(values, (shape[1], shape[0]), interpolation=INTERPOLATIONS[interpolation])


def min_max(values: np.ndarray) -> np.ndarray:
    """Scales a map to [0, 1]; a constant map becomes 0."""
    low, high = values.min(), values.max()
    if not high > low:
        return np.zeros_like(values)
    scaled = values - low
    scaled /= high - low
    return scaled


def mix(normalized: np.ndarray, center: np.ndarray, multiplier: float, out: Optional[np.ndarray] = None) -> np.ndarray:
    """normalized + multiplier x center; with an infinite multiplier the centre alone.

    Args:
        normalized: float32 or float64 [H, W].
        center: of the same size and type.
        multiplier: >= 0.
        out: where to put the result, or None for a new array.
    """
    mixture = np.empty_like(normalized) if out is None else out
    if np.isinf(multiplier):
        mixture[...] = center
        return mixture
    return cv2.scaleAdd(center, float(multiplier), normalized, dst=mixture)


def softmax(values: np.ndarray, temperature: float = SOFTMAX_TEMPERATURE) -> np.ndarray:
    """exp(values / temperature) divided by its sum over the pixels: float64 [H, W]. The paper's figure 11 uses 1/5."""
    if not 0 < temperature < np.inf:
        raise InputError(f"`temperature` of a softmax must be positive; got {temperature}")
    powers = np.exp((np.asarray(values, np.float64) - values.max()) / temperature)
    return powers / powers.sum()


@dataclass(frozen=True)
class PostProcessing:
    """Every step from a ponder map to a saliency map of the size of the fixation map.

    Attributes:
        longer_edge: of the images as the model sees them, in pixels, or None for their own size or where it is unknown.
            It belongs to the extraction of the maps, which must be given it; kept here so that one record has the whole
            chain.
        sigma: of the Gaussian blur, in pixels of the *image*, whichever scale it is done at; 0 for none.
        blur_at: "map" blurs the ponder map as it comes from the model, sigma scaled along; "image" first resizes it.
        interpolation: of the resizing: "nearest", "linear" or "cubic".
        multiplier: of the centre baseline, added to the map scaled to [0, 1]; inf is the centre alone.
        center: the baseline.

    Raises:
        InputError: a value is out of range.
    """

    longer_edge: Optional[int] = None
    sigma: float = 0.0
    blur_at: str = "image"
    interpolation: str = "linear"
    multiplier: float = 0.0
    center: CenterBaseline = field(default_factory=CenterBaseline)

    def __post_init__(self) -> None:
        if self.blur_at not in SCALES:
            raise InputError(f"`blur_at` must be one of {', '.join(SCALES)}; got {self.blur_at!r}")
        if self.interpolation not in INTERPOLATIONS:
            raise InputError(f"`interpolation` must be one of {', '.join(INTERPOLATIONS)}; got {self.interpolation!r}")
        if not 0 <= self.sigma < np.inf:
            raise InputError(f"`sigma` must be finite and not negative; got {self.sigma}")
        if not self.multiplier >= 0:
            raise InputError(f"`multiplier` must not be negative; got {self.multiplier}")

    def __call__(self, ponder_map: np.ndarray, shape: Shape) -> np.ndarray:
        """float32 [H, W] of `shape`, from a map float [h, w]."""
        normalized = next(self.normalized(ponder_map, shape, [self.sigma]))
        return mix(normalized, self.center.single(shape), self.multiplier)

    def normalized(self, ponder_map: np.ndarray, shape: Shape, sigmas: Sequence[float]) -> Iterator[np.ndarray]:
        """The map before the centre is added, for each of several sigmas (which replace the config's).

        Yields:
            float32 [H, W] of `shape`, in [0, 1].

        Raises:
            InputError: the map is not finite numbers [h, w].
        """
        ponder_map = np.asarray(ponder_map)
        if ponder_map.ndim != 2 or ponder_map.size == 0 or ponder_map.dtype.kind not in "biuf":
            raise InputError(f"a map must be numbers [H, W]; got an array of shape {list(ponder_map.shape)}")
        ponder_map = ponder_map.astype(np.float32)
        if not np.isfinite(ponder_map).all():
            raise InputError("a map must be finite; it holds NaN or infinity")
        ponder_map -= ponder_map.mean(dtype=np.float64).astype(np.float32)  # min-max undoes it; float32 keeps more
        at_image = self.blur_at == "image"
        blur = ReflectingBlur(resize(ponder_map, shape, self.interpolation) if at_image else ponder_map)
        scale = (1.0, 1.0) if at_image else (ponder_map.shape[0] / shape[0], ponder_map.shape[1] / shape[1])
        for sigma in sigmas:
            yield min_max(resize(blur.blurred((sigma * scale[0], sigma * scale[1])), shape, self.interpolation))
