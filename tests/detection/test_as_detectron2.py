"""Where our detector stands in the place of Detectron2's, it does what users of Detectron2 expect of it."""

import logging
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from feature_extraction import extract
from PIL import Image
from random_detector import write_random_detector

from sact_det.base.errors import InputError
from sact_det.detection.backbone import SACTBackbone, is_read
from sact_det.detection.predictor import Predictor
from sact_det.execution import EXECUTIONS
from sact_det.execution.perforated import PerforatedPlan
from sact_det.network.norm import FrozenBatchNorm2d
from sact_det.network.resnet_v2 import ResNetV2Spec
from sact_det.tasks import load_config

TINY = str(Path(__file__).parents[2] / "configs/tests/tiny.yaml")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    return write_random_detector(tmp_path_factory.mktemp("weights") / "detector.pth", TINY)


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


@pytest.mark.parametrize(
    "image",
    [
        *(photograph()[..., 0], photograph() / 255, photograph()[..., :2], photograph()[:0]),
        *(torch.from_numpy(photograph()), Image.fromarray(photograph())),
    ],
    ids=["grey", "float", "two channels", "empty", "torch", "PIL"],
)
def test_a_predictor_says_what_is_no_image(weights, image):
    with pytest.raises(ValueError, match=r"`image` must be uint8 BGR \[H, W, 3\].*; got"):
        Predictor(load_config(TINY, ["MODEL.WEIGHTS", weights]))(image)


def test_a_detectors_execution_is_that_of_all_its_parts():
    model = build_model(load_config(TINY))
    model.set_execution("perforated")
    parts = [model.backbone.stem, *model.backbone.blocks.values(), model.roi_heads.res5.block4]
    assert {type(part.plan) for part in parts} == {PerforatedPlan} and len({part.plan for part in parts}) == len(parts)
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


def test_there_is_no_freezing_backwards():
    with pytest.raises(ValueError, match="`freeze_at` must be 0 or more; got -1"):
        build_model(load_config(TINY)).backbone.freeze(-1)


def test_a_feature_is_read_by_whoever_names_it():
    cfg = get_cfg()
    assert is_read(cfg, "res4") and not is_read(cfg, "res4_relu")
    cfg.MODEL.RETINANET.IN_FEATURES = ["res4_relu"]
    assert is_read(cfg, "res4_relu")


def test_a_norm_that_nothing_reads_rests_and_its_files_fit(weights):
    overrides = ["MODEL.RPN.IN_FEATURES", "['res4']", "MODEL.WEIGHTS", weights]
    model = build_model(load_config(TINY, overrides)).train()
    image = {"image": torch.from_numpy(photograph().transpose(2, 0, 1).copy()), "height": 90, "width": 120}
    gold = Instances((90, 120), gt_boxes=Boxes(torch.tensor([[10.0, 10, 60, 60]])), gt_classes=torch.tensor([1]))
    with EventStorage():
        sum(model([{**image, "instances": gold}]).values()).backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not [name for name in without if name.startswith("backbone.")]  # which DDP would wait for
    assert set(model.backbone(torch.zeros(1, 3, 32, 32))) == {"res4"} == set(model.backbone.output_shape())
    Predictor(load_config(TINY, overrides))


