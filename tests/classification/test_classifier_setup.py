"""A classifier's config and data are checked before any work: one line names what is wrong."""

import itertools

import pytest
import torch
from labelled_folders import write_class_folders
from tiny_classifier import config

from sact_det.base.errors import InputError, one_line
from sact_det.classification.loader import build_test_loader, build_train_loader, label_offset


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODEL.CLASSIFIER.FAMILY", "foo", "must be one of 'imagenet', 'cifar'; got 'foo'"),
        ("MODEL.CLASSIFIER.NUM_CLASSES", "0", "must be an integer from 1 to 100000; got 0"),
        ("MODEL.CLASSIFIER.LABEL_SMOOTHING", "1.0", "must lie in [0, 1); got 1.0"),
        ("INPUT.CLASSIFICATION.AUGMENTATION", "foo", "must be one of 'inception', 'cifar', 'none'; got 'foo'"),
        ("INPUT.CLASSIFICATION.SIZE_TRAIN", "0", "must be an integer from 1 to 65536; got 0"),
        ("INPUT.CLASSIFICATION.SIZE_TEST", "-1", "must be an integer from 1 to 65536; got -1"),
        ("INPUT.CLASSIFICATION.BATCH_SIZE_TEST", "0", "must be an integer from 1 to 65536; got 0"),
        ("INPUT.CLASSIFICATION.CROP_FRACTION", "0.0", "must lie in (0, 1]; got 0.0"),
        ("SOLVER.BACKBONE_LR_FACTOR", "0.5", "must be 1 for a classifier; got 0.5"),
        ("INPUT.FORMAT", "BGR", "must be 'RGB' for a classifier; got 'BGR'"),
        ("MODEL.SACT.UNITS", "(1, 2, 3)", "must list 4 positive integers, one per block; got (1, 2, 3)"),
        ("MODEL.SACT.REFERENCE_UNITS", "(3, 4, 23)", "must list 4 positive integers; got (3, 4, 23)"),
        ("MODEL.SACT.BOX_HEAD_NORM", "foo", "must be one of '', 'BN', 'SyncBN', 'MovingBN', 'FrozenBN'; got 'foo'"),
        ("MODEL.SACT.HALTING", "foo", "must be one of 'none', 'act', 'sact'; got 'foo'"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_key(key, value, message):
    with pytest.raises(InputError) as error:
        config(None, key, value)
    assert str(error.value) == f"{key} {message}"


def test_the_cifar_family_has_three_blocks_and_no_dilation():
    with pytest.raises(InputError, match=r"MODEL\.SACT\.UNITS must list 3 positive integers"):
        config(None, "MODEL.SACT.UNITS", "(1, 2, 3, 2)", family="cifar")
    with pytest.raises(InputError, match=r"MODEL\.SACT\.DILATION must be 1s in the CIFAR family; got \(1, 2, 2, 1\)"):
        config(None, "MODEL.SACT.DILATION", "(1, 2, 2, 1)", family="cifar")


def test_labels_are_moved_by_one_where_class_0_is_background():
    assert label_offset(["a"] * 1000, 1000, "data") == 0
    assert label_offset(["a"] * 1000, 1001, "data") == 1


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("build", [build_train_loader, lambda cfg: build_test_loader(cfg, "toy")])
def test_another_number_of_classes_is_refused_with_both_numbers(tmp_path, num_classes, build):
    cfg = config(write_class_folders(tmp_path / "data"), "MODEL.CLASSIFIER.NUM_CLASSES", num_classes)
    message = (
        rf"NUM_CLASSES is {num_classes}, but data set 'toy' has 3 classes; expected 3, or 4 with class 0 for backgr"
    )
    with pytest.raises(InputError, match=message):
        build(cfg)


def batches(loader, count):
    return list(itertools.islice(loader, count))


@pytest.mark.parametrize("num_classes", [3, 4])
def test_the_test_loader_shows_every_image_once_in_order_at_the_test_size(tmp_path, num_classes):
    root = write_class_folders(tmp_path / "data")
    cfg = config(root, "MODEL.CLASSIFIER.NUM_CLASSES", num_classes, "INPUT.CLASSIFICATION.BATCH_SIZE_TEST", 5)
    items = batches(build_test_loader(cfg, "toy"), 9)
    assert [len(batch) for batch in items] == [5, 5, 2]
    items = list(itertools.chain(*items))
    assert [item["image_id"] for item in items] == list(range(12))
    assert [item["label"] for item in items] == [number // 4 + num_classes - 3 for number in range(12)]
    assert {(item["image"].shape, item["image"].dtype) for item in items} == {((3, 56, 56), torch.float32)}


def images(loader, count):
    return [[(item["image_id"], item["image"]) for item in batch] for batch in batches(loader, count)]


def assert_same(some, others):
    for batch, other in zip(some, others, strict=True):
        for (image_id, image), (other_id, other_image) in zip(batch, other, strict=True):
            assert image_id == other_id and torch.equal(image, other_image)


@pytest.mark.parametrize("augmentation", ["inception", "cifar"])
def test_training_images_depend_on_their_place_in_the_stream_alone(tmp_path, augmentation):
    root = write_class_folders(tmp_path / "data")
    options = ("INPUT.CLASSIFICATION.AUGMENTATION", augmentation)
    whole = images(build_train_loader(config(root, *options)), 7)
    torch.manual_seed(123)
    expected = torch.get_rng_state()
    resumed = build_train_loader(config(root, *options, "DATALOADER.NUM_WORKERS", 2))
    resumed.batch_sampler.start = 2
    assert_same(images(resumed, 5), whole[2:])
    images(build_train_loader(config(root, *options)), 2)
    assert torch.equal(torch.get_rng_state(), expected)  # the model's generator is left alone
    drawn = [(image_id, image) for batch in whole for image_id, image in batch]
    again = [image for image_id, image in drawn if image_id == drawn[0][0]]
    assert len(again) > 1 and not torch.equal(again[0], again[1])  # another draw of an image is another picture


def test_two_data_sets_are_trained_on_together_if_their_classes_agree(tmp_path):
    names = ("apple", "leaf", "sky")
    roots = [write_class_folders(tmp_path / str(n), per_class=n, classes=names) for n in (1, 2)]
    other = write_class_folders(tmp_path / "other", classes=("a", "b", "c"))
    entries = [("one", roots[0]), ("two", roots[1]), ("other", other)]
    options = ("DATASETS.CLASSIFICATION", str(entries), "SOLVER.IMS_PER_BATCH", 9)
    cfg = config(None, *options, "DATASETS.TRAIN", "('one', 'two')")
    (batch,) = batches(build_train_loader(cfg), 1)
    assert sorted(item["label"] for item in batch) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len({item["file_name"] for item in batch}) == 9
    with pytest.raises(InputError, match="data set 'other': its classes differ from those of 'one'"):
        build_train_loader(config(None, *options, "DATASETS.TRAIN", "('one', 'other')"))


def test_a_data_set_nobody_registered_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no such data set of labelled images; DATASETS\.CLASSIF"):
        build_train_loader(config(None, "DATASETS.TRAIN", "('nowhere',)"))
    with pytest.raises(InputError, match=r"DATASETS\.TRAIN is empty"):
        build_train_loader(config())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_named_in_one_line(tmp_path, workers):
    root = write_class_folders(tmp_path / "data", per_class=1)
    (tmp_path / "data/leaf/0.png").write_bytes(b"no image")
    loader = build_train_loader(config(root, "DATALOADER.NUM_WORKERS", workers))
    try:
        batches(loader, 1)
    except InputError as error:
        error.__traceback__ = None  # its frames would keep the workers alive until they time out
        line = one_line(error)
    assert line.startswith(f"{tmp_path / 'data/leaf/0.png'}: the image cannot be read: ")
