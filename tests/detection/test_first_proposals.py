"""Proposals that are found without looking at all candidates are Detectron2's, to the last bit."""

import math
from typing import Optional

import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from detectron2.structures import Instances
from torch import Tensor

from sact_det.detection import first_proposals
from sact_det.detection.first_proposals import find_first_proposals

SIZES = [(120, 160), (75, 140)]
DECODE = Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)).apply_deltas


def candidates(count: int, spread: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Anchors, logits and deltas for two images; the smaller `spread`, the more boxes cover each other."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.rand(count, 2, generator=random) * 120 * spread + 20
    sides = 5 + torch.rand(count, 2, generator=random) * 60
    anchors = torch.cat([centres - sides / 2, centres + sides / 2], 1)
    return anchors, torch.randn(2, count, generator=random), torch.randn(2, count, 4, generator=random) * 0.2


def find(
    anchors: Tensor, logits: Tensor, deltas: Tensor, pre: int, post: int, smallest: float = 0.0, threshold: float = 0.7
) -> Optional[list[Instances]]:
    names = {"nms_thresh": threshold, "pre_nms_topk": pre, "post_nms_topk": post, "min_box_size": smallest}
    return find_first_proposals(anchors, logits, deltas, DECODE, SIZES, **names)


def found_by_both(
    anchors: Tensor, logits: Tensor, deltas: Tensor, pre: int, post: int, smallest: float = 0.0, threshold: float = 0.7
) -> list[tuple[Instances, Instances]]:
    boxes = DECODE(deltas.reshape(-1, 4), anchors.repeat(2, 1)).view(2, -1, 4)
    theirs = find_top_rpn_proposals([boxes], [logits], SIZES, threshold, pre, post, smallest, False)
    ours = find(anchors, logits, deltas, pre, post, smallest, threshold)
    assert ours is not None
    return list(zip(ours, theirs, strict=True))


def check(pairs: list[tuple[Instances, Instances]]) -> list[int]:
    for ours, theirs in pairs:
        assert ours.image_size == theirs.image_size and ours.get_fields().keys() == theirs.get_fields().keys()
        assert torch.equal(ours.proposal_boxes.tensor, theirs.proposal_boxes.tensor)
        assert torch.equal(ours.objectness_logits, theirs.objectness_logits)
    return [len(ours) for ours, _ in pairs]


@pytest.mark.parametrize("spread", [0.0, 0.02, 0.3, 1.0])
@pytest.mark.parametrize("post", [0, 1, 7, 20, 300, 5000])
@pytest.mark.parametrize("pre", [50, 1000, 6000])
@pytest.mark.parametrize("count", [1, 19, 900, 2500])
def test_they_are_the_same(count: int, pre: int, post: int, spread: float):
    counts = check(found_by_both(*candidates(count, spread), pre, post))
    assert max(counts) <= post and (min(counts) > 0 or post == 0 or count == 1)  # a box may lie beyond its image


@pytest.mark.parametrize("pre", [900, 2500])  # of more than 1,000 Detectron2 sorts what is kept once more
@pytest.mark.parametrize("post", [40, 400])
def test_equal_scores_among_the_best_are_left_to_detectron2(pre: int, post: int):
    anchors, logits, deltas = candidates(2500, 0.3)
    logits[1, :2] = logits[1].max() + 1
    assert find(anchors, logits, deltas, pre, post) is None
    logits[1, 1] += 1
    check(found_by_both(anchors, logits, deltas, pre, post))
    _, last = found_by_both(anchors, logits, deltas, pre, post)[1]
    logits[1, logits[1].argmin()] = last.objectness_logits[-1]
    assert find(anchors, logits, deltas, pre, post) is None


@pytest.mark.parametrize("broken", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("share", [2, 1])
def test_what_is_no_number_is_no_proposal(broken: float, share: int):
    for of_logits in (True, False):
        anchors, logits, deltas = candidates(600, 0.3)
        (logits if of_logits else deltas)[:, ::share] = broken
        counts = check(found_by_both(anchors, logits, deltas, 500, 20))
        assert counts == [0, 0] if share == 1 else counts == [20, 20]


@pytest.mark.parametrize("smallest", [0.0, 30.0, 1000.0])
def test_small_boxes_are_left_out(smallest: float):
    counts = check(found_by_both(*candidates(800, 0.5), 800, 25, smallest))
    assert counts == ([0, 0] if smallest == 1000 else [25, 25])


def test_no_more_is_looked_at_than_is_needed(monkeypatch: pytest.MonkeyPatch):
    compared = []
    nms = first_proposals.nms
    monkeypatch.setattr(first_proposals, "nms", lambda boxes, *rest: compared.append(len(boxes)) or nms(boxes, *rest))
    check(found_by_both(*candidates(2500, 1.0), 2500, 10))
    assert len(compared) == 2 and max(compared) <= 320
    compared.clear()
    check(found_by_both(*candidates(2500, 1.0), 2500, 100))
    assert len(compared) == 2 and 320 < max(compared) <= 400
    compared.clear()
    check(found_by_both(*candidates(2500, 0.0), 2500, 10, threshold=0.01))
    assert len(compared) == 6 and max(compared) > 2000  # 320, 1280 and all
