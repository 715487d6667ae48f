"""Blur, centre and mixture are what they say, at the scale that the config says."""

import json
from dataclasses import asdict

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from sact_det.base.errors import InputError
from saliency.blur import ReflectingBlur, gaussian_blur
from saliency.center import CenterBaseline
from saliency.metrics import auc_judd
from saliency.postprocess import PostProcessing, min_max, mix, resize, softmax

SHAPE = (90, 160)


def ponder_map(seed=0, shape=(12, 20)):
    return np.random.default_rng(seed).uniform(8, 40, shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(37, 52), (5, 9), (1, 4), (1, 1)])
@pytest.mark.parametrize("sigma", [0, 0.1, 1, 3.3, 20, (2, 5), (0, 4)])
def test_the_blur_is_the_sampled_gaussian_with_reflecting_borders(shape, sigma):
    values = np.random.default_rng(0).random(shape)
    assert gaussian_blur(values, sigma) == pytest.approx(gaussian_filter(values, sigma, mode="reflect"), abs=1e-13)
    single = gaussian_blur(values.astype(np.float32), sigma)
    assert single.dtype == np.float32 and single == pytest.approx(gaussian_blur(values, sigma), abs=1e-5)


def test_one_transform_serves_every_width():
    values = ponder_map()
    blur = ReflectingBlur(values)
    for sigma in (3, 0, 1, 3):
        assert (blur.blurred(sigma) == gaussian_blur(values, sigma)).all()


@pytest.mark.parametrize("sigma", [-1, np.nan, np.inf, (1, -1)])
def test_a_blur_without_a_width_is_refused(sigma):
    with pytest.raises(InputError, match="`sigma`"):
        gaussian_blur(ponder_map(), sigma)


@pytest.mark.parametrize("kind", ["stretched", "isotropic", "mit"])
@pytest.mark.parametrize("shape", [SHAPE, (91, 161), (160, 90), (1, 1)])
def test_a_centre_baseline_is_between_0_and_1_and_highest_in_the_middle(kind, shape):
    center = CenterBaseline(kind).map(shape)
    assert center.shape == shape and center.min() >= 0 and center.max() <= 1
    row, column = np.unravel_index(center.argmax(), shape)
    assert abs(row - (shape[0] - 1) / 2) <= 1 and abs(column - (shape[1] - 1) / 2) <= 1
    if kind != "mit":
        assert (center == center[::-1, ::-1]).all()


