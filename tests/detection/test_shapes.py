"""Detectors of masks and keypoints, C4 and on a pyramid: trainings, accounts, evaluations, pictures."""

import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from coco_folder import read_json, write_coco_folder, write_json
from detectron2.data import DatasetCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from filled_modules import filled
from pycocotools import mask as rle
from short_trainings import final_weights, fresh_parts, train
from torch import nn

from sact_det import build_classifier
from sact_det.base.errors import InputError
from sact_det.detection.box_evaluator import BoxEvaluator
from sact_det.detection.checkpoint import DetectorCheckpointer
from sact_det.detection.drawing import draw_detections
from sact_det.detection.loader import build_test_loader, build_train_loader
from sact_det.detection.predictor import Predictor
from sact_det.detection.pyramid import extractor_of
from sact_det.detection.trainer import DetectionTrainer
from sact_det.engine.launch import launch
from sact_det.tasks import load_config
from sact_det.weights.weight_file import save_weights

CONFIGS = Path(__file__).parents[2] / "configs/tests"
C4, FPN = str(CONFIGS / "tiny.yaml"), str(CONFIGS / "tiny_fpn.yaml")
MASKS = ("MODEL.MASK_ON", "True", "MODEL.ROI_MASK_HEAD.NUM_CONV", "1", "MODEL.ROI_MASK_HEAD.CONV_DIM", "8")
SIGMAS = (0.1, 0.1, 0.2)
KEYPOINTS = (
    *("MODEL.KEYPOINT_ON", "True", "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", "(8,)"),
    *("MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", "3", "TEST.KEYPOINT_OKS_SIGMAS", str(list(SIGMAS))),
)
CASCADE = ("MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "True")
BUT_BOXES = ("MODEL.SACT.REJECTION", "True", "MODEL.SACT.BOX_HEAD_MAP_PRODUCTS", "True")
KINDS = {
    "masks, C4": (C4, MASKS),
    "masks, C4, products and rejection": (C4, (*MASKS, *BUT_BOXES)),
    "masks, FPN": (FPN, MASKS),
    "masks and keypoints, cascade": (FPN, (*MASKS, *KEYPOINTS, *CASCADE)),
    "keypoints, FPN": (FPN, KEYPOINTS),
}

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
each_kind = pytest.mark.parametrize(("file", "kind"), KINDS.values(), ids=KINDS)


def toy(root, *more):
    """Overrides for a folder of six images, to train and test on."""
    data = str([("toy", *write_coco_folder(root, num_images=6, masks=True, keypoints=True))])
    return ["DATASETS.COCO_FORMAT", data, "DATASETS.TRAIN", "('toy',)", "DATASETS.TEST", "('toy',)", *more]


def tasks(cfg):
    return {"bbox", *(["segm"] if cfg.MODEL.MASK_ON else []), *(["keypoints"] if cfg.MODEL.KEYPOINT_ON else [])}


@each_kind
def test_it_trains_resumes_and_is_evaluated(tmp_path, file, kind):
    options = [*kind, *toy(tmp_path), "SOLVER.MAX_ITER", "3", "SOLVER.WARMUP_ITERS", "0"]
    for folder, resumes in (("whole", False), ("resumed", True)):
        cfg = load_config(file, [*options, "OUTPUT_DIR", str(tmp_path / folder)])
        if resumes:
            first = cfg.clone()
            first.defrost()
            first.SOLVER.MAX_ITER, first.DATASETS.TEST = 2, ()
            train(DetectionTrainer, first)
        train(DetectionTrainer, cfg, resume=resumes)
    whole, resumed = (final_weights(tmp_path / folder) for folder in ("whole", "resumed"))
    assert whole.keys() == resumed.keys() and all(torch.equal(value, resumed[name]) for name, value in whole.items())
    logged = [json.loads(line) for line in (tmp_path / "whole/metrics.json").read_text().splitlines()]
    (losses,) = [line for line in logged if "loss_ponder" in line]
    assert ("loss_mask" in losses) == cfg.MODEL.MASK_ON and ("loss_keypoint" in losses) == cfg.MODEL.KEYPOINT_ON
    results = read_json(tmp_path / "whole/inference/results.json")["toy"]
    assert set(results) == {*tasks(cfg), "ponder"}
    assert all(results[task]["AP"] >= 0 for task in tasks(cfg))


def train_in_process(file, options):
    train(DetectionTrainer, load_config(file, options))
    comm.synchronize()


@pytest.mark.parametrize("name", ["masks, C4", "masks and keypoints, cascade"])
def test_it_trains_and_is_evaluated_in_two_processes(tmp_path, name):
    file, kind = KINDS[name]
    options = [*kind, *toy(tmp_path), "SOLVER.MAX_ITER", "2", "OUTPUT_DIR", str(tmp_path / "out")]
    launch(train_in_process, 2, dist_url="auto", args=(file, [*options, "MODEL.SACT.NORM", "FrozenBN"]))
    results = read_json(tmp_path / "out/inference/results.json")["toy"]
    assert set(results) == {*tasks(load_config(file, kind)), "ponder"} and results["ponder"]["images"] == 6


@torch.no_grad()
@each_kind
def test_the_whole_detector_s_flops_are_those_of_its_layers_as_they_run(tmp_path, file, kind):
    plain = ["MODEL.SACT.HALTING", "none", "MODEL.SACT.EXECUTION", "dense"]
    if "MODEL.SACT.REJECTION" in kind:
        plain += ["MODEL.SACT.REJECTION", "False", "MODEL.SACT.BOX_HEAD_MAP_PRODUCTS", "False"]
    cfg = load_config(file, [*kind, *toy(tmp_path), *plain, "OUTPUT_DIR", str(tmp_path / "out")])
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
    assert unpadded and any(rows[index]["detections"] for index in unpadded)
    for index in unpadded:  # elsewhere the layers compute the batch's padding, too
        assert rows[index]["detector_flops"]["total"] == counts[index]
        assert rows[index]["detector_flops_percent"] == 100


@torch.no_grad()
@pytest.mark.parametrize("more", [(), BUT_BOXES], ids=["", "products and rejection"])
def test_masks_of_detections_are_those_of_their_boxes_given(tmp_path, more):
    cfg = load_config(C4, [*MASKS, *more, *toy(tmp_path), "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"])
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    inputs = next(iter(build_test_loader(cfg, "toy")))
    (found,) = model.inference(inputs, do_postprocess=False)
    given = Instances(found.image_size, pred_boxes=found.pred_boxes, pred_classes=found.pred_classes)
    (again,) = model.inference(inputs, [given], do_postprocess=False)
    assert len(found) > 0 and torch.equal(again.pred_masks, found.pred_masks)


def test_a_detector_of_boxes_starts_one_of_masks(tmp_path, caplog):
    caplog.set_level(logging.INFO, "sact_det")
    boxes = filled(build_model(load_config(C4)))
    torch.save({"model": boxes.state_dict()}, tmp_path / "boxes.pth")
    model = build_model(load_config(C4, MASKS))
    DetectorCheckpointer(model).load(str(tmp_path / "boxes.pth"))
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in boxes.state_dict().items())
    (said,) = [record.getMessage() for record in caplog.records if "Starting fresh" in record.getMessage()]
    assert "roi_heads.mask_head.deconv, roi_heads.mask_head.mask_fcn1, roi_heads.mask_head.predictor" in said


