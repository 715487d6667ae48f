"""Somebody's own single-stage detector, written for Detectron2 alone: one line makes it pay and report."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from coco_folder import read_json, write_coco_folder
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, ImageList, Instances
from short_trainings import final_weights, train
from torch import nn

from sact_det.detection.trainer import DetectionTrainer
from sact_det.engine.priced import Priced
from sact_det.tasks import TASKS, load_config

FPN = str(Path(__file__).parents[2] / "configs/tests/tiny_fpn.yaml")


class CenterHead(nn.Module):
    """[N, C, H, W] of each level -> [N, classes + 4, H, W]: logits of an object's centre, and how far its sides are."""

    def __init__(self, channels, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.predictor = nn.Conv2d(channels, num_classes + 4, 1)
        nn.init.constant_(self.predictor.bias, -2.0)

    def forward(self, features):
        return [self.predictor(F.relu(self.conv(x))) for x in features]


class CenterDetector(nn.Module):
    """Finds objects by their centres on one level of a pyramid. It knows nothing of this package."""

    @configurable
    def __init__(self, *, backbone, head, head_in_features, num_classes, pixel_mean, pixel_std, input_format):
        super().__init__()
        self.backbone, self.head, self.head_in_features = backbone, head, head_in_features
        self.num_classes, self.input_format = num_classes, input_format
        self.stride = backbone.output_shape()[head_in_features[0]].stride
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    @classmethod
    def from_config(cls, cfg):
        backbone = build_backbone(cfg)
        channels = backbone.output_shape()["p3"].channels
        return {
            "backbone": backbone,
            "head": CenterHead(channels, cfg.MODEL.ROI_HEADS.NUM_CLASSES),
            "head_in_features": ["p3"],
            "num_classes": cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "input_format": cfg.INPUT.FORMAT,
        }

    def forward(self, batched_inputs):
        pixels = [(item["image"].to(self.pixel_mean) - self.pixel_mean) / self.pixel_std for item in batched_inputs]
        images = ImageList.from_tensors(pixels, self.backbone.size_divisibility)
        features = self.backbone(images.tensor)
        (found,) = self.head([features[name] for name in self.head_in_features])
        logits, sides = found[:, : self.num_classes], found[:, self.num_classes :].exp() * self.stride
        if self.training:
            return self.losses(logits, sides, [item["instances"] for item in batched_inputs])
        return [
            {"instances": detector_postprocess(self.best(*one, size), item["height"], item["width"])}
            for *one, size, item in zip(logits, sides, images.image_sizes, batched_inputs)
        ]

    def losses(self, logits, sides, instances):
        wanted, distance = torch.zeros_like(logits), sides.sum() * 0
        for index, own in enumerate(instances):
            boxes = own.gt_boxes.tensor
            x, y = ((boxes[:, :2] + boxes[:, 2:]) / 2 / self.stride).long().T
            wanted[index, own.gt_classes, y, x] = 1
            half = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2) / 2
            distance = distance + F.l1_loss(sides[index, :, y, x].T, half, reduction="sum") / 100
        centers = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / 10
        return {"loss_center": centers, "loss_side": distance}

    def best(self, logits, sides, size):
        scores, places = logits.sigmoid().flatten().topk(5)
        area = logits[0].numel()
        y, x = (places % area) // logits.shape[2], (places % area) % logits.shape[2]
        center = torch.stack([x, y], 1).add(0.5).mul(self.stride).repeat(1, 2)
        boxes = center + sides[:, y, x].T * sides.new_tensor([-1, -1, 1, 1])
        return Instances(size, pred_boxes=Boxes(boxes), scores=scores, pred_classes=places // area)


@META_ARCH_REGISTRY.register()
class SACTCenterDetector(Priced, CenterDetector): ...


@pytest.fixture
def known(monkeypatch):
    """As a train_net.py of one's own does it: the rest of the command lines then knows it, too."""
    monkeypatch.setitem(TASKS, "SACTCenterDetector", TASKS["SACTGeneralizedRCNN"])


def test_it_trains_resumes_and_is_evaluated_with_the_account_of_its_parts(tmp_path, known):
    options = [
        *("MODEL.META_ARCHITECTURE", "SACTCenterDetector", "SOLVER.WARMUP_ITERS", "0", "SOLVER.BASE_LR", "0.001"),
        *("DATASETS.COCO_FORMAT", str([("toy", *write_coco_folder(tmp_path, num_images=6))])),
        *("DATASETS.TRAIN", "('toy',)", "DATASETS.TEST", "('toy',)"),
    ]
    for folder, steps in (("whole", (3,)), ("resumed", (2, 3))):
        for number, last in enumerate(steps):
            output = ["OUTPUT_DIR", str(tmp_path / folder), "SOLVER.MAX_ITER", str(last)]
            train(DetectionTrainer, load_config(FPN, [*options, *output]), resume=number > 0)
    whole, resumed = (final_weights(tmp_path / folder) for folder in ("whole", "resumed"))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert "loss_ponder" in (tmp_path / "whole/metrics.json").read_text()
    results = read_json(tmp_path / "whole/inference/results.json")["toy"]
    assert results["bbox"]["AP"] >= 0 and results["ponder"]["head_gflops"] > 0
    rows = read_json(tmp_path / "whole/inference/toy/ponder.json")["images"]
    assert set(rows[0]["detector_flops"]) == {"backbone", "neck", "head", "total"}
