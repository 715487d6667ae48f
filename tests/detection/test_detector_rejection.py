"""A detector that rejects regions before it pools them: what it learns, finds, spends and loads."""

import logging
import math
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from short_trainings import fresh_parts
from torch import Tensor

from sact_det.base.errors import InputError
from sact_det.detection.checkpoint import DetectorCheckpointer
from sact_det.detection.rejection import Verdict
from sact_det.detection.trainer import DetectionTrainer
from sact_det.rule import ledger
from sact_det.tasks import load_config

TINY = str(Path(__file__).parents[2] / "configs/tests/tiny.yaml")
SIZES = [(96, 128), (75, 90)]


def make_model(*overrides, bias=None, rejects=True) -> torch.nn.Module:
    torch.manual_seed(0)
    settings = ["MODEL.SACT.REJECTION", str(rejects), "MODEL.SACT.TAU_BOX_HEAD", "0.1"]
    settings += ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.2"]
    model = build_model(load_config(TINY, [*settings, *overrides]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("local_conv.bias"):
                parameter.fill_(-0.5)
        model.roi_heads.box_predictor.cls_score.weight.mul_(40)
        if rejects:
            model.roi_heads.rejection.conv.weight.normal_(std=1.5 / 128**0.5)
            model.roi_heads.rejection.bias.fill_(1.5 if bias is None else bias)
    return model


def batch(sizes=SIZES):
    generator = torch.Generator().manual_seed(0)
    examples = []
    for height, width in sizes:
        truth = Instances((height, width), gt_boxes=Boxes(torch.tensor([[10.0, 10, 60, 60], [20, 30, 80, 70]])))
        truth.gt_classes = torch.tensor([0, 2])
        image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
        examples.append({"image": image, "instances": truth, "height": height, "width": width})
    return examples


def judged(model):
    """Verdicts, from here on."""
    verdicts: list[Verdict] = []
    model.roi_heads.rejection.register_forward_hook(lambda module, inputs, output: verdicts.append(output))
    return verdicts


def losses_of(model, examples):
    with EventStorage() as storage:
        losses = model.train()(examples)
        sum(losses.values()).backward()
    return losses, storage.latest()


def test_every_parameter_learns_and_ground_truth_is_no_marked_card():
    model = make_model()
    seen: list[Tensor] = []
    model.roi_heads.rejection.objectness_norm.register_forward_hook(lambda module, inputs, _: seen.append(inputs[0]))
    verdicts = judged(model)
    losses, logged = losses_of(model, batch())
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    for name, parameter in model.roi_heads.rejection.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    assert "loss_ponder_box_head" in losses and float(seen[0].max()) < 20  # the logit of certainty is 23
    (verdict,) = verdicts
    assert logged["sact/box_head_rejected"][0] == pytest.approx(float(verdict.rejected.double().mean()))
    assert 0 < logged["sact/box_head_rejected"][0] < 1 and len(verdict.rejected) == sum(verdict.by_image)


def test_the_price_is_paid_for_the_expected_cost_and_a_step_counts_what_an_evaluation_would():
    model, found = make_model(), []
    verdicts = judged(model)
    model.roi_heads.res5.block4.register_forward_hook(lambda block, inputs, outputs: found.append(outputs[1]))
    losses, logged = losses_of(model, batch())
    (verdict,), (ponder,) = verdicts, found
    expected = ((1 - verdict.logits.sigmoid()) * ponder.mean_cost()).mean()
    torch.testing.assert_close(losses["loss_ponder_box_head"], 0.1 * expected)
    runs = ~verdict.rejected
    assert logged["sact/block4_units"][0] == pytest.approx(float((ponder.mean_units() * runs).mean()))
    on_maps = 2 * 9 * 128 * sum(math.ceil(h / 16) * math.ceil(w / 16) for h, w in SIZES)
    expected_flops = int(ponder.flops[runs].sum()) + on_maps
    assert logged["sact/box_head_gflops"][0] == pytest.approx(expected_flops / len(SIZES) / 1e9)


@torch.no_grad()
@pytest.mark.parametrize("execution", ["dense", "auto"])
def test_rejecting_loses_no_detection(execution):
    model = make_model("MODEL.SACT.EXECUTION", execution).eval()
    verdicts = judged(model)
    removing = model(batch())
    rejected = verdicts[0].rejected
    assert 0 < int(rejected.sum()) < len(rejected)
    counts = verdicts[0].by_image
    judge = model.roi_heads.rejection.forward

    def let_all_run(features, proposals):
        verdict = judge(features, proposals)
        return Verdict(verdict.logits, verdict.rejected, verdict.by_image, None)

    model.roi_heads.rejection.forward = let_all_run
    masking = model(batch())
    for index, (own, other) in enumerate(zip(removing, masking)):
        assert len(own["instances"]) == len(other["instances"]) > 0
        assert torch.equal(own["instances"].pred_classes, other["instances"].pred_classes)
        torch.testing.assert_close(own["instances"].scores, other["instances"].scores)
        torch.testing.assert_close(own["instances"].pred_boxes.tensor, other["instances"].pred_boxes.tensor)
        assert own["flops"] == other["flops"] and own["rejected_regions"] == other["rejected_regions"]
        assert own["regions"] + own["rejected_regions"] == counts[index]
        assert own["rejected_regions"] == int(rejected.split(counts)[index].sum()) > 0


@torch.no_grad()
def test_flops_are_block_4_s_of_the_regions_that_ran_and_the_scores_of_the_image_s_own_positions():
    model, blocks = make_model().eval(), []
    model.roi_heads.res5.block4.register_forward_hook(lambda block, inputs, outputs: blocks.append(outputs[1]))
    outputs = model(batch())
    (ponder,) = blocks
    own = ponder.flops.split([output["regions"] for output in outputs])
    for output, flops, (height, width) in zip(outputs, own, SIZES):
        scores = 2 * 9 * 128 * math.ceil(height / 16) * math.ceil(width / 16)
        assert output["box_head_flops"] == output["flops"]["box_head"] == int(flops.sum()) + scores
        assert output["flops"]["total"] == output["flops"]["backbone"] + output["flops"]["box_head"]
    for item, output in zip(batch(), outputs):
        (alone,) = model([item])
        assert output["flops"]["backbone"] == alone["flops"]["backbone"]
        assert output["regions"] + output["rejected_regions"] == alone["regions"] + alone["rejected_regions"]


@torch.no_grad()
@pytest.mark.parametrize("execution", ["dense", "auto"])
@pytest.mark.parametrize("bias", [-100.0, 100.0])
def test_all_or_none_may_be_rejected(execution, bias):
    model = make_model("MODEL.SACT.EXECUTION", execution, bias=bias).eval()
    without = make_model("MODEL.SACT.EXECUTION", execution, rejects=False).eval()
    without.load_state_dict(model.state_dict(), strict=False)
    for output, expected in zip(model(batch()), without(batch())):
        assert expected["rejected_regions"] == 0 < expected["regions"]
        if bias > 0:
            assert len(output["instances"]) == output["regions"] == 0
            assert output["rejected_regions"] == expected["regions"]
            assert 0 < output["box_head_flops"] < 1e-3 * expected["box_head_flops"]
        else:
            assert output["regions"] == expected["regions"] and output["rejected_regions"] == 0
            assert torch.equal(output["instances"].pred_classes, expected["instances"].pred_classes)
            torch.testing.assert_close(output["instances"].scores, expected["instances"].scores)


@torch.no_grad()
def test_no_proposals_and_given_boxes():
    model = make_model().eval()
    empty = Instances((96, 128), proposal_boxes=Boxes(torch.zeros(0, 4)), objectness_logits=torch.zeros(0))
    with ledger.open([(96, 128)]) as spent:
        (found,), _ = model.roi_heads(None, {"res4": torch.zeros(1, 128, 6, 8)}, [empty], None)
    assert len(found) == 0 and spent.flops("box_head").tolist() == [2 * 9 * 128 * 48]
    assert spent.regions("box_head") == [0] and spent.rejected("box_head").tolist() == [0]
    given = [Instances(size, pred_boxes=Boxes(torch.tensor([[1.0, 2, 30, 40]]))) for size in SIZES]
    for own in given:
        own.pred_classes = torch.tensor([1])
    for output in model.inference(batch(), given):
        assert len(output["instances"]) == 1 and output["regions"] == output["rejected_regions"] == 0


def test_a_plain_block_4_may_stand_behind_a_rejection():
    model = make_model("MODEL.SACT.HALTING", "none")
    losses, logged = losses_of(model, batch())
    assert {name for name in losses if "ponder" in name} == {"loss_ponder_box_head"}
    assert 0 < logged["sact/block4_cost"][0] < 3 and 0 < logged["sact/block4_units"][0] < 2


def test_judging_stays_in_float32_under_autocast_and_in_16_bits():
    model = make_model()
    verdicts = judged(model)
    with torch.autocast("cpu", torch.bfloat16):
        losses, _ = losses_of(model, batch())
    assert verdicts[0].logits.dtype == torch.float32
    assert all(loss.isfinite() for loss in losses.values())
    assert model.roi_heads.rejection.bfloat16().conv.weight.dtype == torch.float32


def test_classes_that_are_judged_one_by_one_have_no_background():
    with pytest.raises(InputError, match=r"^MODEL\.SACT\.REJECTION needs MODEL\.ROI_BOX_HEAD\.USE_SIGMOID_CE False"):
        make_model("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", "True")


def test_weights_without_a_rejection_start_a_fresh_one_in_training_alone(tmp_path, caplog):
    caplog.set_level(logging.INFO, "sact_det")
    torch.save({"model": make_model(rejects=False).state_dict()}, tmp_path / "weights.pth")
    model = make_model()
    DetectorCheckpointer(model).load(str(tmp_path / "weights.pth"))
    names = ("", ".conv", ".norm", ".objectness_norm")
    assert sorted(fresh_parts(caplog)) == [f"roi_heads.rejection{name}" for name in names]
    with pytest.raises(InputError, match=r"not in the file: roi_heads\.rejection\."):
        DetectorCheckpointer(model, evaluate=True).load(str(tmp_path / "weights.pth"))
    torch.save({"model": model.state_dict()}, tmp_path / "own.pth")
    DetectorCheckpointer(make_model(), evaluate=True).load(str(tmp_path / "own.pth"))
    frozen = make_model("MODEL.SACT.BOX_HEAD_HALTING_NORM", "FrozenBN")
    with pytest.raises(InputError, match=r"BOX_HEAD_HALTING_NORM FrozenBN: roi_heads\.rejection\.norm starts fresh"):
        DetectorCheckpointer(frozen).load(str(tmp_path / "weights.pth"))


def test_it_learns_at_the_rate_of_the_halting_branches():
    cfg = load_config(
        TINY, ["MODEL.SACT.REJECTION", "True", "SOLVER.BASE_LR", "0.5", "SOLVER.HALTING_LR_FACTOR", "8.0"]
    )
    model = build_model(cfg)
    optimizer = DetectionTrainer.build_optimizer(cfg, model)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in model.roi_heads.rejection.parameters()} == {4.0}
    assert {rates[id(p)] for p in model.roi_heads.box_predictor.parameters()} == {0.5}
