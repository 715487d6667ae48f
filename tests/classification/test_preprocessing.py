"""Evaluation preprocessing: the original program's output, and its rule pixel by pixel."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sact_det.classification.preprocessing import central_crop, evaluation_image, legacy_bilinear, whole_image

EXPECTED = Path(__file__).parents[1] / "fixtures/oracle/preprocessing/expected.npz"


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_evaluation_images_are_the_originals():
    with np.load(EXPECTED, allow_pickle=False) as archive:
        image, expected = archive["rand97x131/uint8"], archive["rand97x131/eval224"]
    prepared = evaluation_image(image, 224)
    assert prepared.dtype == torch.float32 and prepared.shape == (3, 224, 224)
    network_input = (prepared - 127.5) / 127.5
    np.testing.assert_allclose(network_input.permute(1, 2, 0).numpy(), expected, rtol=0, atol=1e-6)


def literal_resize(image, size):
    """TensorFlow 1's ResizeBilinear, one output value at a time, in float32."""
    one = np.float32
    out = np.zeros((*size, image.shape[2]), np.float32)
    for y, x in np.ndindex(*size):
        in_y = one(y) * (one(image.shape[0]) / one(size[0]))
        in_x = one(x) * (one(image.shape[1]) / one(size[1]))
        top, left = int(np.floor(in_y)), int(np.floor(in_x))
        bottom, right = min(top + 1, image.shape[0] - 1), min(left + 1, image.shape[1] - 1)
        down, across = in_y - one(top), in_x - one(left)
        for c in range(image.shape[2]):
            corner = image[:, :, c].astype(np.float32)
            above = corner[top, left] + (corner[top, right] - corner[top, left]) * across
            below = corner[bottom, left] + (corner[bottom, right] - corner[bottom, left]) * across
            out[y, x, c] = above + (below - above) * down
    return out


@pytest.mark.parametrize(
    ("size_in", "size_out"),
    [((7, 5), (11, 13)), ((13, 20), (6, 9)), ((9, 9), (9, 9)), ((1, 1), (3, 2)), ((8, 3), (1, 3))],
)
def test_resizing_follows_the_rule_pixel_by_pixel(size_in, size_out):
    image = noise(*size_in)
    resized = legacy_bilinear(image, size_out)
    assert resized.dtype == np.float32
    np.testing.assert_array_equal(resized, literal_resize(image, size_out))


def test_the_first_pixel_is_copied_and_the_last_is_clamped():
    image = noise(4, 4)
    resized = legacy_bilinear(image, (8, 8))
    np.testing.assert_array_equal(resized[::2, ::2], image)  # no half-pixel offset
    np.testing.assert_array_equal(resized[7, ::2], image[3])


@pytest.mark.parametrize("fraction", [0.875, 0.5, 0.8, 1.0])
@pytest.mark.parametrize(("height", "width"), [(97, 131), (32, 33), (500, 375), (1, 15)])
def test_the_crop_leaves_out_what_tensorflow_leaves_out(fraction, height, width):
    image = noise(height, width)
    share = {0.875: 16, 0.5: 4, 0.8: 10, 1.0: None}[fraction]
    if fraction == 0.8:
        share = int(1 / ((1 - 0.8) / 2.0))  # 10.000000000000002 in float64
    top, left = (0, 0) if share is None else (height // share, width // share)
    np.testing.assert_array_equal(central_crop(image, fraction), image[top : height - top, left : width - left])


def test_an_image_of_the_right_size_without_crop_keeps_its_pixels():
    image = noise(32, 32)
    np.testing.assert_array_equal(evaluation_image(image, 32, crop_fraction=1.0).permute(1, 2, 0).numpy(), image)


@pytest.mark.parametrize(
    ("size", "longer_edge", "expected"),
    [((60, 80), None, (60, 80)), ((60, 80), 40, (30, 40)), ((80, 60), 160, (160, 120)), ((1, 300), 30, (1, 30))],
)
def test_a_whole_image_keeps_its_aspect_ratio(size, longer_edge, expected):
    image = noise(*size)
    whole = whole_image(image, longer_edge)
    assert whole.dtype == torch.float32 and whole.shape == (3, *expected)
    np.testing.assert_array_equal(whole.permute(1, 2, 0).numpy(), literal_resize(image, expected))
