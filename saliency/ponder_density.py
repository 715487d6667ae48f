"""Ponder maps as a density of fixations: a few parameters, fitted by maximum likelihood.

    s = sum_b w_b blur(m_b, sigma_b)          m_b: the ponder cost of block b, scaled to [0, 1] in every image
    e = scale s^gamma - r^2 / (2 width^2)     r: distance from the middle, in widths and heights of the image
    p = (1 - u) softmax(e) + u / pixels

The weights w are positive and sum to 1, so that s lies in [0, 1]; scale and gamma make a monotone nonlinearity, width
is the centre bias, u a uniform floor. The fit is done on maps of at most `EDGE` pixels a side: blurring is a product
with numbers in the cosine domain, so that all blocks together cost one transform.

Shape shorthand in this module:
    N: images; B: blocks; h, w: sides of the maps that are fitted on.
"""

from dataclasses import dataclass
from functools import cache
from typing import Callable, Sequence

import cv2
import numpy as np
from scipy import fft
from scipy.optimize import minimize
from tqdm import tqdm

from sact_det.base.errors import InputError
from saliency.blur import axis_response, gaussian_blur
from saliency.fixations import Fixations, Shape
from saliency.postprocess import min_max, resize
from saliency.prediction import Prediction

EDGE = 80  # pixels of the longer side of the maps that are fitted on
_LEAST = 1e-9  # s is no less, so that powers have slopes
_STEPS = 60  # of the optimiser


@dataclass(frozen=True)
class PonderDensity:
    """The parameters.

    Attributes:
        weights: w, of every block; positive, sum 1.
        sigmas: of every block's blur, in longer sides of the image.
        scale, gamma: of the nonlinearity, positive.
        width: of the centre bias, in widths and heights of the image.
        uniform: u, in (0, 1).
    """

    weights: tuple[float, ...]
    sigmas: tuple[float, ...]
    scale: float
    gamma: float
    width: float
    uniform: float

    def log_density(self, blocks: np.ndarray, shape: Shape) -> np.ndarray:
        """ln p of an image of `shape`, float64 [H, W], from its blocks' maps, float [B, h, w]. Raises InputError."""
        _check_blocks(blocks, len(self.weights))
        cosines = np.zeros(shape)  # of the sum of what is blurred
        for weight, sigma, values in zip(self.weights, self.sigmas, blocks):
            enlarged = resize(min_max(values.astype(np.float64)), shape)
            vertical, horizontal = (axis_response(side, sigma * max(shape)) for side in shape)
            cosines += weight * fft.dctn(enlarged, norm="ortho") * vertical[:, None] * horizontal
        return np.log(self._mixed(fft.idctn(cosines, norm="ortho"), _squared_distance(shape)))

    def _mixed(self, saliency: np.ndarray, distance: np.ndarray) -> np.ndarray:
        """p of maps s, [..., H, W]."""
        energy = self.scale * np.maximum(saliency, _LEAST) ** self.gamma - distance / (2 * self.width**2)
        powers = np.exp(energy - energy.max(axis=(-2, -1), keepdims=True))
        pixels = distance.size
        mixed: np.ndarray = (1 - self.uniform) * powers / powers.sum(axis=(-2, -1), keepdims=True)
        return mixed + self.uniform / pixels


