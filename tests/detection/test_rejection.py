"""The branch that rejects regions before they are pooled: scores, what becomes of regions, what they cost."""

import math

import pytest
import torch
from detectron2.structures import Boxes, Instances, pairwise_iou
from torchvision.ops import roi_align

from sact_det.detection.rejection import RegionRejection, Verdict, with_objectness
from sact_det.network.norm import NORMS, depends_on_batch, get_norm
from sact_det.rule.ponder import BlockPonder

SIZES = [(96, 128), (75, 90)]
STRIDE, CHANNELS = 16, 12


def proposals_of(sizes, number=9, seed=0):
    """Random boxes in each image; among them one without area, one outside, and one as large as the image."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for height, width in sizes:
        corners = torch.rand(number, 2, 2, generator=generator, dtype=torch.float64).sort(1).values
        boxes = (corners * torch.tensor([width, height])).flatten(1)
        if number:
            boxes[0] = torch.tensor([20.0, 30, 20, 30])
            boxes[1] = torch.tensor([width + 300.0, 5, width + 400, 60])
            boxes[2] = torch.tensor([0.0, 0, width, height])
        logits = torch.randn(number, generator=generator, dtype=torch.float64) * 3
        found.append(Instances((height, width), proposal_boxes=Boxes(boxes.float()), objectness_logits=logits))
    return found


def features_of(sizes, seed=0):
    """Doubles, zero at padding."""
    generator = torch.Generator().manual_seed(seed)
    height, width = (max(math.ceil(size[side] / STRIDE) for size in sizes) for side in (0, 1))
    features = torch.randn(len(sizes), CHANNELS, height, width, generator=generator, dtype=torch.float64)
    for own, (h, w) in zip(features, sizes):
        own[:, math.ceil(h / STRIDE) :] = 0
        own[:, :, math.ceil(w / STRIDE) :] = 0
    return features


def branch(norm="BN", least=0.3):
    """A rejection with values everywhere."""
    torch.manual_seed(3)
    rejection = RegionRejection(CHANNELS, STRIDE, get_norm(norm), least).double()
    with torch.no_grad():
        for value in rejection.state_dict().values():
            if value.is_floating_point():
                value.uniform_(0.1, 1)
        rejection.conv.weight.normal_(std=1.0)
        rejection.bias.fill_(0.4)
    return rejection


def literal_logits(rejection, features, proposals):
    """h^0's logits of the pooled features: as many bins, each with the weights of its own place."""
    valid = torch.zeros(len(features), 1, *features.shape[2:], dtype=torch.bool)
    for own, proposal in zip(valid, proposals):
        own[:, : math.ceil(proposal.image_size[0] / STRIDE), : math.ceil(proposal.image_size[1] / STRIDE)] = True

    def normalized(x, norm, where):
        mean, var = norm.running_mean, norm.running_var
        if depends_on_batch(norm):
            own = x.movedim(1, -1)[where[:, 0]]
            mean, var = own.mean(0), own.var(0, correction=0)
        shape = (1, -1, 1, 1)
        scale = norm.weight / (var + norm.eps).sqrt()
        return (x - mean.reshape(shape)) * scale.reshape(shape) + norm.bias.reshape(shape)

    x = normalized(features, rejection.norm, valid) * valid
    boxes = [own.proposal_boxes.tensor.double() for own in proposals]
    pooled = roi_align(x, boxes, 3, 1 / STRIDE, 2, aligned=True)
    weights = rejection.conv.weight.reshape(3, 3, CHANNELS).permute(2, 0, 1)
    logits = torch.cat([own.objectness_logits for own in proposals])[:, None, None, None]
    objectness = normalized(logits, rejection.objectness_norm, torch.ones_like(logits, dtype=torch.bool)).flatten()
    return (pooled * weights).sum((1, 2, 3)) / 3 + rejection.objectness_weight * objectness + rejection.bias


