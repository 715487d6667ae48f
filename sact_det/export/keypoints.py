"""Keypoints of heatmaps, one box after the other, in loops that recorders of PyTorch keep as loops.

A heatmap is enlarged to the pixels of its box, and the highest one is the keypoint. Each box has another size, so that
there is no batch of them; bicubic samples on a grid are two matrix products, of rows and of columns.
"""

import torch
from torch import Tensor


def find_keypoints(maps: Tensor, boxes: Tensor) -> Tensor:
    """As of Detectron2's heatmaps_to_keypoints: [R, K, 4] of x, y, logit and score.

    Args:
        maps: heatmaps of logits, float32 [R, K, S, S].
        boxes: [R, 4], x0, y0, x1, y1 in pixels.
    """
    return _in_an_exported_loop(maps, boxes) if torch.compiler.is_compiling() else _in_a_scripted_loop(maps, boxes)


@torch.jit.script_if_tracing
def _in_a_scripted_loop(maps: Tensor, boxes: Tensor) -> Tensor:
    found = torch.zeros([boxes.shape[0], maps.shape[1], 4], device=maps.device)
    for region in range(boxes.shape[0]):
        pixels = _size(boxes[region]).ceil().long()
        found[region] = _highest(maps[region], boxes[region], int(pixels[1]), int(pixels[0]))
    return found


def _in_an_exported_loop(maps: Tensor, boxes: Tensor) -> Tensor:
    from torch._higher_order_ops import while_loop  # PyTorch calls it a prototype

    boxes, maps = boxes.clone(), maps.clone()  # a loop takes no views of one tensor
    number = torch.ones_like(boxes[:, 0], dtype=torch.int64).sum()  # not an int, which a loop does not take unknown

    def more(region: Tensor, found: Tensor) -> Tensor:
        return region < number

    def step(region: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        at = region[None]
        box, heatmaps = boxes.index_select(0, at)[0], maps.index_select(0, at)[0]
        width, height = _size(box).ceil().long().tolist()
        for side in (width, height):
            torch._check(side >= 1)
        return region + 1, found.index_copy(0, at, _highest(heatmaps, box, height, width)[None])

    first = torch.zeros((), dtype=torch.int64, device=maps.device)
    return while_loop(more, step, (first, maps.new_zeros(boxes.shape[0], maps.shape[1], 4)))[1]


def _highest(maps: Tensor, box: Tensor, height: int, width: int) -> Tensor:
    """[K, 4] of the heatmaps [K, S, S] of a box, [4], of so many pixels."""
    rows, columns = _samples(height, maps.shape[1], maps), _samples(width, maps.shape[2], maps)
    logit, at = (rows @ maps @ columns.t()).flatten(1).max(1)
    pixel = torch.stack(((at % width).float(), (at // width).float()), 1) + 0.5
    size = _size(box)
    place = box[:2] + pixel * (size / size.ceil())
    # Its share of the map before it was enlarged: scores of large and small boxes can be compared.
    score = 1 / (maps - logit[:, None, None]).exp().sum((1, 2))
    return torch.cat((place, logit[:, None], score[:, None]), 1)


def _size(box: Tensor) -> Tensor:
    return (box[2:] - box[:2]).clamp(min=1)


def _samples(pixels: int, side: int, like: Tensor) -> Tensor:
    """[pixels, side]: the weight of each of so many values, on the device of a tensor, at each pixel's centre.

    PyTorch's bicubic interpolation: Keys' kernel (1981) with a = -0.75, and the outermost values go on outside.
    """
    at = (torch.arange(pixels, device=like.device).float() + 0.5) * (side / pixels) - 0.5
    values, before = torch.arange(side, device=like.device).float(), at.floor()
    weights = torch.zeros([pixels, side], device=like.device)
    for step in range(-1, 3):
        distance = (at - before - step).abs()
        near = (1.25 * distance - 2.25) * distance * distance + 1
        far = ((-0.75 * distance + 3.75) * distance - 6) * distance + 3
        weight = torch.where(distance <= 1, near, far)
        weights = weights + weight[:, None] * ((before + step).clamp(0, side - 1)[:, None] == values)
    return weights
