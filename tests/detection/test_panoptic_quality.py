"""Panoptic quality beside a literal computation from the paper's definition, and in cases known by hand."""

import numpy as np
import pytest

from sact_det.detection.panoptic_quality import Labelled, Tally, compare, quality


def literal(truth, wanted, found, segments, category):
    """(sum of IoU, TP, FP, FN) of a category, mask by mask."""
    void = truth == 0
    pairs, iou = set(), 0.0
    for a in (one for one in wanted if one.category == category and not one.iscrowd):
        for b in (one for one in segments if one.category == category):
            p, q = truth == a.id, (found == b.id) & ~void
            if (p & q).sum() / (p | q).sum() > 0.5:
                pairs.add((a.id, b.id))
                iou += (p & q).sum() / (p | q).sum()
    crowd = void.copy()
    for one in wanted:
        if one.iscrowd and one.category == category:
            crowd |= truth == one.id
    wrong = sum(
        b.category == category
        and b.id not in {pair[1] for pair in pairs}
        and (crowd & (found == b.id)).sum() / (found == b.id).sum() <= 0.5
        for b in segments
    )
    objects = sum(one.category == category and not one.iscrowd for one in wanted)
    return iou, len(pairs), wrong, objects - len(pairs)


def blobs(rng, count):
    """A map of rectangles, some of them hidden by later ones, with random categories."""
    ids = np.zeros((40, 50), np.int32)
    for number in range(1, count + 1):
        (y, x), (h, w) = rng.integers(0, 30, 2), rng.integers(5, 25, 2)
        ids[y : y + h, x : x + w] = 1000 * number
    return ids


@pytest.mark.parametrize("seed", range(12))
def test_counts_are_those_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    truth = blobs(rng, 8)
    found = np.where(rng.random() < 0.5, truth, np.roll(truth, 2, 1))
    found[rng.integers(0, 20) : rng.integers(20, 40), 20:30] = 77
    there = [int(i) for i in np.unique(truth) if i]
    wanted = [Labelled(i, int(rng.integers(3)), bool(rng.random() < 0.2)) for i in there]
    category = {one.id: one.category for one in wanted}
    segments = [
        Labelled(int(i), category.get(int(i), 1) if rng.random() < 0.8 else int(rng.integers(3)))
        for i in np.unique(found)
        if i
    ]
    tallies = compare(truth, wanted, found, segments)
    for number in range(3):
        own = tallies.get(number, Tally())
        expected = literal(truth, wanted, found, segments, number)
        assert (own.matched, own.wrong, own.missed) == expected[1:]
        assert own.iou == pytest.approx(expected[0])


def test_what_is_perfect_is_100_and_categories_that_do_not_occur_do_not_count():
    ids = np.repeat([[1, 2, 0]], 4, 0)
    segments = [Labelled(1, 7), Labelled(2, 9)]
    tallies = compare(ids, segments, ids, segments)
    assert quality(tallies, (7, 8, 9)) == {"PQ": 100, "SQ": 100, "RQ": 100}
    assert all(np.isnan(value) for value in quality(tallies, (8,)).values())


def test_by_hand():
    truth, found = np.array([[1, 1, 1, 1, 2, 2, 0, 0]]), np.array([[5, 5, 5, 6, 6, 6, 6, 7]])
    wanted, segments = [Labelled(1, 0), Labelled(2, 0)], [Labelled(5, 0), Labelled(6, 0), Labelled(7, 0)]
    # 5 with 1: 3 / 4. 6 with 2: 2 of {4, 5, 6}, for its last pixel has no label. 7 lies where there is no label.
    assert compare(truth, wanted, found, segments)[0] == Tally(iou=3 / 4 + 2 / 3, matched=2, wrong=0, missed=0)
