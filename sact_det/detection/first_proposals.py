"""The best proposals of a feature map, found without comparing all that come behind them.

NMS takes boxes by falling score, and none changes what became of a better one: the first boxes that it keeps are those
that it keeps of any beginning of the list that has as many. On a CPU it compares box by box, and of thousands of
candidates a detector with few regions needs the first few.
"""

import math
from typing import Callable, Optional, Sequence

from detectron2.structures import Boxes, Instances
from torch import Tensor
from torchvision.ops import clip_boxes_to_image, nms

_MORE = 4  # times as many candidates as proposals are looked at, and so many times more where they do not suffice
_LEAST = 320  # candidates that are looked at, however few proposals there are to be

Decode = Callable[[Tensor, Tensor], Tensor]  # deltas and anchors, [K, 4] both -> boxes, [K, 4]


def find_first_proposals(
    anchors: Tensor,
    logits: Tensor,
    deltas: Tensor,
    decode: Decode,
    image_sizes: Sequence[tuple[int, int]],
    *,
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_box_size: float,
) -> Optional[list[Instances]]:
    """What Detectron2's `find_top_rpn_proposals` finds of one feature map in evaluation, to the last bit.

    Of equal scores it keeps some that depend on all candidates: where there are any among the best, nothing is found.

    Args:
        anchors: [A, 4].
        logits: [N, A], objectness.
        deltas: [N, A, 4].
        decode: makes boxes of deltas and anchors, each of its own ones alone.
        image_sizes: (height, width) of each image.
        nms_thresh, pre_nms_topk, post_nms_topk, min_box_size: as there.

    Returns:
        For each image Instances with `proposal_boxes` and `objectness_logits`, falling; post_nms_topk at most.
        Or None: equal scores leave it to Detectron2.
    """
    scores, order = logits.topk(min(logits.shape[1], pre_nms_topk), dim=1)

    def candidates(image: int, count: int) -> tuple[Tensor, Tensor]:
        """Boxes and scores of the first of an image, without those that are no numbers or too small."""
        best, own = order[image, :count], scores[image, :count]
        boxes = decode(deltas[image, best], anchors[best])
        if not math.isfinite(boxes.sum() + own.sum()):  # which a sum of finite numbers may not be, either
            finite = boxes.isfinite().all(1) & own.isfinite()
            boxes, own = boxes[finite], own[finite]
        inside = clip_boxes_to_image(boxes, image_sizes[image])
        low, high = inside.split(2, 1)
        large = (high - low > min_box_size).all(1)
        return inside[large], own[large]

    def first(image: int, count: int) -> Optional[Instances]:
        boxes, own = candidates(image, count)
        kept = nms(boxes.float(), own, nms_thresh)[:post_nms_topk]
        if len(kept) < post_nms_topk and count < order.shape[1]:
            return first(image, _MORE * count)
        found = Instances(image_sizes[image], proposal_boxes=Boxes(boxes[kept]), objectness_logits=own[kept])
        return None if _any_equal(found.objectness_logits, scores[image]) else found

    begun = max(_MORE * post_nms_topk, _LEAST)
    found = [first(image, begun) for image in range(len(image_sizes))]
    unequal = [own for own in found if own is not None]
    return unequal if len(unequal) == len(found) else None


def _any_equal(best: Tensor, scores: Tensor) -> bool:
    """Whether any of the best scores, which fall, are equal, or the last is that of another candidate."""
    return len(best) > 0 and (bool((best[1:] == best[:-1]).any()) or int((scores == best[-1]).sum()) > 1)
