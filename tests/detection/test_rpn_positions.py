"""Anchors at active positions alone, against logits that are masked by hand and positions that are counted by hand."""

import copy
from typing import Any

import pytest
import torch
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from pyramid_detectors import SACTMaskRCNN, SACTRetinaNet, config
from test_detector import example, losses_of, make_model
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image, nms

from sact_det.base.errors import InputError
from sact_det.detection.reference import DetectorReference
from sact_det.detection.rpn_head import SACTRPNHead
from sact_det.execution import EXECUTIONS, set_execution
from sact_det.rule import ledger
from sact_det.rule.ponder import BlockPonder, PonderRecord

ACTIVE = ("MODEL.SACT.RPN_POSITIONS", "active")
BATCH = [example(97, 131), example(64, 80, seed=1)]


def make(*overrides: str) -> Any:
    """A model in evaluation mode, with anchors at active positions, which are some; its RPN tells anchors apart."""
    model = make_model(*ACTIVE, *overrides)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "block3" in name and name.endswith("local_conv.weight"):
                parameter.normal_(std=0.4)
            if name.endswith("block3.units.0.halting.local_conv.bias"):
                parameter.fill_(3.5)
            if "rpn_head" in name and name.endswith("weight"):
                parameter.normal_(std=2 * parameter[0].numel() ** -0.5)
    return model.eval()


def halt_everything(model: Any) -> None:
    with torch.no_grad():
        model.backbone.block3.units[0].halting.local_conv.bias.fill_(1e4)


def entered(units: Tensor) -> PonderRecord:
    """A record of units [N, H, W] in block 3."""
    none, flops = torch.zeros(units.shape), torch.zeros(len(units), dtype=torch.int64)
    return PonderRecord({"block3": BlockPonder(none, units, flops, none[:, None])}, flops)


@torch.no_grad()
def run(model: Any, batch: list[dict[str, Any]]) -> tuple[Any, Any, Any, Any]:
    """Images, features, proposals and the ledger."""
    images = model.preprocess_image(batch)
    with ledger.open(images.image_sizes) as spent:
        features = model.backbone(images.tensor)
        return images, features, model.proposal_generator(images, features, None)[0], spent


def expected_proposals(model: Any, images: Any, features: Any, record: PonderRecord) -> list[tuple[Tensor, Tensor]]:
    """Boxes and logits: Detectron2's head everywhere, halted positions left out, the rest by torchvision."""
    rpn = model.proposal_generator
    head = StandardRPNHead(in_channels=128, num_anchors=9, conv_dims=[-1])
    head.load_state_dict(rpn.rpn_head.state_dict())
    x = features["res4_relu"]
    (logits,), (deltas,) = head([x])
    anchors = rpn.anchor_generator([x])[0].tensor.view(*x.shape[2:], 9, 4)
    found = []
    for index, size in enumerate(images.image_sizes):
        scores, boxes = [], []
        for row, column in (record.blocks["block3"].num_units[index] > 1).nonzero().tolist():
            own = deltas[index, :, row, column].view(9, 4)
            scores.append(logits[index, :, row, column])
            boxes.append(rpn.box2box_transform.apply_deltas(own, anchors[row, column]))
        top, order = torch.cat(scores).sort(descending=True)
        most = rpn.pre_nms_topk[False]
        top, own = top[:most], clip_boxes_to_image(torch.cat(boxes)[order[:most]], size)
        there = ((own[:, 2:] - own[:, :2]) > 0).all(1)
        top, own = top[there], own[there]
        kept = nms(own, top, rpn.nms_thresh)[: rpn.post_nms_topk[False]]
        found.append((own[kept], top[kept]))
    return found


