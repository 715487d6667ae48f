"""CAT2000's layout is read in its order and nothing is dropped silently; what is wrong is named in one line."""

import shutil

import cv2
import numpy as np
import pytest
from cat2000_folder import REAL, SHAPE, cells, random_locations, write_cat2000_folder, write_locations
from PIL import Image
from scipy.io import savemat

from sact_det.base.errors import InputError
from saliency.cat2000 import CATEGORIES, description, read_cat2000, statistics
from saliency.dataset import FixationDataset, FixationImage
from saliency.fixations import Fixations
from saliency.images import padding_mask, read_image


@pytest.fixture
def root(tmp_path):
    return write_cat2000_folder(tmp_path / "set")


def test_images_come_in_natural_order_without_model_output(root):
    for category in ("Action", "Social"):
        for folder, suffix in (("Stimuli", ".jpg"), ("FIXATIONLOCS", ".mat")):
            path = root / folder / category
            (path / f"001{suffix}").rename(path / f"1{suffix}")
            (path / f"002{suffix}").rename(path / f"002x{suffix}")
    dataset = read_cat2000(root)
    expected = [f"{category}/{name}" for category in ("Action", "Social") for name in ("1", "002x", "004", "010")]
    assert [image.name for image in dataset] == expected
    assert dataset.categories == {"Action": [0, 1, 2, 3], "Social": [4, 5, 6, 7]} and dataset.skipped == []


def test_the_folder_above_trainset_will_do(tmp_path):
    write_cat2000_folder(tmp_path / "trainSet")
    assert len(read_cat2000(tmp_path)) == 8


