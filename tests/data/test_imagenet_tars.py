"""ImageNet's archives in small: read in place, with the labels of the development kit."""

import io
import tarfile

import numpy as np
import pytest
from labelled_folders import encoded, noise_image
from scipy.io import savemat
from tar_files import tar_of

from sact_det.base.errors import InputError
from sact_det.data.image_sources import open_images

pytestmark = pytest.mark.usefixtures("own_cache")

SYNSETS = ("n01440764", "n02102040", "n03888257")  # sorted, as classes are numbered
IDS = {"n03888257": 1, "n01440764": 2, "n02102040": 3}  # ILSVRC2012_ID has another order
TRUTH = [3, 1, 1, 2, 3]


def class_tar(label):
    return tar_of((f"{SYNSETS[label]}_{n}.JPEG", encoded(noise_image(label, n))) for n in range(label + 1))


def write_train_tar(root):
    members = [(f"{name}.tar", class_tar(SYNSETS.index(name))) for name in reversed(SYNSETS)]
    (root / "ILSVRC2012_img_train.tar").write_bytes(tar_of(members))
    return root / "ILSVRC2012_img_train.tar"


def write_val(root, truth=TRUTH):
    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 6)]
    files = [(name, encoded(noise_image(number % 3, number))) for number, name in enumerate(names)]
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar_of(reversed(files)))
    fields = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("gloss", object)]
    synsets = np.zeros(4, [*fields, ("num_children", object), ("children", object)])
    for row, (name, number) in enumerate(sorted(IDS.items(), key=lambda item: item[1])):
        synsets[row] = (number, name, f"{name}, a thing", "what it is", 0, np.array([]))
    synsets[3] = (4, "n00001740", "entity", "a group", 3, np.array([1, 2, 3]))
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets[:, None]})
    kit = root / "ILSVRC2012_devkit_t12.tar.gz"
    with tarfile.open(kit, "w:gz") as archive:
        for name, content in [
            ("meta.mat", meta.getvalue()),
            ("ILSVRC2012_validation_ground_truth.txt", "".join(f"{number}\n" for number in truth).encode()),
        ]:
            member = tarfile.TarInfo(f"ILSVRC2012_devkit_t12/data/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return root / "ILSVRC2012_img_val.tar"


def assert_is_training_set(images):
    assert images.classes == list(SYNSETS)
    expected = [(label, number) for label in range(3) for number in range(label + 1)]
    for item, (label, number) in zip(images, expected, strict=True):
        assert item["label"] == label
        assert item["file_name"].endswith(f".tar: {SYNSETS[label]}_{number}.JPEG")
        np.testing.assert_array_equal(item["image"], noise_image(label, number))


def test_a_tar_of_tars_is_read_in_place(tmp_path):
    assert_is_training_set(open_images(write_train_tar(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["ILSVRC2012_img_train.tar"]


def test_a_folder_of_per_class_tars_is_the_same(tmp_path):
    for label, name in enumerate(SYNSETS):
        (tmp_path / f"{name}.tar").write_bytes(class_tar(label))
    assert_is_training_set(open_images(tmp_path))


def assert_is_validation_set(images):
    assert images.classes == list(SYNSETS)
    synset_of = {number: name for name, number in IDS.items()}
    for number, (item, truth) in enumerate(zip(images, TRUTH, strict=True)):
        assert images.classes[item["label"]] == synset_of[truth]
        assert item["file_name"].endswith(f"ILSVRC2012_val_{number + 1:08d}.JPEG")
        np.testing.assert_array_equal(item["image"], noise_image(number % 3, number))


def test_validation_labels_come_from_the_development_kit(tmp_path):
    assert_is_validation_set(open_images(write_val(tmp_path)))


def test_the_folder_of_the_archives_needs_a_split(tmp_path):
    write_val(tmp_path)
    assert_is_validation_set(open_images(tmp_path))
    write_train_tar(tmp_path)
    with pytest.raises(InputError, match="holds training and held-out images; name the split"):
        open_images(tmp_path)
    assert_is_validation_set(open_images(tmp_path, "val"))
    assert_is_training_set(open_images(tmp_path, "train"))


def refusal(*arguments):
    with pytest.raises(InputError) as error:
        open_images(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_split_that_is_not_there_is_named(tmp_path):
    write_val(tmp_path)
    assert refusal(tmp_path, "train") == f"{tmp_path / 'ILSVRC2012_img_train.tar'}: no such file"


@pytest.mark.parametrize("truth", [TRUTH[:4], [*TRUTH, 1]])
def test_a_kit_for_other_images_is_refused(tmp_path, truth):
    path = write_val(tmp_path, truth)
    assert refusal(path).startswith(f"{path}: holds 5 images, but ")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda kit: kit.unlink(), "no such file; the labels of ILSVRC2012_img_val.tar are in it"),
        (lambda kit: kit.write_bytes(b"no archive"), "not a readable development kit of ImageNet 2012"),
        (lambda kit: kit.write_bytes(kit.read_bytes()[:300]), "not a readable development kit of ImageNet 2012"),
        (lambda kit: write_val(kit.parent, [3, 1, 1, 2, 4]), "not a readable development kit of ImageNet 2012"),
    ],
    ids=["missing", "foreign", "cut", "a group for a class"],
)
def test_a_missing_or_broken_kit_is_named(tmp_path, damage, message):
    path, kit = write_val(tmp_path), tmp_path / "ILSVRC2012_devkit_t12.tar.gz"
    damage(kit)
    assert refusal(path).startswith(f"{kit}: {message}")


@pytest.mark.parametrize("cut", [0, 700, 20_000])
def test_a_tar_that_ends_early_or_is_none_is_refused(tmp_path, cut):
    path = write_train_tar(tmp_path)
    path.write_bytes(path.read_bytes()[:cut] if cut else b"no tar at all" * 100)
    assert refusal(path).startswith(f"{path}: ")


def test_a_compressed_tar_is_refused(tmp_path):
    with tarfile.open(tmp_path / "n01440764.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.JPEG"))
    assert refusal(tmp_path).startswith(f"{tmp_path / 'n01440764.tar'}: not a readable, uncompressed tar")


def test_a_class_without_images_is_named(tmp_path):
    (tmp_path / "n01440764.tar").write_bytes(tar_of([("readme.txt", b"x")]))
    assert refusal(tmp_path) == f"{tmp_path / 'n01440764.tar'}: no images of class n01440764"


def test_hidden_files_in_and_among_tars_are_passed_over(tmp_path):
    double = b"Mac OS X"
    inner = tar_of([("._a.JPEG", double), ("a.JPEG", b"x"), ("./._b.JPEG", double)])
    (tmp_path / "n01440764.tar").write_bytes(inner)
    (tmp_path / "._n01440764.tar").write_bytes(double)
    images = open_images(tmp_path)
    assert len(images) == 1 and images.name(0) == f"{tmp_path / 'n01440764.tar'}: a.JPEG"
    (tmp_path / "train.tar").write_bytes(tar_of([("._n01440764.tar", double), ("n01440764.tar", inner)]))
    images = open_images(tmp_path / "train.tar")
    assert images.classes == ["n01440764"] and len(images) == 1


def test_a_broken_image_inside_a_tar_is_named(tmp_path):
    (tmp_path / "n01440764.tar").write_bytes(tar_of([("a.JPEG", b"x")]))
    with pytest.raises(InputError) as error:
        open_images(tmp_path)[0]
    assert str(error.value).startswith(f"{tmp_path / 'n01440764.tar'}: a.JPEG: the image cannot be read: ")