@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
@pytest.mark.parametrize("training", [False, True])
def test_scores_and_gradients_are_those_of_the_pooled_features(norm, training):
    rejection, features, proposals = branch(norm).train(training), features_of(SIZES), proposals_of(SIZES)
    gradients = []
    for compute in (lambda x: rejection(x, proposals).logits, lambda x: literal_logits(rejection, x, proposals)):
        x = features.clone().requires_grad_()
        logits = compute(x)
        weights = torch.linspace(-1, 2, len(logits), dtype=torch.float64)
        inputs = [x, *(p for p in rejection.parameters())]
        gradients.append([logits.detach(), *torch.autograd.grad((logits.sigmoid() * weights).sum(), inputs)])
    assert len(gradients[0]) == len(gradients[1]) == (9 if norm == "BN" else 5)
    for actual, expected in zip(*gradients):
        assert expected.isfinite().all() and expected.abs().sum() > 0
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11)


def test_an_image_that_fills_the_map_is_judged_the_same_beside_a_smaller_one():
    rejection, features, proposals = branch().eval(), features_of(SIZES), proposals_of(SIZES)
    together, alone = rejection(features, proposals), rejection(features[:1], proposals[:1])
    torch.testing.assert_close(together.logits[: together.by_image[0]], alone.logits, rtol=1e-12, atol=1e-12)


def test_what_is_rejected_depends_on_the_least_probability_that_counts():
    features, proposals = features_of(SIZES), proposals_of(SIZES)
    for least in (0.01, 0.3, 0.99):
        verdict = branch(least=least).eval()(features, proposals)
        assert torch.equal(verdict.rejected, 1 - verdict.logits.sigmoid() <= least)
        kept = torch.cat([own.objectness_logits for own in verdict.running(proposals)])
        every = torch.cat([own.objectness_logits for own in proposals])
        assert torch.equal(kept, every[~verdict.rejected])
    assert 0 < int(branch().eval()(features, proposals).rejected.sum()) < len(every)
    in_training = branch().train()(features, proposals)
    assert sum(map(len, in_training.running(proposals))) == len(every) and in_training.rejected.any()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("sizes", [[], SIZES])
def test_no_regions_are_no_error_and_leave_gradients(norm, sizes):
    proposals = proposals_of(SIZES, number=0)
    for training in (False, True):
        rejection = branch(norm).train(training)
        verdict = rejection(features_of(SIZES), proposals)
        scores = torch.zeros(0, 4, dtype=torch.float64)
        assert verdict.logits.shape == (0,) and verdict.mixture(scores).shape == (0, 4)
        verdict.logits.sum().backward()
        assert all(p.grad is not None and not p.grad.any() for p in rejection.parameters())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("number", [1, 5000])
def test_any_number_of_regions_has_scores_and_gradients(norm, number):
    proposals = [own[-number:] for own in proposals_of(SIZES[:1], max(number, 3))]
    for training in (False, True):
        rejection = branch(norm).train(training)
        logits = rejection(features_of(SIZES[:1]), proposals).logits
        logits.sum().backward()
        assert logits.shape == (number,) and logits.isfinite().all()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in rejection.parameters())


def test_one_image_of_two_may_have_no_regions():
    proposals = [proposals_of(SIZES)[0], proposals_of(SIZES, number=0)[1]]
    verdict = branch().eval()(features_of(SIZES), proposals)
    assert [len(own) for own in verdict.running(proposals)] == [int((~verdict.rejected).sum()), 0]


def verdict_of(logits, training, least=0.3):
    rejected = 1 - logits.detach().sigmoid() <= least
    return Verdict(logits, rejected, [2, 0, len(logits) - 2], None if training else ~rejected)


