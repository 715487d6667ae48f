"""The training stream: a pure function of the seed and the iteration."""

import itertools
import json
import random
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from coco_folder import write_coco_folder

import sact_det.detection  # noqa: F401  (imports Detectron2 quietly)
from sact_det.base.errors import InputError, one_line
from sact_det.data.stream import BatchStream, SeededMap
from sact_det.detection.loader import CheckedMapper, build_test_loader, build_train_loader
from sact_det.tasks import load_config

TINY = str(Path(__file__).parents[2] / "configs/tests/tiny.yaml")
WIDE = [1, 0, 1, 1, 0, 1, 1, 1, 0, 1, 1]  # aspect-ratio groups of 11 images


def batches(count, start=0, **arguments):
    stream = BatchStream(**{"size": 11, "batch_size": 4, "seed": 0, **arguments})
    stream.start = start
    return list(itertools.islice(stream, count))


def indices(draws):
    return [index for _, index in draws]


@pytest.mark.parametrize(("size", "batch_size"), [(11, 1), (11, 4), (3, 8), (1, 2)])
def test_every_epoch_is_a_permutation(size, batch_size):
    draws = list(itertools.chain(*batches(6 * size, size=size, batch_size=batch_size)))
    assert [position for position, _ in draws] == list(range(len(draws)))
    for first in range(0, 5 * size, size):
        assert sorted(indices(draws[first : first + size])) == list(range(size))


def test_epochs_and_seeds_differ():
    (first,), (other_seed,) = batches(1, batch_size=22), batches(1, batch_size=22, seed=1)
    assert indices(first[:11]) != indices(first[11:])
    assert indices(first) != indices(other_seed)


@pytest.mark.parametrize("groups", [None, WIDE])
@pytest.mark.parametrize("start", [1, 5, 40])
def test_a_stream_started_late_goes_on_exactly_where_the_whole_one_is(groups, start):
    assert batches(9, start=start, groups=groups) == batches(start + 9, groups=groups)[start:]


def test_a_batch_holds_one_aspect_ratio_group_and_no_image_is_lost():
    drawn = batches(60, groups=WIDE)
    assert all(len({WIDE[index] for index in indices(batch)}) == 1 for batch in drawn)
    counts = Counter(itertools.chain(*map(indices, drawn)))
    assert counts.keys() == set(range(11))
    assert max(counts.values()) - min(counts.values()) <= 2  # an epoch's last images wait for the next


@pytest.mark.parametrize("groups", [None, WIDE])
@pytest.mark.parametrize("world_size", [2, 4])
def test_the_batches_of_all_processes_together_are_those_of_one(groups, world_size):
    whole = batches(20, groups=groups)
    parts = [batches(20, groups=groups, rank=rank, world_size=world_size) for rank in range(world_size)]
    for number, batch in enumerate(whole):
        shares = [part[number] for part in parts]
        assert {len(share) for share in shares} == {4 // world_size}
        assert sorted(itertools.chain(*shares)) == sorted(batch)


@pytest.mark.parametrize(("batch_size", "world_size"), [(3, 2), (0, 1), (-2, 2), (1, 2)])
def test_a_batch_that_cannot_be_split_evenly_is_refused(batch_size, world_size):
    message = f"IMS_PER_BATCH must be a positive multiple of the number of processes, {world_size}; got {batch_size}"
    with pytest.raises(InputError, match=message):
        BatchStream(size=11, batch_size=batch_size, seed=0, world_size=world_size)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_coco_folder(tmp_path_factory.mktemp("toy"))


def config(files, *more):
    data = [*("DATASETS.COCO_FORMAT", str([("toy", *files)])), *("DATASETS.TRAIN", "('toy',)")]
    return load_config(TINY, [*data, *more])


def images(loader, count):
    return [[(item["image_id"], item["image"]) for item in batch] for batch in itertools.islice(loader, count)]


def assert_same(some, others):
    for batch, other in zip(some, others, strict=True):
        for (image_id, image), (other_id, other_image) in zip(batch, other, strict=True):
            assert image_id == other_id and torch.equal(image, other_image)


def test_batches_do_not_depend_on_the_number_of_workers_or_on_other_randomness(folder):
    alone = images(build_train_loader(config(folder)), 5)
    torch.manual_seed(123)
    random.seed(123)
    np.random.seed(123)  # noqa: NPY002
    assert_same(images(build_train_loader(config(folder, "DATALOADER.NUM_WORKERS", "2")), 5), alone)


def test_loading_leaves_the_generator_of_the_model_alone(folder):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    images(build_train_loader(config(folder)), 2)
    assert torch.equal(torch.rand(3), expected)


def test_the_augmentation_of_a_draw_does_not_depend_on_the_draws_before(folder):
    cfg = config(folder)
    dicts = [{**d, "annotations": []} for d in build_train_loader(cfg).dataset._dicts]
    data = SeededMap(dicts, CheckedMapper(cfg, is_train=True), seed=3)
    alone = data[(7, 2)]["image"]
    for draw in [(0, 1), (1, 5), (2, 2)]:
        data[draw]
    assert torch.equal(data[(7, 2)]["image"], alone)
    shapes_and_sums = {
        (data[(position, 2)]["image"].shape, int(data[(position, 2)]["image"].sum())) for position in range(8)
    }
    assert len(shapes_and_sums) > 1  # draws of one image differ


def test_a_resumed_loader_goes_on_where_the_uninterrupted_one_would_be(folder):
    whole = images(build_train_loader(config(folder)), 5)
    resumed = build_train_loader(config(folder))
    resumed.batch_sampler.start = 3
    assert_same(images(resumed, 2), whole[3:])


def test_boxes_that_stick_out_are_clipped_to_the_image(tmp_path):
    files = write_coco_folder(tmp_path, num_images=2)
    content = json.loads(Path(files[0]).read_text())
    for annotation in content["annotations"]:
        annotation["bbox"] = [-20, 50, 400, 400]
    Path(files[0]).write_text(json.dumps(content))
    for item in next(iter(build_train_loader(config(files)))):
        height, width = item["image"].shape[1:]
        for x0, y0, x1, y1 in item["instances"].gt_boxes.tensor.tolist():
            assert 0 <= x0 < x1 <= width and 0 < y0 < y1 <= height
            assert y1 == height and (x0, x1) == (0, width)


@pytest.mark.parametrize("number", [int, float])
def test_boxes_are_scaled_with_their_image_and_not_rounded(tmp_path, number):
    files = write_coco_folder(tmp_path, num_images=2)
    content = json.loads(Path(files[0]).read_text())
    for annotation in content["annotations"]:
        annotation["bbox"] = [number(side) for side in (7, 11, 41, 43)]
    Path(files[0]).write_text(json.dumps(content))
    cfg = config(files, "INPUT.MIN_SIZE_TRAIN", "(113,)", "INPUT.RANDOM_FLIP", "none")
    for item in next(iter(build_train_loader(cfg))):
        height, width = item["image"].shape[1:]
        scale = torch.tensor([width / item["width"], height / item["height"]]).repeat(2)
        expected = torch.tensor([7, 11, 48, 54]) * scale
        torch.testing.assert_close(item["instances"].gt_boxes.tensor, expected.expand(2, 4))
        assert (expected % 1 != 0).all()


def error_line(loader):
    try:
        images(loader, 2)
    except InputError as error:
        error.__traceback__ = None  # its frames would keep the workers alive until they time out
        return one_line(error)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(b"not an image"), "cannot identify image file"),
        (lambda path: path.write_bytes(path.read_bytes()[:600]), "truncated"),
        (lambda path: path.write_bytes((path.parent / "2.png").read_bytes()), "Mismatched image shape"),
    ],
    ids=["no image", "truncated", "another size"],
)
def test_a_broken_image_is_named_in_one_line(tmp_path, workers, damage, reason):
    files = write_coco_folder(tmp_path, num_images=2)
    damage(tmp_path / "1.png")
    loader = build_train_loader(config(files, "DATALOADER.NUM_WORKERS", str(workers)))
    line = error_line(loader)
    assert line.startswith(f"{tmp_path / '1.png'}: the image cannot be used: ") and reason in line


