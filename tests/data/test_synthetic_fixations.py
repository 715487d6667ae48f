"""Made-up fixations lie around the digits, are the same every time, and are called what they are."""

import json

import numpy as np
import pytest

from sact_det.base.errors import InputError
from sact_det.data.demo import make_demo_dataset
from sact_det.data.synthetic_fixations import CATEGORIES, POINTS, make_synthetic_fixations
from saliency.cat2000 import read_cat2000

SIZE = (96, 120)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return make_demo_dataset(tmp_path_factory.mktemp("demo"), num_train=1, num_val=20, image_size=SIZE)


@pytest.fixture(scope="module")
def folder(demo, tmp_path_factory):
    return make_synthetic_fixations(tmp_path_factory.mktemp("synthetic"), demo, per_category=4)


def digits(demo, image):
    number = int(image.name.split("/")[1])
    annotations = json.loads(demo.val_json.read_text())["annotations"]
    return [one["bbox"] for one in annotations if one["image_id"] == number]


def test_it_is_read_as_cat2000_in_categories_by_the_number_of_digits(demo, folder):
    dataset = read_cat2000(folder)
    assert {name: len(indices) for name, indices in dataset.categories.items()} == dict.fromkeys(CATEGORIES, 4)
    for image in dataset:
        assert image.shape == SIZE and 0.7 * POINTS < len(image.fixations) <= POINTS
        assert (len(digits(demo, image)) > 3) == (image.category == "SyntheticMany")


def test_most_points_lie_on_digits(demo, folder):
    on_digit, area = [], []
    for image in read_cat2000(folder):
        covered = np.zeros(SIZE, bool)
        for x, y, w, h in digits(demo, image):
            covered[y : y + h, x : x + w] = True
        on_digit.append(covered[image.fixations.y, image.fixations.x].mean())
        area.append(covered.mean())
    assert np.mean(on_digit) > 0.65 and np.mean(on_digit) > 2 * np.mean(area)


def test_the_folder_says_that_nobody_looked(folder):
    text = (folder / "README.txt").read_text()
    assert "SYNTHETIC" in text and "say nothing about people" in text
    assert all("Synthetic" in category for category in CATEGORIES)


def test_the_same_arguments_give_the_same_points(demo, folder, tmp_path):
    again, other = (make_synthetic_fixations(tmp_path / str(seed), demo, 4, seed) for seed in (0, 1))
    first, same, different = (read_cat2000(root) for root in (folder, again, other))
    for one, two, three in zip(first, same, different):
        assert (one.fixations.counts() == two.fixations.counts()).all() and (one.pixels() == two.pixels()).all()
        assert (one.fixations.counts() != three.fixations.counts()).any()


@pytest.mark.parametrize("arguments", [{"per_category": 1}, {"seed": -1}])
def test_arguments_out_of_range_are_refused(demo, tmp_path, arguments):
    with pytest.raises(InputError, match="`per_category` must be at least 2 and `seed` 0 or more"):
        make_synthetic_fixations(tmp_path / "new", demo, **arguments)
    assert not (tmp_path / "new").exists()
