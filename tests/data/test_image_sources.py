"""Every layout of labelled images yields the same: pixels, labels, and a name for what is broken."""

import contextlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from labelled_folders import encoded, noise_image, write_class_folders
from PIL import Image

from sact_det.base.errors import InputError
from sact_det.data.image_files import read_checked
from sact_det.data.image_sources import open_images
from sact_det.data.labelled_images import LabelledImages
from sact_det.tasks import load_config

TINY = str(Path(__file__).parents[2] / "configs/tests/tiny_classifier.yaml")


def refusal(*arguments):
    with pytest.raises(InputError) as error:
        open_images(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def write_npz(path, images=None, **changes):
    images = images or [encoded(noise_image(label, number, (32, 32))) for label in range(3) for number in range(2)]
    arrays = {
        "jpeg": np.frombuffer(b"".join(images), np.uint8),
        "end": np.cumsum([len(image) for image in images]),
        "label": np.array([0, 0, 1, 1, 2, 2], np.uint8),
        "classes": np.array(["apple", "leaf", "sky"]),
        **changes,
    }
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_class_folders_are_numbered_in_sorted_order(tmp_path):
    images = open_images(write_class_folders(tmp_path / "data", classes=("sky", "apple", "leaf")))
    assert isinstance(images, LabelledImages) and len(images) == 12
    assert images.classes == ["apple", "leaf", "sky"]
    colours = {0: 1, 1: 2, 2: 0}  # which colour each class was written with
    for index, item in enumerate(images):
        label, number = divmod(index, 4)
        assert (item["image_id"], item["label"]) == (index, label)
        assert item["file_name"] == str(tmp_path / "data" / images.classes[label] / f"{number}.png")
        assert item["image"].dtype == np.uint8
        np.testing.assert_array_equal(item["image"], noise_image(colours[label], number))


def test_other_files_in_a_class_folder_are_no_images(tmp_path):
    root = write_class_folders(tmp_path / "data", per_class=1)
    (tmp_path / "data/apple/Thumbs.db").write_bytes(b"x")
    (tmp_path / "data/.cache").mkdir()
    (tmp_path / "data/readme.txt").write_text("x")
    (tmp_path / "data/apple/._0.png").write_bytes(b"Mac OS X")
    (tmp_path / "data/apple/folder.png").mkdir()
    assert len(open_images(root)) == 3


def test_images_come_upright_as_pictures_show_them(tmp_path):
    root = write_class_folders(tmp_path / "data", per_class=1)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its left side
    Image.fromarray(noise_image(0, 0)).save(tmp_path / "data/apple/0.png", exif=exif)
    item = open_images(root)[0]
    assert item["image"].shape == (80, 60, 3)
    np.testing.assert_array_equal(item["image"], read_checked(tmp_path / "data/apple/0.png", "RGB"))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_every_image_becomes_rgb(tmp_path, mode):
    root = write_class_folders(tmp_path / "data", per_class=1)
    form = "jpeg" if mode == "CMYK" else "png"
    path = tmp_path / f"data/apple/a.{form}"
    Image.fromarray(noise_image(0, 0)).convert(mode).save(path, form)
    (item,) = [item for item in open_images(root) if item["file_name"] == str(path)]
    assert item["image"].shape == (60, 80, 3)


def test_the_images_of_an_npz_are_those_that_were_encoded(tmp_path):
    images = open_images(write_npz(tmp_path / "train.npz"))
    assert images.classes == ["apple", "leaf", "sky"]
    assert [item["label"] for item in images] == [0, 0, 1, 1, 2, 2]
    for index, item in enumerate(images):
        np.testing.assert_array_equal(item["image"], noise_image(index // 2, index % 2, (32, 32)))
    assert images[5]["file_name"] == f"{tmp_path / 'train.npz'}: image 5"
    with pytest.raises(IndexError):
        images[6]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"end": None}, "expected the arrays jpeg, end, label and classes"),
        ({"end": np.array([5, 4, 7, 8, 9, 10])}, "do not fit together"),
        ({"end": np.arange(1, 7)}, "do not fit together"),
        ({"label": np.array([0, 0, 1, 1, 2, 3])}, "do not fit together"),
        ({"label": np.array([0, 0, 1, 1, 2])}, "do not fit together"),
        ({"label": np.array([0.0] * 6)}, "do not fit together"),
        ({"label": np.array([-1, 0, 0, 0, 0, 0])}, "do not fit together"),
        ({"classes": np.array(["a", b"b", 3], object)}, "damaged, pickled, or not an npz"),
        ({"classes": np.arange(3)}, "do not fit together"),
    ],
)
def test_an_npz_whose_arrays_do_not_fit_is_refused(tmp_path, changes, message):
    path = write_npz(tmp_path / "train.npz", **changes)
    assert refusal(path).startswith(f"{path}: ") and message in refusal(path)


