"""Where our detector stands in the place of Detectron2's, it does what users of Detectron2 expect of it."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.structures import Boxes, Instances
from lively_detector import write_lively_detector

from sact_det.detection.backbone import SACTBackbone
from sact_det.detection.predictor import Predictor
from sact_det.errors import InputError
from sact_det.norm import FrozenBatchNorm2d
from sact_det.tasks import load_config

TINY = str(Path(__file__).parents[2] / "configs/tests/tiny.yaml")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    return write_lively_detector(tmp_path_factory.mktemp("weights") / "detector.pth", TINY)


def photograph() -> np.ndarray:
    """uint8 [H, W, 3] whose channels differ."""
    generator = np.random.default_rng(3)
    return (generator.random((90, 120, 3)) * [255, 120, 40]).astype(np.uint8)


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_a_predictor_takes_what_detectron2s_takes(weights, channels):
    cfg = load_config(TINY, ["MODEL.WEIGHTS", weights, "INPUT.FORMAT", channels])
    ours, theirs = Predictor(cfg)(photograph()), DefaultPredictor(cfg)(photograph())
    assert len(ours.instances) > 0
    assert torch.equal(ours.instances.scores, theirs["instances"].scores.cpu())
    assert torch.equal(ours.instances.pred_boxes.tensor, theirs["instances"].pred_boxes.tensor.cpu())
    flipped = Predictor(cfg)(photograph()[..., ::-1])
    assert not torch.equal(flipped.instances.scores[:1], ours.instances.scores[:1])


@pytest.mark.parametrize("image", [photograph()[..., 0], photograph() / 255, photograph()[..., :2], photograph()[:0]])
def test_a_predictor_says_what_is_no_image(weights, image):
    with pytest.raises(ValueError, match=r"`image` must be uint8 BGR \[H, W, 3\]; got"):
        Predictor(load_config(TINY, ["MODEL.WEIGHTS", weights]))(image)


def test_a_detectors_execution_is_that_of_all_its_parts():
    model = build_model(load_config(TINY))
    model.set_execution("perforated")
    parts = [model.backbone.stem, *model.backbone.blocks.values(), model.roi_heads.res5.block4]
    assert {part.execution for part in parts} == {"perforated"}
    with pytest.raises(ValueError, match="`execution`"):
        model.set_execution("lazy")


@pytest.mark.parametrize("freeze_at", range(5))
def test_freezing_fixes_the_first_parts_and_leaves_halting_branches(freeze_at):
    backbone = build_model(load_config(TINY, ["MODEL.BACKBONE.FREEZE_AT", "0"])).backbone
    assert backbone.freeze(freeze_at) is backbone
    parts = ["stem", "block1", "block2", "block3", "res4_norm"]
    fixed = parts[:freeze_at] + parts[4:] * (freeze_at == 4)
    for name, parameter in backbone.named_parameters():
        expected = name.split(".")[0] not in fixed or ".halting." in name
        assert parameter.requires_grad == expected, name
    assert isinstance(backbone.res4_norm, FrozenBatchNorm2d) == (freeze_at == 4)


def test_a_norm_that_nothing_reads_rests_and_its_files_fit(weights):
    overrides = ["MODEL.RPN.IN_FEATURES", "['res4']", "MODEL.WEIGHTS", weights]
    model = build_model(load_config(TINY, overrides)).train()
    image = {"image": torch.from_numpy(photograph().transpose(2, 0, 1).copy()), "height": 90, "width": 120}
    gold = Instances((90, 120), gt_boxes=Boxes(torch.tensor([[10.0, 10, 60, 60]])), gt_classes=torch.tensor([1]))
    from detectron2.utils.events import EventStorage

    with EventStorage():
        sum(model([{**image, "instances": gold}]).values()).backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not [name for name in without if name.startswith("backbone.")]  # which DDP would wait for
    assert set(model.backbone(torch.zeros(1, 3, 32, 32))) == {"res4"} == set(model.backbone.output_shape())
    Predictor(load_config(TINY, overrides))


def test_given_boxes_come_back_with_the_account_of_their_image(weights):
    model = Predictor(load_config(TINY, ["MODEL.WEIGHTS", weights])).model
    image = {"image": torch.from_numpy(photograph().transpose(2, 0, 1).copy()), "height": 90, "width": 120}
    (found,) = model.inference([image])
    boxes = Instances((90, 120), pred_boxes=Boxes(torch.tensor([[1.0, 2, 30, 40]])), pred_classes=torch.tensor([0]))
    (given,) = model.inference([image], [boxes])
    assert len(given["instances"]) == 1 and given["box_head_flops"] == 0 < found["box_head_flops"]
    assert torch.equal(given["ponder"].flops, found["ponder"].flops)


def test_a_backbone_under_a_meta_architecture_without_a_price_says_so_once(caplog):
    model = build_model(load_config(TINY))
    plain = GeneralizedRCNN(
        backbone=model.backbone,
        proposal_generator=model.proposal_generator,
        roi_heads=model.roi_heads,
        pixel_mean=[0.0] * 3,
        pixel_std=[1.0] * 3,
    )
    assert isinstance(plain.backbone, SACTBackbone)
    x = torch.zeros(1, 3, 32, 32)
    with caplog.at_level(logging.WARNING, logger="sact_det"):
        plain.eval().backbone(x)
        assert not caplog.records
        for _ in range(2):
            plain.train().backbone(x)
    assert ["without a price" in record.message for record in caplog.records] == [True]


def test_other_box_heads_are_refused_when_the_detector_is_built():
    from sact_det.detection.meta_arch import SACTGeneralizedRCNN

    model = build_model(load_config(TINY))
    with pytest.raises(InputError, match=r"needs MODEL\.ROI_HEADS\.NAME SACTRes5ROIHeads; got a Linear"):
        SACTGeneralizedRCNN(
            tau=0.1,
            reference_units=(1, 2, 3),
            backbone=model.backbone,
            proposal_generator=model.proposal_generator,
            roi_heads=torch.nn.Linear(1, 1),
            pixel_mean=[0.0] * 3,
            pixel_std=[1.0] * 3,
        )