def noisy(item, annotations, rng):
    """Instances near the objects of an image: moved boxes, masks and keypoints."""
    chosen = [annotations[i] for i in rng.integers(len(annotations), size=6)]
    size, masks = (item["height"], item["width"]), []
    moves = rng.normal(scale=3, size=(len(chosen), 2))
    instances = Instances(size)
    xywh = np.array([a["bbox"] for a in chosen])
    boxes = np.concatenate([xywh[:, :2] + moves, xywh[:, :2] + moves + xywh[:, 2:]], 1)
    for a, move in zip(chosen, moves):
        polygon = (np.reshape(a["segmentation"][0], (-1, 2)) + move).reshape(-1).tolist()
        masks.append(rle.decode(rle.frPyObjects([polygon], *size))[:, :, 0])
    points = np.array([a["keypoints"] for a in chosen]).reshape(len(chosen), -1, 3) + 0.5
    points[:, :, :2] += moves[:, None]
    instances.pred_boxes, instances.scores = Boxes(torch.tensor(boxes)), torch.tensor(rng.random(len(chosen)).round(1))
    instances.pred_classes = torch.tensor([a["category_id"] for a in chosen])
    instances.pred_masks, instances.pred_keypoints = torch.tensor(np.array(masks)).bool(), torch.tensor(points)
    return instances


