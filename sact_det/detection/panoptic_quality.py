"""Panoptic quality (Kirillov et al., Panoptic Segmentation, CVPR 2019), by the rules of COCO's own program.

PQ of a category is the sum of the IoU of its matched segments over TP + FP / 2 + FN / 2. COCO's program, panopticapi,
is on no package index.
"""

import math
from dataclasses import dataclass
from typing import Iterable, Mapping, NamedTuple, Sequence

import numpy as np

_VOID = 0  # the id of pixels without a label


class Labelled(NamedTuple):
    """A segment: its id in the map, its category, and whether it is a crowd."""

    id: int
    category: int
    iscrowd: bool = False


@dataclass
class Tally:
    """What was counted of a category: the sum of the IoU of matched segments, and TP, FP, FN."""

    iou: float = 0.0
    matched: int = 0
    wrong: int = 0
    missed: int = 0

    def __iadd__(self, other: "Tally") -> "Tally":
        self.iou += other.iou
        self.matched += other.matched
        self.wrong += other.wrong
        self.missed += other.missed
        return self


def compare(
    truth: np.ndarray, true_segments: Sequence[Labelled], found: np.ndarray, found_segments: Sequence[Labelled]
) -> dict[int, Tally]:
    """What one image adds to its categories.

    Segments of one category match where their IoU is above 0.5; pixels without a label in the truth do not count for
    it. Crowds are not to be found, and a segment of which more than half lies without a label, or in crowds of its
    category, is not wrong.

    Args:
        truth, found: int [H, W], the id of every pixel's segment; 0: none.
        true_segments, found_segments: of either; ids are unique.
    """
    pairs, counts = np.unique(np.stack([truth.ravel(), found.ravel()]).astype(np.int64), axis=1, return_counts=True)
    common = {(int(a), int(b)): int(n) for (a, b), n in zip(pairs.T, counts)}
    true_area, found_area = _areas(truth), _areas(found)
    true_by_id, found_by_id = ({one.id: one for one in own} for own in (true_segments, found_segments))
    tallies: dict[int, Tally] = {one.category: Tally() for one in (*true_segments, *found_segments)}
    matched_true, matched_found = set(), set()
    for (a, b), intersection in common.items():
        wanted, segment = true_by_id.get(a), found_by_id.get(b)
        if wanted is None or segment is None or wanted.iscrowd or wanted.category != segment.category:
            continue
        iou = intersection / (true_area[a] + found_area[b] - intersection - common.get((_VOID, b), 0))
        if iou > 0.5:
            tallies[wanted.category] += Tally(iou=iou, matched=1)
            matched_true.add(a)
            matched_found.add(b)
    for wanted in true_segments:
        if wanted.id not in matched_true and not wanted.iscrowd:
            tallies[wanted.category].missed += 1
    for segment in found_segments:
        if segment.id in matched_found:
            continue
        crowds = [one.id for one in true_segments if one.iscrowd and one.category == segment.category]
        unjudged = sum(common.get((a, segment.id), 0) for a in (_VOID, *crowds))
        if unjudged <= 0.5 * found_area.get(segment.id, 0):
            tallies[segment.category].wrong += 1
    return tallies


def _areas(ids: np.ndarray) -> dict[int, int]:
    values, counts = np.unique(ids, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist()))


def quality(tallies: Mapping[int, Tally], categories: Iterable[int]) -> dict[str, float]:
    """PQ, SQ and RQ in percent: means over those of the categories that occur; NaN where none does."""
    rows = []
    for category in categories:
        own = tallies.get(category, Tally())
        weight = own.matched + 0.5 * own.wrong + 0.5 * own.missed
        if weight:
            rows.append((own.iou / weight, own.iou / own.matched if own.matched else 0.0, own.matched / weight))
    means = np.mean(rows, axis=0) if rows else [math.nan] * 3
    return {key: 100 * float(value) for key, value in zip(("PQ", "SQ", "RQ"), means)}
