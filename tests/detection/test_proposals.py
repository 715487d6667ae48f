"""Proposals up to a share of an image's objectness, against sums written out; at 1 they are Detectron2's."""

import math
from typing import Any

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage
from pyramid_detectors import SACTMaskRCNN, SACTRetinaNet, config
from test_detector import CONFIGS, example, make_model

from sact_det.base.errors import InputError
from sact_det.detection.proposals import SACTRPN, carry_mass
from sact_det.execution import EXECUTIONS
from sact_det.rule import ledger
from sact_det.tasks import load_config

BATCH = [example(97, 131), example(64, 80, seed=1)]
MANY = ("MODEL.RPN.PRE_NMS_TOPK_TEST", "5000", "MODEL.RPN.POST_NMS_TOPK_TEST", "5000")


def prefix(logits: torch.Tensor, mass: float, least: int = 10) -> int:
    """How many proposals carry the mass, by sums written out."""
    objectness = [1 / (1 + math.exp(-logit)) for logit in logits.tolist()]
    for count in range(len(objectness)):
        if math.fsum(objectness[:count]) >= mass * math.fsum(objectness):
            return min(max(count, least), len(objectness))
    return len(objectness)


def spread(model: Any) -> Any:
    """A model in evaluation mode whose RPN is sure of some anchors and of others not."""
    torch.nn.init.normal_(model.proposal_generator.rpn_head.objectness_logits.weight, std=1.0)
    return model.eval()


@torch.no_grad()
def proposals(model: Any, batch: list[dict[str, Any]]) -> list[Instances]:
    images = model.preprocess_image(batch)
    with ledger.open(images.image_sizes):
        return model.proposal_generator(images, model.backbone(images.tensor), None)[0]


def same(one: Instances, other: Instances) -> bool:
    return torch.equal(one.proposal_boxes.tensor, other.proposal_boxes.tensor) and torch.equal(
        one.objectness_logits, other.objectness_logits
    )


@pytest.mark.parametrize("mass", [0.05, 0.3, 0.8, 0.95, 0.999])
@pytest.mark.parametrize("count", [1, 9, 10, 11, 60, 1000])
def test_the_shortest_prefix_that_reaches_the_share_is_kept(mass: float, count: int):
    logits = (3 * torch.randn(count, generator=torch.Generator().manual_seed(count)) - 2).sort(descending=True)[0]
    kept, expected = carry_mass(logits, mass), prefix(logits, mass)
    assert kept.tolist() == [index < expected for index in range(count)]


@pytest.mark.parametrize(
    ("count", "mass", "expected"), [(100, 0.9, 90), (300, 0.5, 150), (30, 0.1, 10), (12, 0.95, 12)]
)
def test_of_equal_scores_as_many_are_kept_as_the_share_says(count: int, mass: float, expected: int):
    for logit in (-8.3, 0.0, 1.3, 40.0):  # whose sums round either way
        assert carry_mass(torch.full((count,), logit), mass).sum() == expected


def test_no_proposals_one_and_some_without_any_objectness():
    assert carry_mass(torch.zeros(0), 0.5).shape == (0,)
    assert carry_mass(torch.tensor([-3.0]), 0.5).all()
    assert carry_mass(torch.full((20,), -1e4), 0.5).sum() == 10
    assert carry_mass(torch.full((20,), -1e4), 1).all()
    sure = torch.cat([torch.full((12,), 1e30), torch.full((20,), -1e30)])
    assert carry_mass(sure, 0.99).sum() == 12 and carry_mass(sure, 1).all()


@pytest.mark.parametrize("steps", [None, 1, 4], ids=["different scores", "equal ones", "some equal ones"])
def test_at_1_it_is_detectron2_s_rpn(monkeypatch, steps: int | None):
    dense = ("MODEL.SACT.EXECUTION", "dense")  # to the last bit: theirs knows no kernels
    ours = spread(make_model(*dense))
    theirs = make_model(*dense, "MODEL.PROPOSAL_GENERATOR.NAME", "RPN").eval()
    assert type(theirs.proposal_generator) is RPN and type(ours.proposal_generator) is SACTRPN
    theirs.load_state_dict(ours.state_dict())  # strict: the names are the same
    for head in (ours.proposal_generator.rpn_head, theirs.proposal_generator.rpn_head):

        def rounded(features: list[torch.Tensor], run=head.forward) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
            (logits,), deltas = run(features)
            return [logits if steps is None else (logits * steps).round() / steps], deltas

        monkeypatch.setattr(head, "forward", rounded)
    assert all(map(same, proposals(ours, BATCH), proposals(theirs, BATCH)))


def test_each_image_of_a_batch_keeps_a_share_of_its_own_proposals():
    model = spread(make_model(*MANY))
    everything = proposals(model, BATCH)
    model.proposal_generator.mass = 0.6
    kept, counts = proposals(model, BATCH), []
    for own, before in zip(kept, everything):
        counts.append(prefix(before.objectness_logits, 0.6))
        assert same(own, before[: counts[-1]])
    assert 10 < counts[1] < counts[0] < len(everything[0])


def test_the_box_head_meets_what_is_kept():
    model = spread(make_model(*MANY, "MODEL.SACT.PROPOSAL_MASS", "0.6"))
    with torch.no_grad():
        outputs = model(BATCH)
    assert [output["regions"] for output in outputs] == [len(own) for own in proposals(model, BATCH)]


