"""Boxes computed side by side are Detectron2's, to the last bit, and so is what is learned through them."""

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.box_regression import Box2BoxTransform, Box2BoxTransformRotated
from torch import Tensor

from sact_det.detection.box_transform import SideBySideTransform, compute_side_by_side
from sact_det.tasks import load_config

ROOT = Path(__file__).parents[2]
WEIGHTS = [
    (1.0, 1.0, 1.0, 1.0),
    (10.0, 10.0, 5.0, 5.0),
    (3.0, 3.0, 0.7, 0.7),
    (1.0, 2.0, 3.0, 3.0),
    (1.0, 1.0, 3.0, 2.0),
]


def deltas_and_boxes(number: int, kinds: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(number)
    corners = torch.rand(number, 2, generator=random) * 500
    boxes = torch.cat([corners, corners + torch.rand(number, 2, generator=random) * 300], 1)
    return torch.randn(number, 4 * kinds, generator=random) * 3, boxes  # some beyond the clamp


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(("number", "kinds"), [(0, 1), (1, 1), (77, 1), (1000, 1), (20, 6), (0, 80), (300, 80)])
def test_the_boxes_are_the_same(weights: tuple[float, float, float, float], number: int, kinds: int):
    for dtype in (torch.float32, torch.bfloat16):
        deltas, boxes = deltas_and_boxes(number, kinds)
        theirs = Box2BoxTransform(weights).apply_deltas(deltas.to(dtype), boxes)
        ours = SideBySideTransform(weights).apply_deltas(deltas.to(dtype), boxes)
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)


def test_so_are_those_that_are_no_numbers():
    deltas, boxes = deltas_and_boxes(40, 1)
    deltas[::3, 2], deltas[1::3, 0], boxes[7, 1] = torch.inf, torch.nan, -torch.inf
    both = [kind((1.0, 1.0, 1.0, 1.0)).apply_deltas(deltas, boxes) for kind in (Box2BoxTransform, SideBySideTransform)]
    assert torch.equal(*(boxes.isnan() for boxes in both)) and torch.equal(*(boxes.nan_to_num() for boxes in both))


def test_gradients_are_the_same():
    grads = []
    for kind in (Box2BoxTransform, SideBySideTransform):
        deltas, boxes = deltas_and_boxes(50, 3)
        kind((10.0, 10.0, 5.0, 5.0)).apply_deltas(deltas.requires_grad_(), boxes).square().sum().backward()
        grads.append(deltas.grad)
    assert torch.equal(*grads)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace` is deprecated")
def test_what_is_recorded_holds_for_other_numbers_of_boxes():
    transform = SideBySideTransform((1.0, 1.0, 1.0, 1.0))
    recorded = torch.jit.trace(transform.apply_deltas, deltas_and_boxes(5, 2))
    for number in (0, 9):
        assert torch.equal(recorded(*deltas_and_boxes(number, 2)), transform.apply_deltas(*deltas_and_boxes(number, 2)))


@pytest.mark.parametrize("name", ["tiny", "tiny_fpn", "tiny_panoptic", "tiny_retinanet"])
def test_every_transform_of_a_detector_is_one(name: str):
    model = build_model(load_config(str(ROOT / f"configs/tests/{name}.yaml"), ["MODEL.DEVICE", "cpu"]))
    found = [part.box2box_transform for part in model.modules() if hasattr(part, "box2box_transform")]
    assert found and all(type(transform) is SideBySideTransform for transform in found)


def test_no_other_object_becomes_one():
    for other in (None, Box2BoxTransformRotated((1.0, 1.0, 1.0, 1.0, 1.0)), SideBySideTransform((1.0, 1.0, 1.0, 1.0))):
        kind = type(other)
        compute_side_by_side(other)
        assert type(other) is kind