def test_numbers_are_those_of_detectron2s_evaluator(tmp_path):
    cfg = load_config(FPN, [*MASKS, *KEYPOINTS, *toy(tmp_path)])
    truth = {d["image_id"]: d["annotations"] for d in DatasetCatalog.get("toy")}
    ours = BoxEvaluator("toy", str(tmp_path / "ours"), masks=True, sigmas=SIGMAS)
    theirs = COCOEvaluator("toy", output_dir=str(tmp_path / "theirs"), kpt_oks_sigmas=SIGMAS)
    theirs.reset()
    rng = np.random.default_rng(0)
    for inputs in build_test_loader(cfg, "toy"):
        instances = noisy(inputs[0], truth[inputs[0]["image_id"]], rng)
        for evaluator in (ours, theirs):
            evaluator.process(inputs, [{"instances": instances}])
    results = ours.evaluate()
    assert set(results) == {"bbox", "segm", "keypoints"} and all(0 < own["AP"] < 100 for own in results.values())
    assert {task: str(own) for task, own in results.items()} == {t: str(o) for t, o in theirs.evaluate().items()}


def test_an_object_without_a_mask_is_not_judged_by_one(tmp_path):
    cfg = load_config(FPN, [*MASKS, *toy(tmp_path)])
    content = read_json(tmp_path / "instances.json")
    for one in content["annotations"][::2]:
        one.pop("segmentation")
    truth = {d["image_id"]: d["annotations"] for d in DatasetCatalog.get("toy")}
    write_json(tmp_path / "instances.json", content)
    evaluator = BoxEvaluator("toy", str(tmp_path / "ours"), masks=True)
    for inputs in build_test_loader(cfg, "toy"):
        annotations = truth[inputs[0]["image_id"]]
        instances = Instances((inputs[0]["height"], inputs[0]["width"]))
        xywh = torch.tensor([a["bbox"] for a in annotations])
        instances.pred_boxes = Boxes(torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1))
        instances.scores = torch.ones(len(annotations))
        instances.pred_classes = torch.tensor([a["category_id"] for a in annotations])
        decoded = [rle.decode(rle.frPyObjects(a["segmentation"], *instances.image_size))[..., 0] for a in annotations]
        instances.pred_masks = torch.tensor(np.array(decoded)).bool()
        evaluator.process(inputs, [{"instances": instances}])
    results = evaluator.evaluate()
    assert results["segm"]["AP"] == results["bbox"]["AP"] == pytest.approx(100)


def test_images_with_an_object_without_a_mask_are_left_out_of_a_training(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "sact_det")
    cfg = load_config(FPN, [*MASKS, *toy(tmp_path)])
    content = read_json(tmp_path / "instances.json")
    content["annotations"][0].pop("segmentation")
    content["annotations"][2].update(segmentation=None, iscrowd=1)  # a crowd needs none
    write_json(tmp_path / "instances.json", content)
    batches = iter(build_train_loader(cfg))
    seen = {item["image_id"] for _ in range(6) for item in next(batches)}
    assert seen == {2, 3, 4, 5, 6}
    assert "toy: 1 of 6 images left out, with an object without a mask" in caplog.text


def test_masks_and_keypoints_follow_their_image(tmp_path):
    cfg = load_config(FPN, [*MASKS, *KEYPOINTS, *toy(tmp_path)])
    batches = iter(build_train_loader(cfg))
    for item in [item for _ in range(4) for item in next(batches)]:
        own = item["instances"]
        boxes, masks = own.gt_boxes.tensor, own.gt_masks.get_bounding_boxes().tensor
        torch.testing.assert_close(masks, boxes, atol=1e-3, rtol=0)
        left, right = own.gt_keypoints.tensor[:, 0], own.gt_keypoints.tensor[:, 1]
        assert (left[:, 0] < right[:, 0]).all()  # a mirrored image has its corners exchanged
        assert (left[:, 0] >= boxes[:, 0]).all() and (right[:, 0] <= boxes[:, 2]).all()


@pytest.mark.parametrize("name", ["masks, C4", "masks and keypoints, cascade"])
def test_what_is_found_is_drawn(tmp_path, name):
    file, kind = KINDS[name]
    cfg = load_config(file, [*kind, *toy(tmp_path), "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"])
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, tmp_path / "w.pth")
    cfg.defrost()
    cfg.MODEL.WEIGHTS = str(tmp_path / "w.pth")
    image = np.random.default_rng(0).integers(0, 255, (80, 100, 3), dtype=np.uint8)
    instances = Predictor(cfg)(image).instances
    assert instances.pred_masks.shape == (len(instances), 80, 100) and len(instances) > 0
    drawn = draw_detections(image, instances, scale=4)  # lines and labels leave something to be seen
    for field in ("pred_masks", "pred_keypoints"):
        if instances.has(field):
            instances.remove(field)
            without = draw_detections(image, instances, scale=4)
            assert (drawn != without).any()
            drawn = without