def test_in_training_every_proposal_is_kept():
    found = []
    for mass in ("0.1", "1"):
        model = make_model("MODEL.SACT.PROPOSAL_MASS", mass).train()
        images = model.preprocess_image(BATCH)
        with EventStorage():
            targets = [item["instances"] for item in BATCH]
            found.append(model.proposal_generator(images, model.backbone(images.tensor), targets)[0])
    assert all(map(same, *found)) and min(map(len, found[0])) > 10


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_logits_that_are_no_numbers_are_no_proposals_and_carry_nothing(monkeypatch, value: float):
    model = spread(make_model(*MANY, "MODEL.SACT.PROPOSAL_MASS", "0.6"))
    run = model.proposal_generator.rpn_head.forward

    def broken(features: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        (logits,), deltas = run(features)
        logits[:, :, ::2] = value
        return [logits], deltas

    monkeypatch.setattr(model.proposal_generator.rpn_head, "forward", broken)
    kept = proposals(model, BATCH)
    model.proposal_generator.mass = 1
    for own, before in zip(kept, proposals(model, BATCH)):
        assert before.objectness_logits.isfinite().all() and len(before) > len(own) > 10
        assert same(own, before[: prefix(before.objectness_logits, 0.6)])


@pytest.mark.parametrize("mass", ["0.5", "1"])
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_an_image_without_proposals_has_no_detections_and_a_whole_account(execution: str, mass: str):
    model = make_model("MODEL.SACT.EXECUTION", execution, "MODEL.SACT.PROPOSAL_MASS", mass).eval()
    model.proposal_generator.rpn_head.objectness_logits.bias.data.fill_(math.nan)
    with torch.no_grad():
        outputs = model(BATCH)
    for output in outputs:
        assert len(output["instances"]) == 0 and output["instances"].pred_boxes.tensor.shape == (0, 4)
        assert output["regions"] == output["box_head_flops"] == output["flops"]["box_head"] == 0
        assert output["flops"]["total"] == output["flops"]["backbone"] == int(output["ponder"].flops) > 0


@pytest.mark.parametrize("most", [0, 1, 5000])
def test_as_many_proposals_as_the_rpn_may_give_at_most(most: int):
    model = spread(make_model("MODEL.SACT.PROPOSAL_MASS", "0.3"))
    model.proposal_generator.post_nms_topk[False] = most
    with torch.no_grad():
        (output,) = model(BATCH[:1])
    assert output["regions"] == most if most < 2 else 10 <= output["regions"] < 100
    with pytest.raises(InputError, match=r"MODEL\.RPN\.POST_NMS_TOPK_TEST must be an integer, 1 or more; got 0"):
        make_model("MODEL.RPN.POST_NMS_TOPK_TEST", "0")


def pyramid(name: str, mass: float, detector: type = SACTMaskRCNN) -> Any:
    cfg = config(detector)
    cfg.MODEL.PROPOSAL_GENERATOR.NAME, cfg.MODEL.SACT.PROPOSAL_MASS = name, mass
    torch.manual_seed(0)
    return detector(cfg)


def test_a_detector_on_a_pyramid_keeps_its_share_too():
    whole = spread(pyramid("RPN", 1.0))
    model = pyramid("SACTRPN", 0.6).eval()
    model.load_state_dict(whole.state_dict())
    for generator in (whole.proposal_generator, model.proposal_generator):
        generator.post_nms_topk[False] = 1000
    for own, everything in zip(proposals(model, BATCH), proposals(whole, BATCH)):
        assert same(own, everything[: prefix(everything.objectness_logits, 0.6)]) and 10 < len(own) < len(everything)


@pytest.mark.parametrize(
    ("detector", "name", "mass"),
    [(SACTMaskRCNN, "RPN", 0.9), (SACTRetinaNet, "SACTRPN", 0.9), (SACTMaskRCNN, "RPN", math.nan)],
)
def test_a_mass_that_nothing_obeys_is_refused(detector: type, name: str, mass: float):
    with pytest.raises(
        InputError, match=rf"MODEL\.SACT\.PROPOSAL_MASS {mass} needs .* SACTRPN .*; got {detector.__name__}, '{name}'$"
    ):
        pyramid(name, mass, detector)


@pytest.mark.parametrize("mass", [0.0, -0.5, 1.5, math.nan])
def test_a_mass_out_of_range_is_refused_by_any_detector(mass: float):
    with pytest.raises(InputError, match=rf"MODEL\.SACT\.PROPOSAL_MASS must lie in \(0, 1\]; got {mass}"):
        pyramid("SACTRPN", mass)


def test_detectron2_s_rpn_with_a_mass_is_refused_before_any_work():
    line = r"MODEL\.SACT\.PROPOSAL_MASS 0\.9 needs MODEL\.PROPOSAL_GENERATOR\.NAME SACTRPN; got 'RPN'"
    with pytest.raises(InputError, match=line):
        make_model("MODEL.SACT.PROPOSAL_MASS", "0.9", "MODEL.PROPOSAL_GENERATOR.NAME", "RPN")


def test_a_config_of_an_earlier_training_goes_on_loading(tmp_path):
    cfg = load_config(str(CONFIGS / "tests/tiny.yaml"), ["MODEL.PROPOSAL_GENERATOR.NAME", "RPN"]).clone()
    cfg.defrost()
    del cfg.MODEL.SACT["PROPOSAL_MASS"]
    (tmp_path / "config.yaml").write_text(cfg.dump())
    assert type(build_model(load_config(str(tmp_path / "config.yaml"))).proposal_generator) is RPN
