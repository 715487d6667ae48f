"""Augmentations keep every image in being and blame the key that is wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from sact_det.base.errors import InputError
from sact_det.detection.augmentation import build_augmentation
from sact_det.detection.loader import CheckedMapper
from sact_det.tasks import load_config

TINY = str(Path(__file__).parents[2] / "configs/tests/tiny.yaml")
CROP = ("INPUT.CROP.ENABLED", "True", "INPUT.CROP.TYPE", "relative", "INPUT.CROP.SIZE")


def applied(augmentations, shape, seed=0):
    """The image [H, W] of one augmentation of an image of this shape, and the box around it."""
    np.random.seed(seed)  # noqa: NPY002
    augmented = T.AugInput(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))
    transforms = T.AugmentationList(augmentations)(augmented)
    return augmented.image, transforms.apply_box(np.array([[0, 0, shape[1], shape[0]]]))


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize("shape", [(60, 80), (331, 97), (96, 128)])
def test_other_images_are_augmented_as_by_detectron2(shape, is_train):
    cfg = load_config(TINY)
    for seed in range(3):
        image, box = applied(build_augmentation(cfg, is_train), shape, seed)
        expected, expected_box = applied(detection_utils.build_augmentation(cfg, is_train), shape, seed)
        assert (image == expected).all() and (box == expected_box).all()


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1)])
def test_a_line_of_a_scanner_stays_a_pixel_wide_and_can_be_learnt_from(shape):
    cfg = load_config(TINY, [*CROP, "[0.3, 0.3]"])
    image, box = applied(build_augmentation(cfg, is_train=True), shape)
    assert min(image.shape[:2]) == 1 and max(image.shape[:2]) > 1
    box = np.clip(box, 0, [image.shape[1], image.shape[0]] * 2)
    instances = Instances(image.shape[:2], gt_boxes=Boxes(torch.tensor(box)), gt_classes=torch.tensor([0]))
    item = {"image": torch.from_numpy(image.transpose(2, 0, 1).copy()), "instances": instances}
    torch.manual_seed(0)
    model = build_model(cfg)
    with EventStorage():
        assert all(torch.isfinite(loss) for loss in model.train()([item]).values())
    with torch.no_grad():
        (output,) = model.eval()([{**item, "height": shape[0], "width": shape[1]}])
    assert output["instances"].image_size == shape


@pytest.mark.parametrize(
    ("key", "value", "blamed"),
    [
        ("CROP.SIZE", [1.5, 0.5], r"INPUT\.CROP\.TYPE 'relative', INPUT\.CROP\.SIZE \[1\.5, 0\.5\]"),
        ("CROP.TYPE", "square", r"INPUT\.CROP\.TYPE 'square'"),
        ("MIN_SIZE_TRAIN", (), r"INPUT\.MIN_SIZE_TRAIN \(\)"),
        ("MIN_SIZE_TEST", "large", r"INPUT\.MIN_SIZE_TEST 'large'"),
    ],
)
def test_a_key_that_makes_no_augmentation_is_blamed_before_an_image_is_read(key, value, blamed):
    cfg = load_config(TINY, [*CROP, "[1.0, 1.0]"])
    node = cfg.INPUT.CROP if key.startswith("CROP") else cfg.INPUT
    dict.__setitem__(node, key.rpartition(".")[2], value)  # past the checks of load_config
    with pytest.raises(InputError, match=f"^{blamed}.*: cannot be applied to images: "):
        CheckedMapper(cfg, is_train="TEST" not in key)
