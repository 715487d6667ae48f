"""Detectron2's detectors as recorders of PyTorch need them: one image's inference as arithmetic of tensors.

How many boxes are proposed, kept and pasted depends on the image. Detectron2 asks for these numbers as it goes; in a
recording they stay unknown, and there are as many rows as a recorded operator returns.
"""

import contextlib
from typing import Any, Callable, Iterator, Mapping, Sequence
from unittest import mock

import torch
import torch.nn.functional as F
from detectron2.export.torchscript_patch import patch_builtin_len
from detectron2.structures import BitMasks, Boxes, ImageList, Instances
from detectron2.structures.masks import ROIMasks
from torch import Tensor
from torchvision.ops import nms

from sact_det.export.keypoints import find_keypoints

Size = tuple[int, int]


@contextlib.contextmanager
def recordable() -> Iterator[None]:
    """Within it, what Detectron2's detectors do to a single image can be recorded; results are the same to rounding.

    torch.jit.trace follows the example through Detectron2's branches, so that little is to be done for it. torch.export
    follows none that depend on the values of a tensor.
    """
    replaced: dict[str, Any] = {
        "detectron2.structures.masks.ROIMasks.to_bitmasks": paste_masks,
        f"{_MODELING}.roi_heads.keypoint_head.heatmaps_to_keypoints": find_keypoints,
    }
    if not torch.jit.is_tracing():
        replaced.update(_WITHOUT_BRANCHES)
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch_builtin_len(_ASKING_FOR_LENGTHS))
        for name, replacement in replaced.items():
            stack.enter_context(mock.patch(name, replacement, create=name.endswith(".min")))
        yield


def paste_masks(self: ROIMasks, boxes: Boxes, height: Any, width: Any, threshold: float = 0.5) -> BitMasks:
    """As of ROIMasks.to_bitmasks: masks [R, M, M] of boxes, on the pixels of an image.

    Bilinear samples on a grid are two matrix products, of rows and of columns.
    """
    x0, y0, x1, y1 = boxes.tensor[:, :, None].unbind(1)
    rows = _bilinear(height, y0, y1, self.tensor)
    columns = _bilinear(width, x0, x1, self.tensor)
    return BitMasks(rows @ self.tensor @ columns.transpose(1, 2) >= threshold)


def _bilinear(pixels: Any, start: Tensor, end: Tensor, masks: Tensor) -> Tensor:
    """[R, pixels, M]: the weight of each of M values between start and end, [R, 1], at each pixel's centre."""
    side = masks.shape[2]
    centres = torch.arange(pixels, device=masks.device).to(masks.dtype) + 0.5
    at = (centres - start) / (end - start) * side - 0.5
    values = torch.arange(side, device=masks.device).to(masks.dtype)
    return (1 - (at[:, :, None] - values).abs()).clamp(min=0)