def test_images_are_read_by_the_rule_of_all_readers_in_the_order_of_the_model(tmp_path):
    files = write_coco_folder(tmp_path, num_images=1)
    pixels = cv2.imread(str(tmp_path / "1.png"))
    cv2.imwrite(str(tmp_path / "1.png"), pixels.astype(np.uint16) * 257)
    for channels, order in (("BGR", slice(None)), ("RGB", slice(None, None, -1))):
        cfg = config(files, "INPUT.FORMAT", channels, "INPUT.MIN_SIZE_TEST", "0")
        ((item,),) = build_test_loader(cfg, "toy")
        assert (item["image"].permute(1, 2, 0).numpy() == pixels[..., order]).all()


def test_annotations_that_fail_are_not_blamed_on_the_image(tmp_path):
    (item,) = build_test_loader(config(write_coco_folder(tmp_path, num_images=1)), "toy").dataset._dataset
    with pytest.raises(InputError, match=r"1\.png: its annotations cannot be used: "):
        CheckedMapper(config(write_coco_folder(tmp_path)), is_train=True)({**item, "annotations": [{"bbox": "x"}]})


@pytest.mark.parametrize("key", ["TRAIN", "TEST"])
def test_a_data_set_nobody_registered_is_named(folder, key):
    cfg = config(folder, f"DATASETS.{key}", "('toy', 'nowhere')")
    with pytest.raises(InputError, match="nowhere: no such data set"):
        build_train_loader(cfg) if key == "TRAIN" else build_test_loader(cfg, "nowhere")


def test_no_training_set_is_an_error(folder):
    with pytest.raises(InputError, match=r"DATASETS\.TRAIN is empty"):
        build_train_loader(config(folder, "DATASETS.TRAIN", "()"))


@pytest.mark.parametrize("boxes", ["none", "crowds", "outside"])
def test_images_without_a_box_are_nothing_to_train_on_but_can_be_tested(tmp_path, boxes):
    json_file, image_root = write_coco_folder(tmp_path, num_images=3)
    content = json.loads(Path(json_file).read_text())
    changes = {"none": None, "crowds": {"iscrowd": 1}, "outside": {"bbox": [200, 200, 40, 40]}}[boxes]
    annotations = [] if changes is None else [{**a, **changes} for a in content["annotations"]]
    Path(json_file).write_text(json.dumps({**content, "annotations": annotations}))
    cfg = config((json_file, image_root))
    with pytest.raises(InputError, match="toy: no usable images: none has a box that is no crowd"):
        build_train_loader(cfg)
    assert [item["image_id"] for (item,) in build_test_loader(cfg, "toy")] == [1, 2, 3]


def test_the_test_loader_shows_every_image_once_at_the_test_size(folder):
    items = [item for (item,) in build_test_loader(config(folder), "toy")]
    assert [item["image_id"] for item in items] == list(range(1, 9))
    assert {min(item["image"].shape[1:]) for item in items} == {96}