@pytest.mark.parametrize(
    ("features", "blocks", "norms"),
    [
        (("res2",), 1, ["res2_norm"]),
        (("res3_relu", "res2"), 2, ["res3_norm"]),
        (("res2_relu", "res3_relu", "res4_relu", "res5_relu"), 4, ["res2_norm", "res3_norm", "res4_norm", "res5_norm"]),
        (("res5", "res3_relu"), 4, ["res3_norm", "res5_norm"]),
    ],
)
def test_a_backbone_has_the_blocks_and_norms_that_its_features_need(features, blocks, norms):
    backbone = SACTBackbone(spec=ResNetV2Spec(units=(1, 2, 1, 2), base_channels=8), out_features=features).eval()
    parts = [name for name, _ in backbone.named_children()]
    assert parts == ["stem", *(f"block{index}" for index in range(1, blocks + 1)), *norms]
    with torch.no_grad():
        found = backbone(torch.rand(1, 3, 70, 90))
    assert tuple(found) == features == tuple(backbone.output_shape())
    for name, shape in backbone.output_shape().items():
        assert found[name].shape == (1, shape.channels, -(-70 // shape.stride), -(-90 // shape.stride))
        assert (found[name].min() >= 0) == name.endswith("_relu")
    read = {name.replace("_relu", "_norm") for name in features if name.endswith("_relu")}
    assert {name for name in norms if not isinstance(backbone.get_submodule(name), FrozenBatchNorm2d)} == read
    backbone.freeze(blocks + 1)
    assert not [name for name, p in backbone.named_parameters() if p.requires_grad and ".halting." not in name]


@torch.no_grad()
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_feature_that_nothing_reads_is_not_kept(execution):
    spec = ResNetV2Spec(units=(1, 2, 1, 2), base_channels=8)
    backbone = SACTBackbone(spec=spec, out_features=["res5"], execution=execution).eval()
    made, kept = [], []
    backbone.block1.register_forward_hook(lambda module, inputs, outputs: made.append(weakref.ref(outputs[0])))
    backbone.block3.register_forward_pre_hook(lambda module, inputs: kept.append(made[0]() is not None))
    assert backbone(torch.rand(1, 3, 64, 64))["res5"].shape == (1, 256, 2, 2)
    assert kept == [False]


def test_a_rectified_feature_is_the_next_blocks_first_pre_activation():
    spec = ResNetV2Spec(units=(1, 2, 1, 2), base_channels=8)
    backbone = SACTBackbone(spec=spec, out_features=["res3", "res3_relu", "res4"], execution="dense").eval()
    first = backbone.block3.units[0]
    torch.nn.init.uniform_(first.preact.running_mean)
    backbone.res3_norm.load_state_dict(first.preact.state_dict())
    read = []
    first.conv1.register_forward_hook(lambda module, inputs, output: read.append(inputs[0]))
    with torch.no_grad():
        features = backbone(torch.rand(2, 3, 40, 56))
    assert torch.equal(read[0], features["res3_relu"]) and not torch.equal(features["res3"], features["res3_relu"])


@pytest.mark.parametrize("features", [(), ("res6",), ("stem",), ("res4", "res4_norm"), ("res5_relu",)])
def test_a_backbone_names_the_features_there_are(features):
    with pytest.raises(ValueError, match=r"`out_features` must be one of 'res2', 'res2_relu', .*; got '"):
        SACTBackbone(spec=ResNetV2Spec(units=(1, 1, 1), base_channels=8), out_features=features)


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


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("BACKBONE.NAME", "foo", "must be one of .*build_sact_resnet_backbone.*; got 'foo'"),
        ("BACKBONE.NAME", "build_resnet_backbone", "needs MODEL.BACKBONE.NAME build_sact_resnet_backbone or build_"),
        ("BACKBONE.NAME", "build_resnet_fpn_backbone", "needs MODEL.BACKBONE.NAME build_sact_resnet_backbone or build"),
        ("ROI_HEADS.NAME", "foo", "must be one of .*SACTRes5ROIHeads.*; got 'foo'"),
        ("ROI_HEADS.NAME", "StandardROIHeads", "needs MODEL.ROI_HEADS.NAME SACTRes5ROIHeads; got"),
        ("ROI_HEADS.NAME", "CascadeROIHeads", "needs MODEL.ROI_HEADS.NAME SACTRes5ROIHeads; got"),
        ("ROI_HEADS.NAME", "Res5ROIHeads", "needs MODEL.ROI_HEADS.NAME SACTRes5ROIHeads; got"),
        ("ROI_HEADS.NAME", "RROIHeads", "needs MODEL.ROI_HEADS.NAME SACTRes5ROIHeads; got"),
        ("PROPOSAL_GENERATOR.NAME", "PrecomputedProposals", "must be one of RPN, .*; got 'PrecomputedProposals'"),
        ("PROPOSAL_GENERATOR.NAME", "RRPN", "takes no rotated boxes"),
        ("SACT.PROPOSAL_MASS", 0.0, r"must lie in \(0, 1\]; got 0\.0"),
        ("SACT.PROPOSAL_MASS", float("nan"), r"must lie in \(0, 1\]; got nan"),
        ("ANCHOR_GENERATOR.NAME", "RotatedAnchorGenerator", "takes no rotated boxes"),
        ("RPN.HEAD_NAME", "foo", "must be one of SACTRPNHead, StandardRPNHead; got 'foo'"),
        ("LOAD_PROPOSALS", True, "has no effect on a detector"),
        ("KEYPOINT_ON", True, "has no keypoint head; expected a detector on a pyramid"),
        ("RPN.IN_FEATURES", ["res5"], "'res4' or 'res4_relu'.*; got"),
        ("RPN.IN_FEATURES", [], "'res4' or 'res4_relu'.*; got"),
        ("ROI_HEADS.IN_FEATURES", ["p2", "p3"], "'res4' or 'res4_relu'.*; got"),
    ],
)
def test_a_detector_of_other_parts_is_refused_where_it_is_built(key, value, message):
    cfg = load_config(TINY).clone()
    cfg.defrost()
    *sections, name = f"MODEL.{key}".split(".")
    node = cfg
    for section in sections:
        node = node[section]
    node[name] = value
    with pytest.raises(InputError, match=message) as error:
        build_model(cfg)
    assert "\n" not in str(error.value) and f"MODEL.{key}" in str(error.value)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_no_images_have_no_outputs(execution):
    model = build_model(load_config(TINY, ["MODEL.SACT.EXECUTION", execution])).eval()
    assert model([]) == [] == model.inference([], do_postprocess=False)
    with torch.no_grad():
        features, record = extract(model.backbone, torch.zeros(0, 3, 32, 48))
    assert features["res4"].shape == (0, 128, 2, 3) and record.flops.shape == (0,)
    with pytest.raises(ValueError, match="`batched_inputs`"):
        model.train()([])


