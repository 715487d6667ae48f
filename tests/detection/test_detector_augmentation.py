"""Augmentations keep every image in being and blame the key that is wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch
from coco_folder import read_json, write_coco_folder, write_json
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from sact_det.base.errors import InputError
from sact_det.data.coco_shapes import as_rle
from sact_det.detection import setup
from sact_det.detection.augmentation import build_augmentation
from sact_det.detection.loader import CheckedMapper, build_train_loader
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


JITTER = ("INPUT.SCALE_JITTER", "(0.1, 2.0)", "INPUT.SCALE_JITTER_SIZE", "100")


def test_large_scale_jitter_is_detectron2s_in_training_alone():
    cfg = load_config(TINY, JITTER)
    composed = [T.ResizeScale(0.1, 2.0, 100, 100), T.FixedSizeCrop((100, 100), pad=False), T.RandomFlip()]
    shapes = set()
    for seed in range(20):
        image, box = applied(build_augmentation(cfg, is_train=True), (60, 80), seed)
        expected, expected_box = applied(composed, (60, 80), seed)
        assert (image == expected).all() and (box == expected_box).all()
        assert max(image.shape[:2]) <= 100
        shapes.add(image.shape)
    assert len(shapes) > 10 and any(max(shape[:2]) < 50 for shape in shapes)
    plain = applied(build_augmentation(load_config(TINY), is_train=False), (60, 80))[0]
    assert (applied(build_augmentation(cfg, is_train=False), (60, 80))[0] == plain).all()


def test_boxes_and_masks_are_cut_with_their_image(tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "find_spec", lambda name: name)  # run lengths are cut without shapely
    json_file, images = write_coco_folder(tmp_path, masks=True)
    content = read_json(json_file)
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    for annotation in content["annotations"]:
        annotation["segmentation"] = as_rle(annotation["segmentation"], sizes[annotation["image_id"]])
        annotation["segmentation"]["counts"] = annotation["segmentation"]["counts"].decode()
    write_json(json_file, content)
    data = str([("toy", json_file, images)])
    masks = ("MODEL.MASK_ON", "True", "MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead")
    masks += ("INPUT.MASK_FORMAT", "bitmask")
    large = ("INPUT.SCALE_JITTER", "(3.0, 3.0)", "INPUT.SCALE_JITTER_SIZE", "100")
    sets = ("DATASETS.COCO_FORMAT", data, "DATASETS.TRAIN", "('toy',)")
    loader = build_train_loader(load_config(TINY, [*masks, *large, *sets]))
    items = [item for _, batch in zip(range(6), loader) for item in batch]
    cut = 0
    for item in items:
        height, width = item["image"].shape[1:]
        assert (height, width) == (100, 100)
        for box, mask in zip(item["instances"].gt_boxes.tensor, item["instances"].gt_masks.tensor, strict=True):
            rows, columns = np.nonzero(mask.numpy())
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            cut += bool((box == 0).any() or (box == 100).any())
    assert cut > 0


def test_polygons_are_cut_by_shapely_which_is_asked_for_in_one_line(monkeypatch):
    monkeypatch.setattr(setup, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"INPUT\.SCALE_JITTER cuts the polygons of masks, which needs shapely"):
        load_config(TINY, [*JITTER, "MODEL.MASK_ON", "True", "MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead"])


def test_a_crop_beside_the_jitter_is_refused():
    with pytest.raises(InputError, match=r"INPUT\.SCALE_JITTER .* INPUT\.CROP\.ENABLED must be False"):
        load_config(TINY, [*JITTER, *CROP, "[0.3, 0.3]"])


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1)])
def test_a_line_of_a_scanner_is_jittered_and_stays_a_pixel_wide(shape):
    for seed in range(5):
        image, _ = applied(build_augmentation(load_config(TINY, JITTER), is_train=True), shape, seed)
        assert min(image.shape[:2]) == 1


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