def pad_image(tensors: Sequence[Tensor], size_divisibility: int = 0, *args: Any, **kwargs: Any) -> ImageList:
    """As of ImageList.from_tensors, of one image [C, H, W]: padded at the end to whole multiples of a size."""
    (image,) = tensors
    step, (height, width) = max(size_divisibility, 1), image.shape[1:]
    rows, columns = ((side + step - 1) // step * step for side in (height, width))
    return ImageList(F.pad(image, (0, columns - width, 0, rows - height))[None], [(height, width)])


def top_left(images: Tensor, size: Size) -> Tensor:
    """As of detection/backbone.py: gathered, for a recorder of slices asks whether they are the whole."""
    for axis, side in zip((2, 3), size):
        images = images.index_select(axis, torch.arange(side, device=images.device))
    return images


def clip(self: Boxes, box_size: Size) -> None:
    """As of Boxes.clip, of finite boxes: in place, into an image of (height, width)."""
    height, width = box_size
    x, y = self.tensor[:, 0::2].clamp(0, width), self.tensor[:, 1::2].clamp(0, height)
    self.tensor = torch.stack((x, y), 2).flatten(1)


def find_proposals(
    proposals: Sequence[Tensor],
    pred_objectness_logits: Sequence[Tensor],
    image_sizes: Sequence[Size],
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_box_size: float,
    training: bool,
) -> list[Instances]:
    """As of Detectron2's find_top_rpn_proposals, of one image and finite numbers."""
    logits, boxes, levels = [], [], []
    for level, (own, all_logits) in enumerate(zip(proposals, pred_objectness_logits)):
        best, index = all_logits[0].topk(torch.sym_min(all_logits.shape[1], pre_nms_topk))
        logits.append(best)
        boxes.append(own[0][index])
        levels.append(torch.full_like(index, level))
    (size,) = image_sizes
    found = Boxes(torch.cat(boxes))
    found.clip(size)
    kept = found.nonempty(threshold=min_box_size)
    found, score, level_of = found[kept], torch.cat(logits)[kept], torch.cat(levels)[kept]
    kept = best_of_each(found.tensor, score, level_of, nms_thresh)[:post_nms_topk]
    return [Instances(size, proposal_boxes=found[kept], objectness_logits=score[kept])]


def find_objects(
    boxes: Tensor, scores: Tensor, image_shape: Size, score_thresh: float, nms_thresh: float, topk_per_image: int
) -> tuple[Instances, Tensor]:
    """As of Detectron2's fast_rcnn_inference_single_image, of finite numbers and a limit of detections."""
    region, category = (scores[:, :-1] > score_thresh).nonzero().unbind(1)
    by_class = boxes.unflatten(1, (-1, 4))
    found = Boxes(by_class[region, category if by_class.shape[1] > 1 else 0])
    found.clip(image_shape)
    score = scores[region, category]
    kept = best_of_each(found.tensor, score, category, nms_thresh)[:topk_per_image]
    objects = Instances(image_shape, pred_boxes=found[kept], scores=score[kept], pred_classes=category[kept])
    return objects, region[kept]


def best_of_each(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """As of Detectron2's batched_nms: boxes of one index suppress each other; those of others lie apart from them."""
    apart = boxes.double()
    corners = F.pad(apart.flatten(), (0, 1))  # one more, for there may be no box
    apart = apart + (idxs * (corners.amax() - corners.amin() + 1))[:, None]
    return nms(apart, scores.double(), iou_threshold)


def boxes_of_one_image(box_lists: Sequence[Boxes]) -> Tensor:
    """As of Detectron2's convert_boxes_to_pooler_format: [R, 5], the index of the only image in front."""
    (boxes,) = box_lists
    return F.pad(boxes.tensor, (1, 0))


def _keep(self: Boxes, tensor: Tensor) -> None:
    self.tensor = tensor


def _keep_field(self: Instances, name: str, value: Any) -> None:
    self._fields[name] = value


_MODELING = "detectron2.modeling"
# Modules that ask rows for their number with len(), which must be a number.
_ASKING_FOR_LENGTHS = (
    "sact_det.detection.proposals",
    "sact_det.detection.roi_heads",
    "sact_det.engine.priced",
)
_WITHOUT_BRANCHES: Mapping[str, Callable[..., Any]] = {
    "detectron2.structures.boxes.Boxes.__init__": _keep,
    "detectron2.structures.boxes.Boxes.clip": clip,
    "detectron2.structures.image_list.ImageList.from_tensors": pad_image,
    "detectron2.structures.instances.Instances.set": _keep_field,
    f"{_MODELING}.meta_arch.dense_detector.min": torch.sym_min,
    f"{_MODELING}.meta_arch.retinanet.batched_nms": best_of_each,
    f"{_MODELING}.poolers.convert_boxes_to_pooler_format": boxes_of_one_image,
    f"{_MODELING}.proposal_generator.rpn.find_top_rpn_proposals": find_proposals,
    f"{_MODELING}.roi_heads.fast_rcnn.fast_rcnn_inference_single_image": find_objects,
    "sact_det.detection.backbone.top_left": top_left,
    "sact_det.detection.pooler.convert_boxes_to_pooler_format": boxes_of_one_image,
}