@pytest.mark.parametrize("training", [False, True])
def test_a_mixture_is_a_distribution_in_which_background_has_the_rejected_share(training):
    logits = torch.tensor([-60.0, -2, 0, 0.5, 3, 60], dtype=torch.float64)
    verdict = verdict_of(logits, training)
    runs = logits if training else logits[:4]
    scores = torch.linspace(-4, 5, len(runs) * 5, dtype=torch.float64).reshape(-1, 5).cos() * 8
    found = verdict.mixture(scores).exp()
    h0 = runs.sigmoid()[:, None]
    expected = (1 - h0) * scores.softmax(1) + h0 * torch.tensor([0.0, 0, 0, 0, 1], dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(1), torch.ones_like(found[:, 0]))
    torch.testing.assert_close(verdict.mixture(scores).softmax(1), expected)
    assert verdict.mixture(scores.half()).dtype == torch.float64 and verdict.mixture(scores * 1e4).isfinite().any()


@pytest.mark.parametrize("training", [False, True])
def test_the_account_of_all_regions_is_an_expectation_of_costs_and_a_count_of_units(training):
    logits = torch.tensor([-1.0, 4, 2, -3, 5], dtype=torch.float64, requires_grad=True)
    verdict = verdict_of(logits, training, least=0.05)
    assert verdict.rejected.tolist() == [False, True, False, False, True]
    number = 5 if training else 3
    cost = (2 + torch.rand(number, 2, 2, dtype=torch.float64)).requires_grad_()
    units = torch.arange(number * 4).reshape(number, 2, 2) % 3 + 1
    distribution = torch.rand(number, 3, 2, 2, dtype=torch.float64)
    ponder = verdict.account(BlockPonder(cost, units, torch.arange(1, number + 1) * 10, distribution))
    runs = list(range(5)) if training else [0, 2, 3]
    goes_on = 1 - logits.sigmoid()
    torch.testing.assert_close(ponder.ponder_cost[runs], goes_on[runs][:, None, None] * cost)
    torch.testing.assert_close(ponder.halting_distribution[runs], goes_on[runs][:, None, None, None] * distribution)
    assert not ponder.halting_distribution.requires_grad
    for region in range(5):
        row = runs.index(region) if region in runs else None
        if verdict.rejected[region]:
            assert not ponder.num_units[region].any() and ponder.flops[region] == 0
        else:
            assert torch.equal(ponder.num_units[region], units[row]) and ponder.flops[region] == 10 * (row + 1)
    ponder.mean_cost().sum().backward()
    means = torch.zeros(5, dtype=torch.float64)
    means[runs] = cost.detach().mean((1, 2))
    h0 = logits.detach().sigmoid()
    torch.testing.assert_close(logits.grad, -means * h0 * (1 - h0))


def test_ground_truth_has_the_objectness_of_the_proposal_that_overlaps_it_most():
    (found,), (truth,) = proposals_of(SIZES[:1]), [Instances(SIZES[0])]
    near = found.proposal_boxes.tensor[[4, 7]] + 1
    truth.gt_boxes = Boxes(torch.cat([near, torch.tensor([[600.0, 600, 700, 700]])]))
    truth.gt_classes = torch.tensor([0, 1, 2])
    best = pairwise_iou(truth.gt_boxes, found.proposal_boxes).argmax(1)
    (marked,), (own,) = with_objectness([found], [truth])
    assert torch.equal(marked.rpn_objectness, found.objectness_logits) and not found.has("rpn_objectness")
    expected = [*found.objectness_logits[best[:2]].tolist(), float(found.objectness_logits.min())]
    assert own.rpn_objectness.tolist() == expected and not truth.has("rpn_objectness")
    nothing = with_objectness(proposals_of(SIZES[:1], number=0), [truth])[1][0]
    assert nothing.rpn_objectness.tolist() == [0, 0, 0]


@torch.no_grad()
def test_its_shift_is_that_number_in_the_bias():
    rejection, features, proposals = branch().eval(), features_of(SIZES), proposals_of(SIZES)
    rejection.shift = 1.5
    shifted = rejection(features, proposals)
    rejection.shift = 0.0
    rejection.bias += 1.5
    expected = rejection(features, proposals)
    torch.testing.assert_close(shifted.logits, expected.logits)
    assert torch.equal(shifted.rejected, expected.rejected)
    rejection.shift = -math.inf
    assert not rejection(features, proposals).rejected.any()
