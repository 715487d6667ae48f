"""The metrics of the MIT/Tuebingen saliency benchmark, for one map and one image's fixations.

Sources: "Bylinskii et al." is "What do different evaluation metrics tell us about saliency models?" (TPAMI 2019);
"the program" is the benchmark's MATLAB code of that group; pysaliency is the benchmark's present one.

In every function

    saliency_map is [H, W], finite numbers. A map of another size than the fixations is refused: where in the chain
        of resolutions it is resized matters, and saliency.postprocess says so explicitly.
    fixations are `Fixations`, a fixation map [H, W] (each pixel that is not 0 is one fixation), or points [n, 2] of
        x and y. Points count each, also several on one pixel; the program, which sees maps, counts such a pixel once:
        `Fixations.distinct` does that.
    density is [H, W], for instance `Fixations.density`.

Bad arguments raise InputError. A map without any contrast carries no information and scores as such: AUC 0.5, NSS 0,
CC 0, and in SIM, KL and information gain as a uniform distribution.
"""

from typing import Optional

import numpy as np

from sact_det.base.errors import InputError
from saliency.arguments import as_map, checked_density, checked_fixations, checked_map, positive
from saliency.fixations import Fixations, FixationsLike
from saliency.postprocess import min_max
from saliency.ranks import step_sum

EPSILON = 2.2204e-16  # the program's `eps`
JITTER = 1e-7
TIES = ("roc", "program")


def auc_judd(
    saliency_map: np.ndarray, fixations: FixationsLike, *, ties: str = "roc", jitter: bool = False, seed: int = 0
) -> float:
    """Area under the ROC curve of "fixated" against all other pixels. In [0, 1], higher is better, chance 0.5.

    The curve has a point for each value t of a fixated pixel, tp = share of the fixations with S >= t, fp = share of
    the pixels without fixation with S >= t, besides (0, 0) and (1, 1), joined by straight lines (Judd et al. 2009;
    Bylinskii et al.). The area is computed in whole numbers and divided once, without sorting the map.

    Args:
        saliency_map: [H, W].
        fixations: at least one, and at least one pixel without.
        ties: matters where fixated pixels share a value. "roc" is the definition above, pysaliency's too: the shared
            value is one point of the curve. "program" walks through them as the MATLAB loop does, tp_i = i / N and
            fp_i = (#{S >= t_i} - i) / (P - N), which is made for jittered maps and gives a constant map almost 0.
        jitter: adds U(0, 1) * 1e-7 to every pixel first, the program's default. No two pixels tie then, and
            differences below 1e-7 are lost.
        seed: of the jitter.
    """
    if ties not in TIES:
        raise InputError(f"`ties` must be one of {', '.join(TIES)}; got {ties!r}")
    values = as_map(saliency_map)
    where = checked_fixations(fixations, values)
    if jitter:
        values = values + np.random.default_rng(seed).random(values.shape) * JITTER
    return judd_area(values.reshape(-1), where, ties=ties)


def auc(saliency_map: np.ndarray, fixations: FixationsLike) -> float:
    """Area under the ROC curve of the fixations against all pixels. In [0, 1], higher is better, chance 0.5.

    The probability that a fixation has more saliency than a pixel drawn at random, fixated or not, ties counting half:
    the MIT/Tuebingen benchmark's AUC (pysaliency's "uniform" non-fixations). Several fixations on one pixel count each.

    Args:
        saliency_map: [H, W].
        fixations: at least one.
    """
    values = as_map(saliency_map)
    where, values = checked_fixations(fixations, values), values.reshape(-1)
    fixated, reached, at_value = _reached(values, where)
    # From every fixated value to the next larger number, and from there on: pixels that tie, and that do not.
    thresholds = np.unique(np.concatenate([fixated, np.nextafter(fixated, np.inf, dtype=fixated.dtype)]))
    above = reached[np.searchsorted(fixated, thresholds, side="right")]
    equal = np.zeros_like(above)
    equal[np.searchsorted(thresholds, fixated)] = at_value
    twice_pairs = step_sum(values, thresholds, np.append(2 * len(where), 2 * above + equal))
    return twice_pairs / (2 * len(where) * values.size)


def judd_area(values: np.ndarray, fixations: Fixations, *, ties: str = "roc") -> float:
    """`auc_judd` of values [H * W], float32 or float64, and fixations that have been checked."""
    number, fixated = len(fixations), fixations.distinct_pixels
    others = values.size - fixated.size
    if others == 0:
        raise InputError("every pixel is fixated: there is nothing to tell the fixated ones from")
    thresholds, reached, at_threshold = _reached(values, fixations)
    # A pixel without fixation widens one step of the curve; its share of the area is the step's mean height.
    twice_height = np.append(2 * number, reached[:-1] + reached[1:])  # [0]: below all thresholds
    correction = 0
    if ties == "program":
        twice_height[1:] = 2 * reached[1:] + 1  # a group of ties is reached at its first fixation's height,
        correction = int((at_threshold * (at_threshold - 1)).sum())  # and walked through backwards
    steps = np.searchsorted(thresholds, values[fixated], side="right")
    twice_area = step_sum(values, thresholds, twice_height) - int(twice_height[steps].sum()) - correction
    return twice_area / (2 * number * others)


