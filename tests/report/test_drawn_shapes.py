"""Masks and keypoints come to the page as they were found, in as many characters as there is room for."""

import re

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from report_page import shapes
from scipy.ndimage import gaussian_filter

from sact_det.detection.predictor import Prediction
from sact_det.report.detector import seen
from sact_det.report.shapes import TOLERANCES, Shape, mask_path, pack_shapes
from sact_det.rule.ponder import PonderRecord


def filled(path, size):
    """The mask of a path by the even-odd rule at the middles of pixels: bool [H, W]."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    inside = np.zeros(size, bool)
    for part in re.findall(r"M([^z]*)z", path):
        start, _, steps = part.partition("l")
        numbers = np.array(steps.split(), int).reshape(-1, 2)
        corners = np.cumsum(np.vstack([np.array(start.split(), int), numbers]), axis=0)
        for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0)):
            crosses = (y0 <= rows) != (y1 <= rows)
            with np.errstate(divide="ignore", invalid="ignore"):
                inside ^= crosses & (columns < x0 + (rows - y0) / (y1 - y0) * (x1 - x0))
    return inside


def blob(seed, size=(120, 160)):
    return gaussian_filter(np.random.default_rng(seed).normal(size=size), 9) > 0.005


@pytest.mark.parametrize("mask", [*(blob(seed) for seed in range(4)), *(one.mask for one in shapes(0, (120, 160)))])
def test_a_path_fills_its_mask(mask):
    back = filled(mask_path(mask), mask.shape)
    assert (back & mask).sum() / (back | mask).sum() > 0.95


def test_a_rectangle_is_exact_and_nothing_is_no_path():
    mask = np.zeros((40, 50), bool)
    mask[10:30, 5:45] = True
    assert np.array_equal(filled(mask_path(mask), mask.shape), mask)
    assert mask_path(np.zeros((4, 5), bool)) == ""


def test_shapes_take_no_more_room_than_there_is_and_the_first_are_kept():
    masks = [Shape(blob(seed)) for seed in range(6)]
    free = [len(mask_path(one.mask, TOLERANCES[0] / 4)) for one in masks]
    for room in (1e9, sum(free) / 2, 300, 0):
        packed = pack_shapes(masks, room)
        paths = [one.get("mask", "") for one in packed]
        assert sum(map(len, paths)) <= room and len(packed) == 6
        assert [bool(path) for path in paths] == sorted((bool(path) for path in paths), reverse=True)
    assert all(one["mask"] for one in pack_shapes(masks, sum(free) / 2))  # coarser, but all


def test_keypoints_are_whole_pixels_and_unsure_ones_are_none():
    ((mask, points), (other,)) = (one.values() for one in pack_shapes(shapes(0, (120, 160)), 1e9))
    assert points == [[20, 30], [40, 45], None] and mask.startswith("M") and other.startswith("M")


def test_a_detectors_masks_and_keypoints_go_with_their_boxes():
    instances = Instances((120, 160))
    instances.pred_boxes = Boxes(torch.tensor([[10.0, 20, 70, 70], [80, 30, 150, 90], [0, 0, 9, 9]]))
    instances.scores = torch.tensor([0.9, 0.8, 0.01])
    instances.pred_classes = torch.tensor([0, 1, 2])
    instances.pred_masks = torch.from_numpy(np.stack([blob(n) for n in range(3)]))
    instances.pred_keypoints = torch.arange(18.0).reshape(3, 2, 3)
    numbers = {"mean_ponder_cost": 3.0, "flops_percent": 70.0}
    found = seen(Prediction(instances, PonderRecord({}, torch.zeros(1, dtype=torch.int64)), numbers), adaptive=False)
    assert len(found.boxes) == len(found.shapes) == 2
    for number, shape in enumerate(found.shapes):
        assert np.array_equal(shape.mask, blob(number))
        assert np.array_equal(shape.keypoints, instances.pred_keypoints[number])
    instances.remove("pred_masks")
    instances.remove("pred_keypoints")
    plain = seen(Prediction(instances, PonderRecord({}, torch.zeros(1, dtype=torch.int64)), numbers), adaptive=False)
    assert plain.boxes == found.boxes and not plain.shapes