@pytest.mark.parametrize("content", [b"", b"PK\3\4 no zip", pickle.dumps({"jpeg": 1})], ids=["empty", "zip", "pickle"])
def test_a_damaged_npz_is_refused(tmp_path, content):
    (tmp_path / "train.npz").write_bytes(content)
    assert refusal(tmp_path / "train.npz") == f"{tmp_path / 'train.npz'}: damaged, pickled, or not an npz"


@pytest.mark.parametrize("content", [b"", b"no image", encoded(noise_image(0, 0))[:300]], ids=["empty", "text", "cut"])
@pytest.mark.parametrize("layout", ["folders", "npz"])
def test_a_broken_image_is_named(tmp_path, layout, content):
    if layout == "folders":
        root = write_class_folders(tmp_path / "data")
        (tmp_path / "data/leaf/2.png").write_bytes(content)
        images, name = open_images(root), str(tmp_path / "data/leaf/2.png")
    else:
        good = [encoded(noise_image(label, 0)) for label in (0, 0, 1, 1, 2, 2)]
        images = open_images(write_npz(tmp_path / "a.npz", [content if i == 3 else g for i, g in enumerate(good)]))
        name = f"{tmp_path / 'a.npz'}: image 3"
    with pytest.raises(InputError) as error:
        list(images)
    assert str(error.value).startswith(f"{name}: the image cannot be read: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "no such file or folder of images"),
        (lambda root: root.mkdir(), "holds no class folders"),
        (lambda root: (root / "apple").mkdir(parents=True), "no images in this class folder"),
        (lambda root: write_class_folders(root / "train"), "train: no images in this class folder"),
        (lambda root: root.write_text("x"), "not a layout of labelled images"),
    ],
    ids=["nothing", "empty", "empty class", "a folder too high", "a file"],
)
def test_a_path_without_labelled_images_is_named(tmp_path, make, message):
    make(tmp_path / "data")
    assert refusal(tmp_path / "data").startswith(str(tmp_path / "data")) and message in refusal(tmp_path / "data")


def test_a_split_of_what_has_none_is_refused(tmp_path):
    root = write_class_folders(tmp_path / "data")
    assert refusal(root, "val") == f"{root}: holds no splits; expected (name, path), without 'val'"


@pytest.mark.parametrize("entry", ["apple", ("a",), ("a", 3), ("a", "b", "c"), ("a", "b", "train", "d")], ids=str)
def test_an_entry_that_is_no_data_set_is_refused(entry):
    with pytest.raises(InputError, match=r"DATASETS\.CLASSIFICATION: each entry must be \(name, path\) or "):
        load_config(TINY, ["DATASETS.CLASSIFICATION", str([entry])])


def test_a_config_registers_its_data_sets_and_registering_again_replaces_them(tmp_path):
    for name in ("one", "two"):
        root = write_class_folders(tmp_path / name, per_class=1 if name == "one" else 2)
        load_config(TINY, ["DATASETS.CLASSIFICATION", str([("toy labels", root)])])
        assert len(DatasetCatalog.get("toy labels")) == (3 if name == "one" else 6)
    with contextlib.suppress(KeyError):
        DatasetCatalog.remove("toy labels")


def test_the_real_cifar10_jpeg_has_10_classes_of_32x32(request):
    folder = request.config.rootpath.parent / "shared/data/cifar10_jpeg"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}, which is not in the repository")
    images = open_images(folder / "test.npz")
    assert len(images) == 2000 and len(images.classes) == 10
    assert sorted(set(images.labels.tolist())) == list(range(10))
    assert all(images[index]["image"].shape == (32, 32, 3) for index in (0, 999, 1999))