@torch.no_grad()
@pytest.mark.parametrize("most", ["100", "20000"])
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_proposals_are_those_of_the_anchors_at_active_positions(execution: str, most: str):
    model = make("MODEL.SACT.EXECUTION", execution, "MODEL.RPN.PRE_NMS_TOPK_TEST", most)
    images, features, proposals, spent = run(model, BATCH)
    (record,) = spent["backbone"]
    units = record.blocks["block3"].num_units
    assert all(0.1 < (own > 1).float().mean() < 0.9 for own in (units[0], units[1, :4, :5]))
    for own, (boxes, logits) in zip(proposals, expected_proposals(model, images, features, record), strict=True):
        torch.testing.assert_close(own.objectness_logits, logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(own.proposal_boxes.tensor, boxes, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("widths", [[-1], [24], [24, 16], [8, 40, 16]])
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_logits_are_detectron2_s_where_active_and_no_anchors_elsewhere(execution: str, widths: list[int]):
    torch.manual_seed(0)
    kinds = {"in_channels": 20, "num_anchors": 3, "conv_dims": widths}
    head, theirs = SACTRPNHead(blocks=["block3"], **kinds).eval(), StandardRPNHead(**kinds)
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    theirs.load_state_dict(head.state_dict())
    set_execution(head, execution)
    x = torch.randn(3, 20, 7, 9)
    units = torch.randint(1, 4, (3, 7, 9)).clamp(max=2) * (torch.rand(3, 7, 9) > 0.3)
    units[2].clamp_(max=1)  # an image that has halted
    active = (units > 1)[:, None]
    (expected,), (expected_deltas,) = theirs([x])
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients), ledger.open():
            ledger.enter("backbone", entered(units))
            (logits,), (deltas,) = head([x])
        torch.testing.assert_close(logits, expected.masked_fill(~active, -torch.inf), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(deltas, expected_deltas * active, rtol=1e-5, atol=1e-5)
        if gradients:
            ours, others = (
                torch.autograd.grad(own.masked_fill(~active, 0).square().sum() + more.square().sum(), part.parameters())
                for own, more, part in ((logits, deltas, head), (expected, expected_deltas * active, theirs))
            )
            for own, other in zip(ours, others):
                torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("widths", ["[-1]", "[24, 16]"])
def test_what_it_takes_is_counted_at_the_positions_that_are_read(widths: str):
    model = make("MODEL.RPN.CONV_DIMS", widths)
    (*_, spent), sizes = run(model, BATCH), [(7, 9), (4, 5)]
    layers = [(128, 128)] if widths == "[-1]" else [(128, 24), (24, 16)]
    expected = []
    for own, (height, width) in zip(spent["backbone"][0].blocks["block3"].num_units, sizes, strict=True):
        active = {(y, x) for y in range(height) for x in range(width) if own[y, x] > 1}
        around = {(y + i, x + j) for y, x in active for i in (-1, 0, 1) for j in (-1, 0, 1)}
        around = {(y, x) for y, x in around if 0 <= y < height and 0 <= x < width}
        reads = [active] if len(layers) == 1 else [around, active]
        total = sum(2 * 9 * before * after * len(where) for (before, after), where in zip(layers, reads))
        expected.append(total + 2 * layers[-1][1] * 9 * (1 + 4) * len(active))
        assert 0 < len(active) < height * width
    assert spent.flops("proposal_generator").tolist() == expected
    with torch.no_grad():
        outputs = model(BATCH)
    assert [output["flops"]["proposal_generator"] for output in outputs] == expected
    for output, item in zip(outputs, BATCH):
        assert output["flops"]["total"] == sum(output["flops"].values()) - output["flops"]["total"]
        size, regions = tuple(item["image"].shape[1:]), output["regions"]
        reference = DetectorReference.of(model)
        whole = reference.flops_with(output["flops"], size, regions)
        assert whole["proposal_generator"] == output["flops"]["proposal_generator"]
        assert whole["proposal_generator"] < reference.flops(size)["proposal_generator"]


def test_all_of_it_is_a_detector_with_anchors_everywhere():
    model, everywhere = make(), make_model()
    assert DetectorReference.of(model) == DetectorReference.of(everywhere)
    assert model.proposal_generator.rpn_head.blocks == ["block3"]  # the reference is of a copy


@torch.no_grad()
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_an_image_has_the_same_proposals_alone_and_beside_a_larger_one(execution: str):
    model = make("MODEL.SACT.EXECUTION", execution)
    *_, together, spent = run(model, BATCH)
    *_, (alone,), own = run(model, BATCH[1:])
    torch.testing.assert_close(together[1].objectness_logits, alone.objectness_logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together[1].proposal_boxes.tensor, alone.proposal_boxes.tensor, rtol=1e-4, atol=1e-3)
    assert spent.flops("proposal_generator")[1] == own.flops("proposal_generator")


@torch.no_grad()
@pytest.mark.parametrize("rejection", ["False", "True"])
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_where_everything_halts_nothing_is_found(execution: str, rejection: str):
    model = make("MODEL.SACT.EXECUTION", execution, "MODEL.SACT.REJECTION", rejection)
    halt_everything(model)
    for output, item in zip(model(BATCH), BATCH, strict=True):
        assert len(output["instances"]) == output["regions"] == output["rejected_regions"] == 0
        assert output["flops"]["proposal_generator"] == 0 < output["flops"]["backbone"]
        assert output["instances"].image_size == tuple(item["image"].shape[1:])


@torch.no_grad()
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_where_nothing_halts_anchors_are_everywhere(execution: str):
    model = make("MODEL.SACT.EXECUTION", execution)
    model.backbone.block3.units[0].halting.local_conv.bias.fill_(-1e4)
    everywhere = copy.deepcopy(model)
    everywhere.proposal_generator.rpn_head.blocks = None
    for own, other, size in zip(model(BATCH[:1]), everywhere(BATCH[:1]), [BATCH[0]["image"].shape[1:]]):
        torch.testing.assert_close(own["instances"].scores, other["instances"].scores, rtol=1e-4, atol=1e-5)
        flops = DetectorReference.of(model).flops(tuple(size))["proposal_generator"]
        assert own["flops"]["proposal_generator"] == flops and "proposal_generator" not in other["flops"]


def test_a_training_has_anchors_everywhere():
    batch = [example(97, 131), example(120, 100, seed=1)]
    losses, _ = losses_of(make_model(*ACTIVE), batch)
    expected, _ = losses_of(make_model(), batch)
    assert losses.keys() == expected.keys() and all(torch.equal(losses[key], expected[key]) for key in losses)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (("MODEL.SACT.HALTING", "none"), r"active needs MODEL\.SACT\.HALTING sact: positions that halt; got 'none'"),
        (("MODEL.SACT.HALTING", "act"), r"active needs MODEL\.SACT\.HALTING sact: .* got 'act'"),
        (("MODEL.SACT.UNITS", "(1, 2, 1, 2)"), r"active needs a second unit in block 3; got MODEL\.SACT\.UNITS"),
        (
            ("MODEL.RPN.HEAD_NAME", "StandardRPNHead"),
            r"active needs MODEL\.RPN\.HEAD_NAME SACTRPNHead; got 'StandardRPNHead'",
        ),
        (("MODEL.SACT.RPN_POSITIONS", "halted"), r"must be one of 'all', 'active'; got 'halted'"),
    ],
)
def test_what_has_no_active_positions_is_refused(overrides: tuple[str, ...], line: str):
    with pytest.raises(InputError, match=rf"^MODEL\.SACT\.RPN_POSITIONS {line}"):
        make_model(*ACTIVE, *overrides)


