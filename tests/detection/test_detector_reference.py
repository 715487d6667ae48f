"""What a plain detector computes, against a count of all layers of a detector that detects."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from closed_form import extractor_flops
from detectron2.modeling import build_model
from pyramid_detectors import DETECTORS, SACTMaskRCNN, config
from torch import Tensor, nn

from sact_det.detection.reference import DetectorReference
from sact_det.execution import set_execution
from sact_det.tasks import load_config

TINY = str(Path(__file__).parents[2] / "configs/tests/tiny.yaml")
PARTS = {
    "backbone.fpn": "neck",
    "backbone.top_block": "neck",
    "roi_heads.mask_head": "mask_head",
    "roi_heads.box_predictor": "box_predictor",
    "roi_heads": "box_head",
}


def part_of(name: str) -> str:
    """The part of a module, by its name in the detector."""
    return next((part for prefix, part in PARTS.items() if name.startswith(prefix)), name.split(".")[0])


@torch.no_grad()
def counted(model: nn.Module, size: tuple[int, int]) -> tuple[Counter[str], int, int]:
    """FLOPs by part of all layers as they run on an image, and how many regions and masks there were."""
    set_execution(model, "dense")  # hooks see what PyTorch computes
    flops: Counter[str] = Counter()
    rows = {"box_head": 0, "mask_head": 0}

    def count(name: str, layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        part = part_of(name)
        places = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        flops[part] += 2 * layer.weight.numel() * len(places) * math.prod(places.shape[2:])
        if part in rows:
            rows[part] = max(rows[part], len(output))

    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            layer.register_forward_hook(lambda *call, name=name: count(name, *call))
    model.eval()([{"image": torch.randint(0, 256, (3, *size), dtype=torch.uint8)}])
    return flops, rows["box_head"], rows["mask_head"]


def check(reference: DetectorReference, model: nn.Module, size: tuple[int, int]) -> dict[str, int]:
    """Compares both counts; returns the parts'."""
    found, regions, masks = counted(model, size)
    flops = reference.flops(size, regions, masks)
    assert flops.pop("total") == sum(flops.values())
    assert {part: number for part, number in flops.items() if number} == dict(found)
    return flops


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("size", [(128, 192), (64, 64)])
def test_every_layer_of_a_pyramid_detector_is_counted(detector: type, size: tuple[int, int]):
    torch.manual_seed(0)
    model = detector(config(detector, "none"))
    flops = check(DetectorReference.of(model), model, size)
    assert flops["backbone"] == extractor_flops((2, 1, 3, 2), 4, *size)
    assert ("mask_head" in flops) == (detector in DETECTORS[1:]) and flops["neck"] > 0


@pytest.mark.parametrize("max_pool", ["False", "True"])
def test_every_layer_of_a_c4_detector_is_counted_whatever_halts(max_pool: str):
    torch.manual_seed(0)
    pool = ("MODEL.SACT.BOX_HEAD_MAX_POOL", max_pool)
    plain = build_model(load_config(TINY, ["MODEL.SACT.HALTING", "none", "MODEL.SACT.UNITS", "(2, 1, 3, 2)", *pool]))
    sact = load_config(TINY, ["MODEL.SACT.REFERENCE_UNITS", "(2, 1, 3)", "MODEL.SACT.TILE", "2", *pool])
    flops = check(DetectorReference.from_config(sact), plain, (96, 131))
    assert flops["backbone"] == extractor_flops((2, 1, 3), 8, 96, 131) and flops["neck"] == 0


def test_padding_is_not_counted_and_regions_count_by_their_number():
    reference = DetectorReference.of(SACTMaskRCNN(config(SACTMaskRCNN, "none")))
    assert reference.flops((97, 131))["neck"] < reference.flops((128, 160))["neck"]
    none, some = (reference.flops((97, 131), regions, masks) for regions, masks in ((0, 0), (300, 20)))
    heads = reference.by_region
    difference = 300 * (heads["box_head"] + heads["box_predictor"]) + 20 * heads["mask_head"]
    assert some["total"] - none["total"] == difference > 0


def test_parts_are_those_of_the_architecture():
    found: dict[str, Any] = {}
    for detector in DETECTORS:
        reference = DetectorReference.of(detector(config(detector, "none")))
        found[detector.__name__] = [*reference.by_stride, *reference.by_region]
    boxes = ["backbone", "neck", "proposal_generator", "box_head", "box_predictor", "mask_head"]
    assert found == {
        "SACTRetinaNet": ["backbone", "neck", "head"],
        "SACTMaskRCNN": boxes,
        "SACTPanopticFPN": [*boxes[:3], "sem_seg_head", *boxes[3:]],
    }