@pytest.mark.parametrize("norm", ["FrozenBN", "BN", "SyncBN", "MovingBN"])
@pytest.mark.parametrize("halting", ["none", "act", "sact"])
def test_a_step_without_regions_learns_from_the_rest_and_says_nothing_of_block_4(monkeypatch, norm, halting):
    overrides = ["MODEL.SACT.NORM", norm, "MODEL.SACT.BOX_HEAD_HALTING_NORM", "BN" if norm == "BN" else "MovingBN"]
    model = build_model(load_config(TINY, ["MODEL.SACT.HALTING", halting, *overrides])).train()
    before = {name: value.clone() for name, value in model.roi_heads.named_buffers()}
    propose = model.proposal_generator.forward
    no_proposals = lambda *inputs: ([found[:0] for found in propose(*inputs)[0]], propose(*inputs)[1])  # noqa: E731
    monkeypatch.setattr(model.proposal_generator, "forward", no_proposals)
    nothing = Instances((90, 120), gt_boxes=Boxes(torch.zeros(0, 4)), gt_classes=torch.zeros(0, dtype=torch.int64))
    image = {"image": torch.from_numpy(photograph().transpose(2, 0, 1).copy()), "height": 90, "width": 120}
    with EventStorage() as storage:
        losses = model([{**image, "instances": nothing}])
        sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    assert all(torch.equal(value, before[name]) for name, value in model.roi_heads.named_buffers())
    logged = storage.latest()
    assert "sact/block3_units" in logged and "sact/block4_units" not in logged
    assert all(np.isfinite(value) for value, _ in logged.values())
