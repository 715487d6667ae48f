"""Detectron2's meta-architectures on a pyramid of SACT features: each is a class of one line, and pays and reports."""

from typing import Any

import numpy as np
import pytest
import torch
from detectron2.modeling import GeneralizedRCNNWithTTA, ProposalNetwork
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from pyramid_detectors import DETECTORS, SACTMaskRCNN, SACTPanopticFPN, SACTRetinaNet, build, config
from torch.utils.checkpoint import checkpoint

from sact_det.base.errors import InputError
from sact_det.engine.priced import Priced

SIZES = [(70, 90), (96, 64)]


def example(index: int) -> dict[str, Any]:
    """An image with boxes, masks and a semantic segmentation."""
    height, width = SIZES[index]
    generator = torch.Generator().manual_seed(index)
    boxes = np.array([[10, 12, 40, 50], [30, 8, 60, 44]], np.float32)
    polygons = [[np.array([x0, y0, x1, y0, x1, y1, x0, y1])] for x0, y0, x1, y1 in boxes]
    return {
        "image": torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8),
        "height": height,
        "width": width,
        "sem_seg": torch.randint(0, 4, (height, width), generator=generator),
        "instances": Instances(
            (height, width),
            gt_boxes=Boxes(torch.from_numpy(boxes)),
            gt_classes=torch.tensor([0, 2]),
            gt_masks=PolygonMasks(polygons),
        ),
    }


BATCH = [example(0), example(1)]

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools


@pytest.mark.parametrize("detector", DETECTORS)
def test_it_learns_from_a_price_on_its_computation(detector: type):
    model = build(detector)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with EventStorage() as storage:
        for _ in range(2):
            losses = model(BATCH)
            assert "loss_ponder" in losses and all(loss.isfinite() for loss in losses.values())
            optimizer.zero_grad()
            losses["loss_ponder"].backward(retain_graph=True)
            paid = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
            assert {name for name in paid if "local_conv.weight" in name} == {
                f"backbone.bottom_up.block{block}.units.{unit}.halting.local_conv.weight"
                for block, unit in ((1, 0), (3, 0), (3, 1), (4, 0))
            }
            assert all(name.startswith("backbone.bottom_up.") for name in paid)
            optimizer.zero_grad()
            sum(losses.values()).backward()
            without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
            assert not without  # which distributed training would wait for
            optimizer.step()
            storage.step()
    logged = storage.latest()
    assert 0 < logged["sact/flops_percent"][0] < 110 and 1 < logged["sact/block4_units"][0] < 2


@torch.no_grad()
@pytest.mark.parametrize("detector", DETECTORS)
def test_an_image_s_map_is_the_same_alone_or_beside_another(detector: type):
    model = build(detector).eval()
    together = model(BATCH)
    assert len(together) == len(BATCH)
    for item, size, output in zip(BATCH, SIZES, together):
        (alone,) = model([item])
        record, own = output["ponder"], alone["ponder"]
        assert "instances" in output and list(record.blocks) == ["block1", "block2", "block3", "block4"]
        torch.testing.assert_close(record.map(size), own.map(size), rtol=1e-5, atol=1e-4)
        assert record.map(size).std() > 0 and record.map(size).device.type == "cpu"
        for name, block in record.blocks.items():
            assert torch.equal(block.num_units, own.blocks[name].num_units)
        assert output["flops"] == alone["flops"] == {"backbone": int(record.flops), "total": int(record.flops)}


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_plain_one_pays_nothing_and_reports_all_the_same(detector: type):
    model = build(detector, "none")
    with EventStorage() as storage:
        losses = model(BATCH)
        sum(losses.values()).backward()
    assert "loss_ponder" not in losses and storage.latest()["sact/flops_percent"][0] == 100
    with torch.no_grad():
        for output, size in zip(model.eval()(BATCH), SIZES):
            assert output["flops"]["backbone"] == model.reference.flops(size)