def test_fixations_are_where_the_map_is_not_zero(root):
    locations = np.zeros(SHAPE, np.float64)
    locations[3, 50] = locations[35, 0] = 1
    write_locations(root / "FIXATIONLOCS" / "Action" / "001.mat", locations)
    first = read_cat2000(root)[0]
    assert (first.fixations.x.tolist(), first.fixations.y.tolist()) == ([50, 0], [3, 35])
    assert first.shape == SHAPE and first.pixels().shape == (*SHAPE, 3)
    assert (first.fixations.counts() == locations).all()


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_fixation_maps_may_be_images(root, suffix):
    path = root / "FIXATIONLOCS" / "Action" / "001"
    path.with_suffix(".mat").unlink()
    locations = np.zeros(SHAPE, np.uint8)
    locations[8:16, 16:24] = 255  # a block of JPEG: compression blurs nothing
    cv2.imwrite(str(path.with_suffix(suffix)), locations)
    assert (read_cat2000(root)[0].fixations.counts() == locations // 255).all()


def test_two_fixation_files_of_one_image_are_named(root):
    cv2.imwrite(str(root / "FIXATIONLOCS/Action/001.png"), np.eye(9, dtype=np.uint8))
    with pytest.raises(InputError, match=r"001\.mat: also 001\.png: which of them are the fixations\?"):
        read_cat2000(root)


def test_hidden_files_and_folders_are_passed_over_and_suffixes_may_be_upper_case(root):
    for path in (root / "Stimuli/Action/001.jpg", root / "FIXATIONLOCS/Action/001.mat"):
        path.with_name(f"._{path.name}").write_bytes(b"Mac OS X")
        path.rename(path.with_name(path.name.upper()))
    (root / "Stimuli/.Trash").mkdir()
    assert len(read_cat2000(root)) == 8


def test_halves_split_every_category_and_the_second_takes_the_odd_one(tmp_path):
    write_cat2000_folder(tmp_path, numbers=(1, 3, 7, 20, 100))
    dataset = read_cat2000(tmp_path)
    (split,) = dataset.halves()
    first, second = dataset.subset(split.tuned_on), dataset.subset(split.scored)
    assert [image.name for image in first] == ["Action/001", "Action/003", "Social/001", "Social/003"]
    assert [image.name for image in second][:3] == ["Action/007", "Action/020", "Action/100"] and len(second) == 6


def test_folds_hold_every_image_once_and_spread_the_categories(root):
    dataset = read_cat2000(root)
    folds = [split.scored for split in dataset.folds(4)]
    assert sorted(index for fold in folds for index in fold) == list(range(8))
    assert all({dataset[index].category for index in fold} == {"Action", "Social"} for fold in folds)
    assert all(sorted([*split.tuned_on, *split.scored]) == list(range(8)) for split in dataset.folds(4))
    with pytest.raises(InputError, match="folds must lie between 2 and its 8 images"):
        dataset.folds(9)


def test_a_category_with_one_image_has_no_halves(tmp_path, caplog):
    write_cat2000_folder(tmp_path)
    shutil.rmtree(tmp_path / "Stimuli" / "Social")
    shutil.rmtree(tmp_path / "FIXATIONLOCS" / "Social")
    write_cat2000_folder(tmp_path, categories=("Pattern",), numbers=(5,))
    dataset = read_cat2000(tmp_path)
    with pytest.raises(InputError, match="Pattern/005: the only image of category 'Pattern'"):
        dataset.halves()
    (split,) = dataset.halves(skip_bad=True)
    assert len(split.tuned_on) == len(split.scored) == 2
    assert "left out: Pattern/005: the only image of category 'Pattern'" in caplog.text
    with pytest.raises(InputError, match="every category has a single image"):
        dataset.subset([0, len(dataset) - 1]).halves(skip_bad=True)


def replace_locations(write):
    def break_it(root):
        path = root / "FIXATIONLOCS" / "Action" / "002.mat"
        path.unlink()
        write(path)
        return path

    return break_it


def cut(path, length):
    path.write_bytes(path.read_bytes()[:length])
    return path


BROKEN = {
    "missing mat": (replace_locations(lambda path: None), "no such fixation file, for "),
    "other variable": (
        replace_locations(lambda path: write_locations(path, np.eye(9), "fixations")),
        "has no variable 'fixLocs'; it holds: fixations",
    ),
    "not a mat": (replace_locations(lambda path: path.write_bytes(b"x" * 300)), "not a MATLAB file that can be read"),
    "empty mat": (replace_locations(lambda path: path.write_bytes(b"")), "not a MATLAB file that can be read"),
    "cut mat": (lambda root: cut(root / "FIXATIONLOCS" / "Action" / "002.mat", 150), "not a MATLAB file"),
    "text": (replace_locations(lambda path: savemat(path, {"fixLocs": "hello"})), "must be numbers"),
    "complex": (replace_locations(lambda path: write_locations(path, np.eye(9) * 1j)), r"got complex128 [9, 9]"),
    "struct": (replace_locations(lambda path: savemat(path, {"fixLocs": {"a": 1, "b": 2}})), "a struct with a, b;"),
    "cells": (replace_locations(lambda path: write_locations(path, cells(np.eye(9), np.eye(9)))), "cell array of 2"),
    "empty cell": (replace_locations(lambda path: write_locations(path, cells())), "a cell array of 0 cells; expected"),
    "cell of text": (replace_locations(lambda path: write_locations(path, cells("hello"))), "must be numbers"),
    "nan": (replace_locations(lambda path: write_locations(path, np.full(SHAPE, np.nan))), "must be finite"),
    "other size": (
        replace_locations(lambda path: write_locations(path, np.eye(9))),
        "a fixation map of 9x9 pixels; the image ",
    ),
    "no fixations": (replace_locations(lambda path: write_locations(path, np.zeros(SHAPE))), "no fixations"),
    "corrupt jpg": (
        lambda root: cut(root / "Stimuli" / "Action" / "002.jpg", 1000),
        "the image cannot be read: image file is truncated",
    ),
    "empty jpg": (
        lambda root: cut(root / "Stimuli" / "Action" / "002.jpg", 0),
        "cannot be read: cannot identify image",
    ),
    "missing jpg": (
        lambda root: (root / "Stimuli" / "Action" / "002.jpg").unlink() or root / "FIXATIONLOCS/Action/002.mat",
        "there is no image of this name in ",
    ),
}


@pytest.mark.parametrize(("break_it", "message"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_with_an_image_is_named_or_listed(root, break_it, message):
    path = break_it(root)
    with pytest.raises(InputError) as error:
        read_cat2000(root)
    assert message in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)
    dataset = read_cat2000(root, skip_bad=True)
    assert len(dataset) == 7 and dataset.skipped == [str(error.value)]
    assert "Action/002" not in [image.name for image in dataset]


def test_what_is_wrong_with_a_folder_is_named(tmp_path, root):
    with pytest.raises(InputError, match="nowhere: no such folder"):
        read_cat2000(tmp_path / "nowhere")
    with pytest.raises(InputError, match="not in CAT2000's layout: no folder Stimuli"):
        read_cat2000(tmp_path)
    (tmp_path / "Stimuli").mkdir()
    with pytest.raises(InputError, match="has Stimuli but no folder FIXATIONLOCS"):
        read_cat2000(tmp_path)
    (tmp_path / "FIXATIONLOCS").mkdir()
    with pytest.raises(InputError, match="Stimuli: no images"):
        read_cat2000(tmp_path)
    shutil.rmtree(root / "FIXATIONLOCS" / "Action")
    shutil.rmtree(root / "FIXATIONLOCS" / "Social")
    with pytest.raises(InputError, match=r"no images with fixations \(8 left out, the first: .*001.mat: no such"):
        read_cat2000(root, skip_bad=True)


def test_statistics_say_that_a_part_is_not_the_whole(root):
    assert statistics(read_cat2000(root)).startswith(
        "this is not the full CAT2000 training set: 8 images (published: 2000)"
    )


def full_training_set(images=100, categories=20, fixations=336):
    shape = (1080, 1920)
    numbers = np.arange(fixations)
    found = Fixations(numbers, numbers, shape, of_map=True)
    return FixationDataset(
        "full",
        [
            FixationImage(f"{category}/{number}", str(category), found, np.zeros(0))
            for category in range(categories)
            for number in range(images)
        ],
    )


@pytest.mark.parametrize(
    ("changes", "full"),
    [({}, True), ({"images": 99}, False), ({"categories": 19}, False), ({"fixations": 337}, False)],
)
def test_statistics_know_the_full_training_set(changes, full):
    assert statistics(full_training_set(**changes)).startswith("this is the full" if full else "this is not the full")


@pytest.mark.parametrize(("number", "version"), [(672_053, "1.0"), (667_804, "1.1"), (667_803, None)])
def test_statistics_know_the_versions_of_the_eye_tracks(number, version):
    zeros, (whole, more) = np.zeros(number, np.int64), divmod(number, 2000)
    images = [
        FixationImage(
            f"{category}/{index:03}",
            str(place),  # pysaliency numbers categories
            Fixations(*[zeros[: whole + (100 * place + index < more)]] * 2, (1080, 1920)),
            np.zeros(0),
        )
        for place, category in enumerate(sorted(CATEGORIES))
        for index in range(100)
    ]
    line = description(FixationDataset("from pysaliency", images))
    start = f"this is the full CAT2000 training set, version {version}:" if version else "this is not the full"
    assert line.startswith(start)
    assert f"{number} fixations (version 1.0: 672053, version 1.1: 667804)" in line


def test_of_data_that_do_not_claim_to_be_cat2000_nothing_is_said_about_it(tmp_path):
    line = description(read_cat2000(write_cat2000_folder(tmp_path, categories=("Kitchens",))))
    assert line == "4 images, 1 category, 64x36, 48 fixated pixels, 0 left out"


def test_padding_is_the_grey_bars_and_not_grey_in_the_picture(tmp_path):
    image = np.full((120, 160, 3), 126, np.uint8)
    image[:, 32:128] = np.random.default_rng(0).integers(0, 256, (120, 96, 3))
    image[:, 64:80] = 126
    expected = np.ones((120, 160), bool)
    expected[:, 32:128] = False
    assert (padding_mask(image) == expected).all() and (padding_mask(image[:, :, 0].T) == expected.T).all()
    cv2.imwrite(str(tmp_path / "a.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert (padding_mask(read_image(tmp_path / "a.jpg")) == expected).mean() > 0.95  # the edge of the bars rings
    assert padding_mask(np.full((4, 5), 126, np.uint8)).all()
    assert not padding_mask(np.zeros((4, 5), np.uint8)).any()


def test_an_orientation_in_exif_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (20, 30, 3)


def test_points_are_scaled_with_the_image_and_stay_inside():
    fixations = Fixations.from_points([[0, 0], [63.9, 35.9], [32, 18]], SHAPE).scaled_to((9, 16))
    assert (fixations.x.tolist(), fixations.y.tolist()) == ([0, 15, 8], [0, 8, 4])


def test_the_density_sums_to_one_and_is_highest_where_people_looked():
    locations = np.zeros(SHAPE)
    locations[10, 20] = 1
    density = Fixations.from_map(locations).density(sigma=3)
    assert density.sum() == pytest.approx(1) and density.min() >= 0
    assert np.unravel_index(density.argmax(), SHAPE) == (10, 20)
    with pytest.raises(InputError, match="no fixations"):
        Fixations.from_map(np.zeros(SHAPE)).density()


def test_a_binary_map_and_its_fixations_are_the_same():
    locations = random_locations(np.random.default_rng(0))
    assert (Fixations.from_map(locations).counts() == locations).all()


@pytest.mark.skipif(not REAL.is_dir(), reason=f"needs the OSIE fixations in {REAL}")
def test_the_real_fixations_are_read_and_called_what_they_are():
    dataset = read_cat2000(REAL)
    assert statistics(dataset) == (
        "this is not the full CAT2000 training set: 350 images (published: 2000), 1 categories of 350 (20 of 100), "
        "800x600 (1920x1080), 48907 fixated pixels (at most 672053), 0 left out"
    )
    (split,) = dataset.halves()
    assert (len(split.tuned_on), len(split.scored)) == (175, 175)
    assert dataset[split.tuned_on[0]].name == "OSIE/1001"