@pytest.mark.parametrize(
    ("detector", "head", "line"),
    [
        (SACTRetinaNet, "SACTRPNHead", r"active needs .* in a detector of proposals; got SACTRetinaNet, 'SACTRPNHead'"),
        (SACTMaskRCNN, "StandardRPNHead", r"active needs .* SACTRPNHead .*; got SACTMaskRCNN, 'StandardRPNHead'"),
        (SACTMaskRCNN, "SACTRPNHead", r"active needs MODEL\.RPN\.IN_FEATURES of blocks, such as 'res4_relu'; got 'p2'"),
    ],
)
def test_a_detector_that_cannot_obey_is_refused(detector: type, head: str, line: str):
    cfg = config(detector)
    cfg.MODEL.RPN.HEAD_NAME, cfg.MODEL.SACT.RPN_POSITIONS = head, "active"
    with pytest.raises(InputError, match=rf"^MODEL\.SACT\.RPN_POSITIONS {line}"):
        detector(cfg)


@torch.no_grad()
def test_without_a_ledger_nobody_knows_what_halted():
    model = make()
    images = model.preprocess_image(BATCH)
    with pytest.raises(ValueError, match=r"RPN_POSITIONS active needs .* an open ledger"):
        model.proposal_generator(images, model.backbone(images.tensor), None)