@torch.no_grad()
@pytest.mark.parametrize("detector", [SACTMaskRCNN, SACTPanopticFPN])
def test_raw_outputs_are_what_detectron2_gives(detector: type):
    model = build(detector).eval()
    raw = model.inference(BATCH, do_postprocess=False)
    instances = raw[0] if detector is SACTPanopticFPN else raw
    assert all(isinstance(found, Instances) for found in instances)
    for found, output in zip(instances, model.inference(BATCH)):
        assert torch.equal(found.scores, output["instances"].scores)


@torch.no_grad()
def test_given_boxes_get_their_masks_and_the_account_of_their_image():
    model = build(SACTMaskRCNN).eval()
    boxes = [Instances(size, pred_boxes=Boxes(torch.tensor([[1.0, 2, 30, 40]]))) for size in SIZES]
    for given in boxes:
        given.pred_classes = torch.tensor([0])
    for output, found in zip(model.inference(BATCH, boxes), model(BATCH)):
        assert output["instances"].pred_masks.shape[0] == 1
        assert output["flops"] == found["flops"] and torch.equal(output["ponder"].flops, found["ponder"].flops)


@torch.no_grad()
def test_test_time_augmentation_runs_it_at_its_own_sizes():
    cfg = config(SACTMaskRCNN)
    cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.MAX_SIZE = (48, 64), 96
    model = build(SACTMaskRCNN).eval()
    image = {**BATCH[0], "image": BATCH[0]["image"].float()}
    (output,) = GeneralizedRCNNWithTTA(cfg, model)([image])
    assert len(output["instances"]) > 0 and output["instances"].pred_masks.shape[1:] == SIZES[0]


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_map_of_an_image_is_drawn_every_vis_period(detector: type):
    model = build(detector)
    model.vis_period = 2
    with EventStorage() as storage:
        for _ in range(3):
            model(BATCH)
            storage.step()
    assert [step for name, _, step in storage._vis_data if "ponder map" in name] == [0, 2]


@pytest.mark.parametrize("detector", DETECTORS)
def test_no_images(detector: type):
    model = build(detector)
    with pytest.raises(ValueError, match="`batched_inputs`"):
        model([])
    assert model.eval()([]) == []


def test_a_backbone_that_is_recomputed_learns_the_same():
    gradients = []
    for recomputes in (False, True):
        model = build(SACTRetinaNet)
        run = model.backbone.forward
        if recomputes:
            model.backbone.forward = lambda images, run=run: checkpoint(run, images, use_reentrant=False)
        with EventStorage() as storage:
            losses = model(BATCH)
            sum(losses.values()).backward()
        gradients.append([losses["loss_ponder"].detach(), *(p.grad for p in model.parameters() if p.requires_grad)])
        assert storage.latest()["sact/flops_percent"][0] > 0
    assert all(map(torch.equal, *gradients))


def test_an_architecture_of_proposals_alone_pays_and_reports_too():
    class SACTProposalNetwork(Priced, ProposalNetwork): ...

    model = build(SACTProposalNetwork)
    with EventStorage():
        losses = model(BATCH)
    assert set(losses) == {"loss_rpn_cls", "loss_rpn_loc", "loss_ponder"}
    with torch.no_grad():
        for output, size in zip(model.eval()(BATCH), SIZES):
            assert len(output["proposals"]) > 0 and output["ponder"].map(size).std() > 0


def test_a_price_needs_a_part_that_pays():
    model = build(SACTRetinaNet)
    model.prices["box_head"] = 0.1
    with EventStorage(), pytest.raises(ValueError, match=r"what 'box_head' spent; entered: \['backbone'\]"):
        model(BATCH)
    with pytest.raises(InputError, match=r"'backbone' \(MODEL.SACT.TAU\) must be finite and not negative; got -1"):
        SACTRetinaNet(config(SACTRetinaNet), prices={"backbone": -1})
