"""Boxes that every candidate of a benchmark gets, in the place of what it proposes."""

import pytest
import torch
from detectron2.structures import ImageList
from torch import nn

from sact_det.benchmark.regions import GivenRegions, random_boxes


@pytest.mark.parametrize("size", [(600, 800), (40, 9)])
def test_boxes_lie_inside_the_image_and_have_an_area(size):
    boxes = random_boxes(500, size, seed=0)
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= torch.tensor([size[1], size[0]]) + 1e-3).all()
    sides = boxes[:, 2:] - boxes[:, :2]
    assert sides.min() > 8 and len(sides.unique()) > 400


class Proposes(nn.Module):
    def forward(self, images, features, targets):
        self.seen = features
        return ["its own"], {"loss": 1}


@pytest.mark.parametrize("number", [0, 1, 300])
def test_the_generator_works_and_its_proposals_are_replaced_by_the_same_boxes_each_time(number):
    inner = Proposes()
    generator = GivenRegions(inner, number, seed=3)
    images = ImageList(torch.zeros(2, 3, 64, 96), [(64, 96), (50, 80)])
    (first, second), losses = generator(images, {"res4": 1}, None)
    assert inner.seen == {"res4": 1} and losses == {"loss": 1}
    assert len(first) == len(second) == number and second.image_size == (50, 80)
    again = generator(images, {}, None)[0][0]
    assert torch.equal(first.proposal_boxes.tensor, again.proposal_boxes.tensor)
