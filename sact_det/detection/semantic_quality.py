"""How right a semantic segmentation is, over the pixels of a data set; the numbers of Detectron2's SemSegEvaluator."""

from typing import Iterable, Sequence

import numpy as np

from sact_det.detection.panoptic_quality import Labelled

MEANS = ("mIoU", "fwIoU", "mACC", "pACC")


def confusion(
    truth: np.ndarray, true_segments: Iterable[Labelled], classes: dict[int, int], found: np.ndarray, number: int
) -> np.ndarray:
    """int64 [number, number]: pixels of one image by the class found and the true one; only those that have a label.

    Args:
        truth: int [H, W], the id of every pixel's segment.
        true_segments: their categories.
        classes: of every category.
        found: int [H, W], the class found.
        number: of classes.
    """
    wanted = np.full(truth.shape, -1, np.int64)
    for one in true_segments:
        wanted[truth == one.id] = classes[one.category]
    labelled = wanted >= 0
    pairs = found[labelled].astype(np.int64) * number + wanted[labelled]
    return np.bincount(pairs, minlength=number * number).reshape(number, number)


def semantic_quality(counts: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """In percent, what `confusion` sums up to.

    mIoU and mACC are means over the classes that occur, fwIoU is weighted by their pixels, pACC is of all pixels.
    "IoU-NAME" is that of a class; NaN where it does not occur.

    Args:
        counts: the sum of `confusion` over images.
        names: of the classes.
    """
    right, true, found = counts.diagonal().astype(float), counts.sum(0).astype(float), counts.sum(1).astype(float)
    occurs = true > 0
    iou, accuracy = (
        np.divide(right, whole, out=np.full(len(right), np.nan), where=occurs) for whole in (true + found - right, true)
    )
    shares = true / max(true.sum(), 1)
    means = [values[occurs].mean() if occurs.any() else np.nan for values in (iou, accuracy)]
    results = dict(zip(MEANS, (means[0], (iou * shares)[occurs].sum(), means[1], right.sum() / max(true.sum(), 1))))
    results.update({f"IoU-{name}": value for name, value in zip(names, iou)})
    return {key: 100 * float(value) for key, value in results.items()}