@pytest.mark.parametrize(
    ("file", "overrides", "message"),
    [
        (C4, KEYPOINTS, "MODEL.KEYPOINT_ON: SACTRes5ROIHeads has no keypoint head; expected a detector on a pyramid"),
        (
            C4,
            (*MASKS, "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION", "7"),
            "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION has no eff",
        ),
        (FPN, ("MODEL.ROI_MASK_HEAD.NUM_CONV", "4"), "MODEL.ROI_MASK_HEAD.NUM_CONV has no effect on a detector"),
        (FPN, ("TEST.KEYPOINT_OKS_SIGMAS", "[0.1]"), "TEST.KEYPOINT_OKS_SIGMAS has no effect on a detector"),
        (FPN, (*MASKS, "MODEL.ROI_MASK_HEAD.NAME", "foo"), "MODEL.ROI_MASK_HEAD.NAME must be one of MaskRCNNConvUpsam"),
        (FPN, (*MASKS, "INPUT.MASK_FORMAT", "foo"), "INPUT.MASK_FORMAT must be one of 'polygon', 'bitmask'"),
        (
            FPN,
            (*KEYPOINTS, "TEST.KEYPOINT_OKS_SIGMAS", "[]"),
            "TEST.KEYPOINT_OKS_SIGMAS must list a number for each of",
        ),
        (
            FPN,
            (*KEYPOINTS, "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", "5"),
            "NUM_KEYPOINTS is 5, but data set 'toy' has 3",
        ),
    ],
)
def test_what_does_not_go_together_is_named(tmp_path, file, overrides, message):
    with pytest.raises(InputError) as error:
        load_config(file, [*toy(tmp_path), *overrides])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_masks_that_are_no_polygons_need_bitmasks(tmp_path):
    options = [*MASKS, *toy(tmp_path)]
    content = read_json(tmp_path / "instances.json")
    size = [content["images"][0][side] for side in ("height", "width")]
    content["annotations"][0]["segmentation"] = {"size": size, "counts": [5000, 100, math.prod(size) - 5100]}
    write_json(tmp_path / "instances.json", content)
    with pytest.raises(InputError, match=r"^INPUT.MASK_FORMAT must be 'bitmask' for toy: masks of .*1.png are run-len"):
        build_train_loader(load_config(FPN, options))
    batches = iter(build_train_loader(load_config(FPN, [*options, "INPUT.MASK_FORMAT", "bitmask"])))
    items = {item["image_id"]: item["instances"] for _ in range(3) for item in next(batches)}
    assert items[1].gt_masks.tensor.sum() > 0


@pytest.mark.parametrize(
    ("file", "kind", "fresh"),
    [
        (C4, MASKS, {"roi_heads.mask_head.deconv", "roi_heads.box_predictor.cls_score"}),
        (FPN, (*MASKS, *KEYPOINTS), {"roi_heads.mask_head.deconv", "roi_heads.keypoint_head.score_lowres"}),
        (
            FPN,
            (*MASKS, "MODEL.META_ARCHITECTURE", "SACTPanopticFPN"),
            {"sem_seg_head.predictor", "backbone.fpn_lateral2"},
        ),
    ],
    ids=["masks, C4", "masks and keypoints, FPN", "panoptic"],
)
def test_a_classifier_starts_any_of_them_and_what_starts_fresh_is_listed(tmp_path, caplog, file, kind, fresh):
    caplog.set_level(logging.INFO, "sact_det")
    source = filled(build_classifier((2, 1, 3, 2), halting="sact", num_classes=5, base_channels=4)).state_dict()
    save_weights(tmp_path / "w.pth", source, {"units": [2, 1, 3, 2], "base_channels": 4})
    own = ("MODEL.SACT.UNITS", "(2, 1, 3, 2)", "MODEL.SACT.BASE_CHANNELS", "4", "MODEL.SACT.REFERENCE_UNITS")
    model = build_model(load_config(file, [*own, "(2, 1, 3)" if file == C4 else "(2, 1, 3, 2)", *kind]))
    DetectorCheckpointer(model).load(str(tmp_path / "w.pth"))
    block3 = extractor_of(model.backbone).blocks["block3"].state_dict()
    assert all(torch.equal(value, source[f"block3.{name}"]) for name, value in block3.items())
    started = set(fresh_parts(caplog))
    assert fresh <= started and not any("block" in part or "stem" in part for part in started)
