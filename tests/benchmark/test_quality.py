"""Which images of a data set are timed."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from sact_det.base.errors import InputError
from sact_det.benchmark import quality


def test_images_of_a_batch_are_alike_in_shape_and_every_config_has_the_same_ones(monkeypatch):
    heights = itertools.cycle((96, 160, 120))
    shapes = [(next(heights), 128) for _ in range(7)]
    items = [
        {"image_id": number, "height": height, "width": width, "image": torch.zeros(3, height // 2, width // 2)}
        for number, (height, width) in enumerate(shapes)
    ]
    monkeypatch.setattr(quality, "build_test_loader", lambda cfg, dataset: SimpleNamespace(dataset=items))
    batches = quality.timed_batches(None, "toy", most=7, batch=2)
    assert [[number for number, _ in images] for images in batches] == [[1, 4], [2, 5], [0, 3]]
    assert all(image is items[number]["image"] for images in batches for number, image in images)
    assert [number for ((number, _),) in quality.timed_batches(None, "toy", most=7)] == list(range(7))
    with pytest.raises(InputError, match="--batch 4: 'toy' has 3 images to time"):
        quality.timed_batches(None, "toy", most=3, batch=4)