def _reached(values: np.ndarray, fixations: Fixations) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct fixated values t, ascending; how many fixations have S >= t, then 0; how many have S = t."""
    thresholds, at_threshold = np.unique(values[fixations.pixels], return_counts=True)
    if not np.isfinite(thresholds).all():
        raise InputError("`saliency_map` must be finite; it holds NaN or infinity")
    return thresholds, np.append(len(fixations) - np.cumsum(at_threshold) + at_threshold, 0), at_threshold


def auc_borji(
    saliency_map: np.ndarray, fixations: FixationsLike, *, splits: int = 100, step: float = 0.1, seed: int = 0
) -> float:
    """Area under the ROC curve against random pixels of the same map. In [0, 1], higher is better, chance 0.5.

    Mean over `splits` draws of as many pixels (with replacement) as there are fixations; thresholds 0, step, 2 step,
    ... on the map scaled to [0, 1] (Borji et al. 2013; the program).

    Args:
        saliency_map: [H, W].
        fixations: at least one.
        splits: number of draws.
        step: distance of the thresholds, in (0, 1].
        seed: of the draws.
    """
    values = checked_map(saliency_map)
    where = checked_fixations(fixations, values)
    values = min_max(values).reshape(-1)
    drawn = np.random.default_rng(seed).integers(values.size, size=(positive(splits), len(where)))
    return _mean_stepped_area(values[where.pixels], values[drawn], step)


def shuffled_auc(
    saliency_map: np.ndarray,
    fixations: FixationsLike,
    other_fixations: FixationsLike,
    *,
    splits: Optional[int] = None,
    step: float = 0.1,
    seed: int = 0,
) -> float:
    """Area under the ROC curve against places fixated in other images, which share the centre bias. In [0, 1],
    higher is better, chance 0.5; a centre baseline scores about 0.5.

    Without `splits`, every other fixation is a negative and every value a threshold: the probability that a fixation
    has more saliency than a negative, ties counting half (pysaliency). With `splits`, the program's estimate: mean
    over so many draws of as many negatives (without replacement) as there are fixations, thresholds 0, step, ... on
    the map scaled to [0, 1].

    Args:
        saliency_map: [H, W].
        fixations: at least one.
        other_fixations: at least one; of other images, scaled to this one (saliency.fixations.pooled).
        splits: number of draws, or None.
        step: distance of the thresholds, in (0, 1].
        seed: of the draws.
    """
    values = checked_map(saliency_map)
    where = checked_fixations(fixations, values)
    others = checked_fixations(other_fixations, values, "other_fixations")
    if splits is None:
        positives, negatives = values.reshape(-1)[where.pixels], np.sort(values.reshape(-1)[others.pixels])
        below = np.searchsorted(negatives, positives, side="left")
        not_above = np.searchsorted(negatives, positives, side="right")
        return int(below.sum() + not_above.sum()) / (2 * positives.size * negatives.size)
    candidates = others.distinct_pixels
    rows = np.tile(candidates, (positive(splits), 1))
    drawn = np.random.default_rng(seed).permuted(rows, axis=1)[:, : len(where)]
    values = min_max(values).reshape(-1)
    return _mean_stepped_area(values[where.pixels], values[drawn], step)


def nss(saliency_map: np.ndarray, fixations: FixationsLike) -> float:
    """Normalised scanpath saliency: the mean over fixations of (S - mean(S)) / std(S). Higher is better, chance 0.

    The deviation is the population's, as in pysaliency; the program's has P - 1 (Peters et al. 2005; Bylinskii et al.).
    """
    values = checked_map(saliency_map)
    where = checked_fixations(fixations, values)
    if _constant(values):
        return 0.0
    fixated = values.reshape(-1)[where.pixels].mean(dtype=np.float64)
    return float((fixated - values.mean(dtype=np.float64)) / values.std(dtype=np.float64))


def cc(saliency_map: np.ndarray, density: np.ndarray) -> float:
    """Pearson's correlation of the map with the fixation density. In [-1, 1], higher is better, chance 0."""
    first = checked_map(saliency_map)
    return correlation(first, deviations(checked_density(density, first)))


def deviations(values: np.ndarray) -> np.ndarray:
    """The values less their mean, float64 [H, W]; of a constant map 0."""
    if _constant(values):
        return np.zeros(values.shape)
    apart = values.astype(np.float64)
    apart -= apart.mean()
    return apart


