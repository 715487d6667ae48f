"""SACTPanopticFPN: data, trainings, evaluations, pictures."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from coco_folder import read_json, write_coco_folder
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from detectron2.modeling import build_model
from detectron2.utils import comm
from panoptic_folder import write_panoptic_folder
from short_trainings import final_weights, train
from torch import nn

from sact_det.base.errors import InputError
from sact_det.data.coco_panoptic import ids_of, read_png
from sact_det.detection.class_names import segment_names
from sact_det.detection.drawing import draw_found, draw_segments
from sact_det.detection.loader import build_test_loader, build_train_loader
from sact_det.detection.panoptic_evaluator import PanopticEvaluator
from sact_det.detection.predictor import Predictor
from sact_det.detection.semantic_quality import semantic_quality
from sact_det.detection.trainer import DetectionTrainer
from sact_det.engine.launch import launch
from sact_det.tasks import load_config

FPN = str(Path(__file__).parents[2] / "configs/tests/tiny_fpn.yaml")
PANOPTIC = (
    *("MODEL.META_ARCHITECTURE", "SACTPanopticFPN", "MODEL.MASK_ON", "True"),
    *("MODEL.ROI_MASK_HEAD.NUM_CONV", "1", "MODEL.ROI_MASK_HEAD.CONV_DIM", "8"),
    *("MODEL.SEM_SEG_HEAD.CONVS_DIM", "8", "MODEL.SEM_SEG_HEAD.NORM", ""),
    *("MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT", "16"),
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools


def options(root, *more, **arguments):
    """Overrides for a folder of six images, to train and test on."""
    files = write_panoptic_folder(root / "data", **arguments)
    named = ["DATASETS.TRAIN", "('toy',)", "DATASETS.TEST", "('toy',)"]
    return [*PANOPTIC, "DATASETS.PANOPTIC_FORMAT", str([("toy", *files)]), *named, *more]


def toy(root, *more, **arguments):
    """The config of such a folder."""
    return load_config(FPN, options(root, *more, **arguments))


def with_output(cfg, folder, **solver):
    cfg = cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = str(folder)
    for key, value in solver.items():
        cfg.SOLVER[key] = value
    return cfg


def test_classes_are_those_of_the_data(tmp_path):
    cfg = toy(tmp_path)
    assert (cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES) == (2, 3)
    assert MetadataCatalog.get("toy").stuff_classes == ["things", "sky", "sea"]


def test_it_trains_resumes_and_is_evaluated(tmp_path):
    cfg = toy(tmp_path, "SOLVER.WARMUP_ITERS", "0")
    train(DetectionTrainer, with_output(cfg, tmp_path / "whole", MAX_ITER=3))
    train(DetectionTrainer, with_output(cfg, tmp_path / "resumed", MAX_ITER=2))
    train(DetectionTrainer, with_output(cfg, tmp_path / "resumed", MAX_ITER=3), resume=True)
    whole, resumed = (final_weights(tmp_path / folder) for folder in ("whole", "resumed"))
    assert whole.keys() == resumed.keys() and all(torch.equal(value, resumed[name]) for name, value in whole.items())
    logged = [json.loads(line) for line in (tmp_path / "whole/metrics.json").read_text().splitlines()]
    (losses,) = [line for line in logged if "loss_ponder" in line]
    assert {"loss_sem_seg", "loss_mask", "loss_cls"} <= set(losses)
    results = read_json(tmp_path / "whole/inference/results.json")["toy"]
    assert set(results) == {"panoptic_seg", "sem_seg", "bbox", "segm", "ponder"}
    assert 0 <= results["sem_seg"]["mIoU"] <= 100 and {"IoU-things", "IoU-sky", "IoU-sea"} <= set(results["sem_seg"])
    assert 0 <= results["panoptic_seg"]["PQ_st"] <= 100 and results["ponder"]["sem_seg_gflops"] > 0


def train_in_process(overrides):
    train(DetectionTrainer, load_config(FPN, overrides))
    comm.synchronize()


def test_it_trains_and_is_evaluated_in_two_processes(tmp_path):
    output = ("OUTPUT_DIR", str(tmp_path / "out"))
    overrides = options(tmp_path, "MODEL.SACT.NORM", "FrozenBN", "SOLVER.MAX_ITER", "2", *output)
    launch(train_in_process, 2, dist_url="auto", args=(overrides,))
    results = read_json(tmp_path / "out/inference/results.json")["toy"]
    assert results["ponder"]["images"] == 6 and "PQ" in results["panoptic_seg"]
    assert len(read_json(tmp_path / "out/inference/toy/panoptic_results.json")["annotations"]) == 6


def test_targets_are_the_segments_where_the_image_goes(tmp_path):
    cfg = toy(tmp_path, "INPUT.RANDOM_FLIP", "none", "INPUT.MIN_SIZE_TRAIN", "(0,)")
    batches = iter(build_train_loader(cfg))
    for item in [item for _ in range(4) for item in next(batches)]:
        number, size = item["image_id"], (item["height"], item["width"])
        ids = ids_of(read_png(tmp_path / f"data/png/{number}.png", size))
        expected = np.full(size, 255)
        for segment, category in ((70_000, 1), (2, 2), (300, 0), (4, 0)):
            expected[ids == segment] = category
        assert np.array_equal(item["sem_seg"].numpy(), expected)
        instances = item["instances"]
        assert instances.gt_classes.tolist() == [0, 1]
        for mask, segment in zip(instances.gt_masks.tensor, (300, 4)):
            assert np.array_equal(mask.numpy(), ids == segment)


def test_targets_are_flipped_and_resized_with_the_image(tmp_path):
    batches = iter(build_train_loader(toy(tmp_path)))
    for item in [item for _ in range(4) for item in next(batches)]:
        size = tuple(item["image"].shape[1:])
        assert tuple(item["sem_seg"].shape) == item["instances"].gt_masks.tensor.shape[1:] == size
        things = item["sem_seg"] == 0
        assert torch.equal(item["instances"].gt_masks.tensor.any(0), things)


def test_a_perfect_segmentation_has_quality_100_and_is_written_in_coco_s_format(tmp_path):
    cfg = toy(tmp_path, num_images=3)
    evaluator = PanopticEvaluator("toy", str(tmp_path / "out"))
    known = {70_000: (1, False), 2: (2, False), 300: (0, True), 4: (1, True)}
    for inputs in build_test_loader(cfg, "toy"):
        item = inputs[0]
        ids = ids_of(read_png(tmp_path / f"data/png/{item['image_id']}.png", (item["height"], item["width"])))
        infos = [{"id": i, "category_id": c, "isthing": thing, "score": 1.0} for i, (c, thing) in known.items()]
        evaluator.process(inputs, [{"panoptic_seg": (torch.from_numpy(ids), infos)}])
    assert set(evaluator.evaluate()["panoptic_seg"].values()) == {100.0}
    first = read_json(tmp_path / "out/panoptic_results.json")["annotations"][0]
    assert [one["category_id"] for one in first["segments_info"]] == [5, 9, 3, 8]
    assert np.array_equal(
        read_png(tmp_path / "out/panoptic" / first["file_name"], (128, 96)),
        read_png(tmp_path / "data/png/1.png", (128, 96)),
    )


def test_mean_iou_is_that_of_detectron2(tmp_path):
    cfg = toy(tmp_path, num_images=3)
    evaluator, generator = PanopticEvaluator("toy", str(tmp_path / "out")), torch.Generator().manual_seed(0)
    truth_of = {}
    for inputs in build_test_loader(cfg, "toy"):
        item = inputs[0]
        ids = ids_of(read_png(tmp_path / f"data/png/{item['image_id']}.png", (item["height"], item["width"])))
        truth = np.full(ids.shape, 255)
        for segment, category in ((70_000, 1), (2, 2), (300, 0), (4, 0)):
            truth[ids == segment] = category
        truth_of[item["file_name"]] = truth
    DatasetCatalog.register(
        "toy_semantic", lambda: [{"file_name": name, "sem_seg_file_name": name} for name in truth_of]
    )
    stuff = MetadataCatalog.get("toy").stuff_classes
    MetadataCatalog.get("toy_semantic").set(stuff_classes=stuff, ignore_label=255)
    theirs = SemSegEvaluator("toy_semantic", False, sem_seg_loading_fn=lambda name, dtype: truth_of[name].astype(dtype))
    theirs.reset()
    for inputs in build_test_loader(cfg, "toy"):
        size = truth_of[inputs[0]["file_name"]].shape
        scores = torch.rand(3, *size, generator=generator)
        scores[2] -= 0.4
        output = {"sem_seg": scores, "panoptic_seg": (torch.zeros(size, dtype=torch.int64), [])}
        evaluator.process(inputs, [output])
        theirs.process(inputs, [output])
    ours, expected = evaluator.evaluate()["sem_seg"], theirs.evaluate()["sem_seg"]
    DatasetCatalog.remove("toy_semantic")
    MetadataCatalog.remove("toy_semantic")
    assert ours["mIoU"] < ours["pACC"] < 60
    for name, value in ours.items():
        assert value == pytest.approx(expected[name], rel=1e-12)


def test_a_class_that_occurs_nowhere_has_no_iou():
    counts = np.array([[6, 2, 0], [1, 3, 0], [2, 0, 0]])
    found = semantic_quality(counts, ["things", "sky", "sea"])
    assert math.isnan(found["IoU-sea"]) and found["IoU-sky"] == pytest.approx(100 * 3 / 6)
    assert found["mIoU"] == pytest.approx(100 * (6 / 11 + 3 / 6) / 2)
    assert found["pACC"] == pytest.approx(100 * 9 / 14)
    assert math.isnan(semantic_quality(np.zeros((2, 2), int), ["things", "sky"])["mIoU"])


@torch.no_grad()
def test_the_whole_detector_s_flops_are_those_of_its_layers_as_they_run(tmp_path):
    cfg = toy(
        tmp_path, "MODEL.SACT.HALTING", "none", "MODEL.SACT.EXECUTION", "dense", "OUTPUT_DIR", str(tmp_path / "out")
    )
    torch.manual_seed(0)
    model, counts, sizes = build_model(cfg).eval(), [], []

    def count(layer, inputs, output):
        places = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        counts[-1] += 2 * layer.weight.numel() * len(output) * math.prod(places.shape[2:])

    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            layer.register_forward_hook(count)
    evaluator = DetectionTrainer.build_evaluator(cfg, "toy")
    evaluator.reset()
    for inputs in build_test_loader(cfg, "toy"):
        counts.append(0)
        sizes.append(tuple(inputs[0]["image"].shape[1:]))
        evaluator.process(inputs, model(inputs))
    evaluator.evaluate()
    rows = read_json(tmp_path / "out/inference/toy/ponder.json")["images"]
    unpadded = [index for index, (h, w) in enumerate(sizes) if h % 32 == w % 32 == 0]
    assert unpadded and all(rows[index]["detector_flops"]["total"] == counts[index] for index in unpadded)


def test_segments_are_drawn_in_their_colours(tmp_path):
    cfg = toy(tmp_path)
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, tmp_path / "w.pth")
    cfg.defrost()
    cfg.MODEL.WEIGHTS = str(tmp_path / "w.pth")
    image = np.random.default_rng(0).integers(0, 255, (80, 100, 3), dtype=np.uint8)
    prediction = Predictor(cfg)(image)
    ids, infos = prediction.segments
    assert ids.shape == (80, 100) and segment_names(cfg).stuff == ["things", "sky", "sea"]
    drawn = draw_found(image, prediction, cfg, scale=1)
    assert np.array_equal(drawn, draw_segments(image, ids, infos, segment_names(cfg)))
    infos = [{"id": 7, "category_id": 2, "isthing": False}]
    ids = torch.zeros(80, 100, dtype=torch.int32)
    ids[:, :50] = 7
    changed = (draw_segments(image, ids, infos) != image).any(2)
    assert changed[:, :45].mean() > 0.9 and changed[:, 60:].mean() < 0.2  # the label may lie across


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("MODEL.MASK_ON", "False"), "MODEL.META_ARCHITECTURE SACTPanopticFPN needs MODEL.MASK_ON True; got False"),
        (
            ("MODEL.BACKBONE.NAME", "build_sact_resnet_backbone"),
            "needs MODEL.BACKBONE.NAME build_sact_resnet_fpn_backbo",
        ),
        (("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "7"), "SEM_SEG_HEAD.NUM_CLASSES is 7, but data set 'toy' has 3 classes"),
        (("MODEL.SEM_SEG_HEAD.IN_FEATURES", "['res2']"), "MODEL.SEM_SEG_HEAD.IN_FEATURES must list 1 or more features"),
        (("MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT", "2.0"), "INSTANCE_LOSS_WEIGHT has no effect on a detector"),
        (
            ("DATASETS.PANOPTIC_FORMAT", "[('a', 'b')]"),
            "DATASETS.PANOPTIC_FORMAT: each entry must be (name, panoptic json",
        ),
        (("MODEL.META_ARCHITECTURE", "SACTGeneralizedRCNN"), "has no effect on a detector: leave it at"),
    ],
)
def test_what_does_not_go_together_is_named(tmp_path, overrides, message):
    with pytest.raises(InputError) as error:
        toy(tmp_path, *overrides)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_data_without_segments_are_named(tmp_path):
    data = ["DATASETS.COCO_FORMAT", str([("boxes", *write_coco_folder(tmp_path))]), "DATASETS.TRAIN", "('boxes',)"]
    with pytest.raises(InputError, match=r"^data set 'boxes' has no panoptic segments.*DATASETS.PANOPTIC_FORMAT"):
        load_config(FPN, [*PANOPTIC, *data])