def fit_ponder_density(blocks: Sequence[np.ndarray], fixations: Sequence[Fixations]) -> PonderDensity:
    """The parameters under which the fixations of some images are likeliest; every image counts alike.

    Args:
        blocks: of every image, float [B, h, w], of any size but the same B.
        fixations: of every image, at least one.

    Raises:
        InputError: there is no image, or one has other maps or no fixations.
    """
    if not blocks or len(blocks) != len(fixations) or not all(len(own) for own in fixations):
        raise InputError("a ponder density is fitted to the maps and fixations of one image or more")
    number = len(blocks[0])
    groups: dict[Shape, list[tuple[np.ndarray, np.ndarray]]] = {}
    for values, own in zip(blocks, fixations):
        _check_blocks(values, number)
        shape = _small(own.shape)
        small = np.stack([_shrunk(min_max(one.astype(np.float64)), shape) for one in values])
        share = own.scaled_to(shape).counts() / len(own)
        groups.setdefault(shape, []).append((fft.dctn(small, axes=(1, 2), norm="ortho"), share))
    stacks = [
        (shape, np.stack([cosines for cosines, _ in parts]), np.stack([share for _, share in parts]))
        for shape, parts in groups.items()
    ]

    def loss(vector: np.ndarray) -> float:
        """Minus the mean ln likelihood above the uniform density's, per fixation."""
        density, total = _parameters(vector, number), 0.0
        for shape, cosines, shares in stacks:  # [N, B, h, w], [N, h, w]
            mixed = np.zeros(shares.shape)
            for index, (weight, sigma) in enumerate(zip(density.weights, density.sigmas)):
                vertical, horizontal = (axis_response(side, sigma * max(shape)) for side in shape)
                mixed += weight * cosines[:, index] * vertical[:, None] * horizontal
            saliency = fft.idctn(mixed, axes=(1, 2), norm="ortho")
            likelihood = density._mixed(saliency, _squared_distance(shape)) * (shape[0] * shape[1])
            total += float((shares * np.log(likelihood)).sum())
        return -total / len(blocks)

    start = np.concatenate([np.zeros(number), np.full(number, np.log(0.03)), np.log([2.0, 1.0, 0.3]), [-2.0]])
    bounds = [(-8, 8)] * number + [(np.log(0.003), np.log(0.3))] * number
    bounds += [(-4, 4), (-2, 2), (np.log(0.08), np.log(5)), (-9, 4)]
    title = f"fit to {len(blocks)} images"
    with tqdm(desc=title, total=_STEPS, unit="step", disable=None) as bar:  # silent where stderr is no terminal
        found = minimize(
            loss,
            start,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": _STEPS},
            callback=lambda _: bar.update(),
        )
    return _parameters(found.x, number)


def best_maps(
    log_density: np.ndarray, center_log_density: np.ndarray, sigma: float
) -> dict[str, Callable[[], Prediction]]:
    """What a density expects each metric of the Tuebingen protocol to score best; made when called for, once.

    AUC and information gain: the density itself. sAUC: its ratio to the centre bias, whose fixations are the negatives.
    NSS: the density. CC, KL, SIM: the density blurred as fixations are, which is the mean of the empirical densities.

    Args:
        log_density, center_log_density: float [H, W].
        sigma: of the fixation density's blur, in pixels.
    """

    @cache
    def itself() -> Prediction:
        return Prediction(log_density, is_log_density=True)

    @cache
    def blurred() -> Prediction:
        return Prediction(np.maximum(gaussian_blur(itself().map, sigma), 0))

    return {
        "gain_over_center_bias": itself,
        "auc": itself,
        "shuffled_auc": lambda: Prediction(log_density - center_log_density),
        "nss": itself,
        **dict.fromkeys(("cc", "kld", "sim"), blurred),
    }


def _parameters(vector: np.ndarray, blocks: int) -> PonderDensity:
    """From unbounded numbers: logits of w, ln sigma, ln scale, ln gamma, ln width, logit of u."""
    powers = np.exp(vector[:blocks] - vector[:blocks].max())
    scale, gamma, width = np.exp(vector[2 * blocks : 2 * blocks + 3])
    weights, sigmas = powers / powers.sum(), np.exp(vector[blocks : 2 * blocks])
    uniform = 1 / (1 + np.exp(-vector[-1]))
    return PonderDensity(tuple(weights.tolist()), tuple(sigmas.tolist()), *map(float, (scale, gamma, width, uniform)))


def _small(shape: Shape) -> Shape:
    scale = min(1.0, EDGE / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _shrunk(values: np.ndarray, shape: Shape) -> np.ndarray:
    return cv2.resize(values, shape[::-1], interpolation=cv2.INTER_AREA)


def _squared_distance(shape: Shape) -> np.ndarray:
    """From the middle, in sides of the image, squared: float64 [H, W]."""
    y, x = (((np.arange(side) + 0.5) / side - 0.5) ** 2 for side in shape)
    return y[:, None] + x


def _check_blocks(blocks: np.ndarray, number: int) -> None:
    if blocks.ndim != 3 or len(blocks) != number:
        raise InputError(f"maps by block must be [{number}, h, w]; got {list(blocks.shape)}")