def correlation(saliency_map: np.ndarray, density_deviations: np.ndarray) -> float:
    """`cc` of a map that has been checked, and the `deviations` of a density."""
    first, second = deviations(saliency_map), density_deviations
    squares = np.vdot(first, first) * np.vdot(second, second)
    return float(np.vdot(first, second) / np.sqrt(squares)) if squares > 0 else 0.0


def sim(saliency_map: np.ndarray, density: np.ndarray, *, stretch: bool = False) -> float:
    """Similarity: the sum of the smaller of the two distributions in each pixel. In [0, 1], higher is better.

    Args:
        saliency_map: [H, W]; made a distribution by division by its sum, after subtracting its minimum where that is
            negative.
        density: [H, W], likewise.
        stretch: first subtracts the minimum of both in any case, as the program does and pysaliency does not.
    """
    first = distribution(checked_map(saliency_map), stretch)
    return shared_mass(first, distribution(checked_density(density, first), stretch))


def shared_mass(p: np.ndarray, q: np.ndarray) -> float:
    """`sim` of two distributions."""
    return float(np.minimum(p, q).sum())


def kld(saliency_map: np.ndarray, density: np.ndarray) -> float:
    """Kullback-Leibler divergence of the density q from the map p, in nats: the sum of q ln(eps + q / (p + eps)).

    From 0 upwards, lower is better. eps = 2.2204e-16 (Bylinskii et al., the program and pysaliency's `MIT_KLDiv`);
    maps become distributions as in `sim`, without stretch.
    """
    p = distribution(checked_map(saliency_map))
    return divergence(p, distribution(checked_density(density, p)))


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """`kld` of two distributions: q ln(eps + q / (p + eps)), summed."""
    terms = p + EPSILON
    np.divide(q, terms, out=terms)
    terms += EPSILON
    np.log(terms, out=terms)
    terms *= q
    return float(terms.sum())


def information_gain(
    saliency_map: np.ndarray, fixations: FixationsLike, baseline: np.ndarray, *, stretch: bool = False
) -> float:
    """Bits per fixation by which the map predicts better than a baseline: mean of log2(eps + p) - log2(eps + b).

    Higher is better, 0 is as good as the baseline (Kuemmerer et al. 2015; the program).

    Args:
        saliency_map: [H, W]; made a distribution as in `sim`.
        fixations: at least one.
        baseline: [H, W], a centre prior; likewise.
        stretch: as in `sim`; the program does it.
    """
    values = checked_map(saliency_map)
    where = checked_fixations(fixations, values)
    prior = distribution(checked_density(baseline, values, "baseline"), stretch)
    return gain(distribution(values, stretch), where, prior)


def gain(p: np.ndarray, fixations: Fixations, prior: np.ndarray) -> float:
    """`information_gain` of a distribution over another one."""
    predicted, expected = (one.reshape(-1)[fixations.pixels] for one in (p, prior))
    return float(np.mean(np.log2(EPSILON + predicted) - np.log2(EPSILON + expected)))


def _constant(values: np.ndarray) -> bool:
    return bool(values.min() == values.max())


def distribution(values: np.ndarray, stretch: bool = False) -> np.ndarray:
    """The map as a probability distribution, float64 [H, W], >= 0, sum 1; its least value becomes 0 to `stretch` it."""
    low = values.min()
    made = values.astype(np.float64)
    made -= low if stretch or low < 0 else 0
    total = made.sum()
    return np.divide(made, total, out=made) if total > 0 else np.full(values.shape, 1 / values.size)


def _mean_stepped_area(positives: np.ndarray, negatives: np.ndarray, step: float) -> float:
    """Mean over the rows of `negatives`, [splits, n], of the area under the curve at thresholds 0, step, ... <= 1."""
    if not 0 < step <= 1:
        raise InputError(f"`step` must lie in (0, 1]; got {step}")
    thresholds = np.arange(int(np.floor(1 / step + 1e-9)) + 1) * step
    bins = len(thresholds) + 1

    def rates(values: np.ndarray) -> np.ndarray:
        """Share of every row that reaches each threshold, from the highest down; with 0 before and 1 after."""
        reached = np.searchsorted(thresholds, values, side="right") + bins * np.arange(len(values))[:, None]
        counts = np.bincount(reached.reshape(-1), minlength=bins * len(values)).reshape(-1, bins)
        above = np.cumsum(counts[:, :0:-1], axis=1) / values.shape[1]
        return np.pad(np.pad(above, ((0, 0), (1, 0))), ((0, 0), (0, 1)), constant_values=1)

    tp, fp = rates(positives[None]), rates(negatives)
    return float((np.diff(fp) * (tp[:, 1:] + tp[:, :-1]) / 2).sum(axis=1).mean())