def test_the_gaussians_have_the_width_and_aspect_they_say():
    height, width = SHAPE[0] + 1, SHAPE[1] + 1  # a pixel in the middle
    stretched = CenterBaseline("stretched", 0.1).map((height, width))
    isotropic = CenterBaseline("isotropic", 0.2).map((height, width))
    y, x = np.mgrid[:height, :width] - np.array([height // 2, width // 2])[:, None, None]
    assert stretched == pytest.approx(np.exp(-((x / width) ** 2 + (y / height) ** 2) / (2 * 0.1**2)))
    assert isotropic == pytest.approx(np.exp(-(x**2 + y**2) / (2 * (0.2 * height) ** 2)))


def test_the_mit_centre_is_the_published_one_at_its_own_size_and_stretched_to_others():
    y, x = np.mgrid[:100, :100]
    published = 1 - 2e-4 * ((x - 49.0) ** 2 + (y - 49.0) ** 2)
    assert CenterBaseline("mit").map((100, 100)) == pytest.approx(published, abs=1e-12)
    bicubic = cv2.resize(published, SHAPE[::-1], interpolation=cv2.INTER_CUBIC)
    assert CenterBaseline("mit").map(SHAPE)[3:-3, 3:-3] == pytest.approx(bicubic[3:-3, 3:-3], abs=2e-3)


def test_the_width_of_a_centre_baseline_does_not_change_its_auc():
    locations = np.random.default_rng(0).random(SHAPE) < 0.01
    scores = {width: auc_judd(CenterBaseline("stretched", width).map(SHAPE), locations) for width in (0.2, 0.3, 0.5)}
    assert max(scores.values()) - min(scores.values()) < 1e-3  # rounding makes and breaks ties


@pytest.mark.parametrize("arguments", [("round",), ("mit", 0), ("mit", np.nan)])
def test_a_centre_baseline_out_of_range_is_refused(arguments):
    with pytest.raises(InputError, match="centre baseline must be"):
        CenterBaseline(*arguments)


def test_the_chain_is_resize_blur_min_max_and_mixture():
    chain = PostProcessing(sigma=5, multiplier=0.7, center=CenterBaseline("isotropic", 0.3))
    resized = cv2.resize(ponder_map().astype(np.float64), SHAPE[::-1], interpolation=cv2.INTER_LINEAR)
    blurred = gaussian_filter(resized, 5, mode="reflect")
    scaled = (blurred - blurred.min()) / (blurred.max() - blurred.min())
    saliency = chain(ponder_map(), SHAPE)
    assert saliency.dtype == np.float32
    assert saliency == pytest.approx(scaled + 0.7 * CenterBaseline("isotropic", 0.3).map(SHAPE), abs=1e-5)


def test_a_blur_at_the_map_has_its_sigma_in_pixels_of_the_image():
    chain = PostProcessing(sigma=16, blur_at="map", interpolation="nearest")
    blurred = gaussian_filter(ponder_map().astype(np.float64), (16 * 12 / 90, 16 * 20 / 160), mode="reflect")
    expected = cv2.resize(blurred, SHAPE[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    assert chain(ponder_map(), SHAPE) == pytest.approx(expected, abs=1e-5)
    assert chain(ponder_map(), SHAPE) != pytest.approx(PostProcessing(sigma=16)(ponder_map(), SHAPE), abs=1e-2)


def test_without_blur_and_centre_the_chain_keeps_the_order_of_the_map():
    values = ponder_map(shape=SHAPE)
    saliency = PostProcessing()(values, SHAPE)
    assert saliency.min() == 0 and saliency.max() == 1
    ordered = saliency.ravel()[np.argsort(values, axis=None)]
    assert (np.diff(ordered) >= 0).all()


def test_a_map_without_contrast_becomes_the_centre_alone():
    chain = PostProcessing(sigma=10, multiplier=2)
    assert (chain(np.full((12, 20), 17.3), SHAPE) == 2 * CenterBaseline().map(SHAPE).astype(np.float32)).all()


def test_an_infinite_multiplier_is_the_centre_alone():
    center = CenterBaseline("mit")
    saliency = PostProcessing(multiplier=np.inf, center=center)(ponder_map(), SHAPE)
    assert (saliency == center.map(SHAPE).astype(np.float32)).all()
    reused = np.empty(SHAPE, np.float32)
    assert mix(min_max(ponder_map(shape=SHAPE)), center.map(SHAPE).astype(np.float32), np.inf, out=reused) is reused


def test_weights_of_map_and_centre_order_the_pixels_as_multipliers_do():
    values, center = min_max(ponder_map(shape=SHAPE).astype(np.float64)), CenterBaseline().map(SHAPE)
    locations = np.random.default_rng(1).random(SHAPE) < 0.01
    expected = auc_judd(0.3 * center + 0.7 * values, locations)
    assert auc_judd(mix(values, center, 0.3 / 0.7), locations) == pytest.approx(expected, abs=1e-9)


def test_softmax_is_a_distribution_that_a_low_temperature_sharpens():
    values = PostProcessing()(ponder_map(), SHAPE)
    expected = np.exp(5.0 * values.astype(np.float64))
    assert softmax(values) == pytest.approx(expected / expected.sum(), rel=1e-9)
    assert softmax(1e4 * values).sum() == pytest.approx(1) and softmax(values, 0.01).max() > softmax(values).max()
    with pytest.raises(InputError, match="`temperature`"):
        softmax(values, 0)


def test_a_chain_can_be_written_as_json():
    chain = PostProcessing(longer_edge=320, sigma=3)
    content = json.loads(json.dumps(asdict(chain)))
    assert content["longer_edge"] == 320 and content["center"] == {"kind": "stretched", "width": 0.25}


@pytest.mark.parametrize(
    "arguments",
    [
        {"sigma": -1},
        {"sigma": np.inf},
        {"multiplier": -0.1},
        {"multiplier": np.nan},
        {"blur_at": "both"},
        {"interpolation": "area"},
    ],
)
def test_a_chain_out_of_range_is_refused(arguments):
    with pytest.raises(InputError, match=f"`{next(iter(arguments))}` must"):
        PostProcessing(**arguments)


@pytest.mark.parametrize("values", [np.full((3, 4), np.nan), np.zeros((3, 4, 1)), np.zeros((0, 4)), np.array([["a"]])])
def test_a_chain_refuses_what_is_no_map(values):
    with pytest.raises(InputError, match="a map must be"):
        PostProcessing()(values, SHAPE)


def test_resize_keeps_what_has_the_size_and_refuses_unknown_interpolation():
    values = ponder_map(shape=SHAPE)
    assert resize(values, SHAPE) is values
    with pytest.raises(InputError, match="`interpolation` must be one of nearest, linear, cubic"):
        resize(values, (3, 4), "area")
