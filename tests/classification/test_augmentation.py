"""What training images become, and that torch's generator alone decides it."""

import numpy as np
import pytest
import torch
from labelled_folders import noise_image

from sact_det.classification.augmentation import AUGMENTATIONS, build_augmentation
from sact_det.classification.preprocessing import evaluation_image


def augmented(name, image, size, seed):
    torch.manual_seed(seed)
    return build_augmentation(name, size, 0.875)(image)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_result_has_the_size_asked_for_and_depends_on_the_generator_alone(name):
    image = noise_image(0, 0, (32, 32) if name == "cifar" else None)
    results = [augmented(name, image, 32, seed) for seed in range(8)]
    assert all(result.shape == (3, 32, 32) and result.min() >= 0 and result.max() <= 255 for result in results)
    assert torch.equal(augmented(name, image, 32, 3), results[3])
    assert (len({result.numpy().tobytes() for result in results}) == 1) == (name == "none")


def test_cifar_images_are_windows_of_the_image_in_a_black_frame_of_4_flipped_or_not():
    image = noise_image(1, 0, (32, 32))
    frame = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    windows = {}
    for y, x in np.ndindex(9, 9):
        window = frame[y : y + 32, x : x + 32]
        windows[window.tobytes()] = (y, x, False)
        windows[np.ascontiguousarray(window[:, ::-1]).tobytes()] = (y, x, True)
    drawn = [windows[augmented("cifar", image, 32, seed).permute(1, 2, 0).numpy().tobytes()] for seed in range(60)]
    assert {y for y, _, _ in drawn} == {x for _, x, _ in drawn} == set(range(9))
    assert {flipped for _, _, flipped in drawn} == {False, True}


def test_without_augmentation_training_sees_what_the_evaluation_sees():
    image = noise_image(2, 1)
    assert torch.equal(augmented("none", image, 48, 0), evaluation_image(image, 48))


def test_inception_varies_place_scale_orientation_and_colour():
    height, width = 90, 120
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows * 2, columns * 2, np.full_like(rows, 100)], -1).astype(np.uint8)
    results = torch.stack([augmented("inception", image, 48, seed).float() for seed in range(40)])
    slopes = (results[:, 1, :, -1] - results[:, 1, :, 0]).mean(1)  # green rises from left to right, unless flipped
    assert (slopes > 10).sum() > 8 and (slopes < -10).sum() > 8
    heights = (results[:, 0, -1] - results[:, 0, 0]).mean(1)  # red rises over what was cut out
    assert heights.max() > 2 * heights.clamp(min=1).min()
    assert results[:, 2].mean((1, 2)).std() > 10  # constant in the image: colours alone change it
