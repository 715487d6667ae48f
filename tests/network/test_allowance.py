"""A limit on FLOPs is never exceeded, whatever halts, and takes away no more than it must."""

import math

import pytest
import torch
from perforated_blocks import block_of, inputs
from small_networks import images, randomize

from sact_det import build_classifier
from sact_det.base.errors import InputError
from sact_det.detection.backbone import SACTBackbone
from sact_det.execution import set_execution
from sact_det.execution.perforated import TritonPlan
from sact_det.execution.plan import PLANS
from sact_det.network.block import AdaptiveBlock
from sact_det.network.resnet_v2 import ResNetV2Spec
from sact_det.rule import ledger
from sact_det.rule.flops import active_positions
from sact_det.rule.limit import FlopsLimit

UNITS = (3, 4, 3, 2)
LIMITS = (0.65, 0.75, 0.9, 1.0)


def classifier(halting, family="imagenet", **fields):
    units = UNITS if family == "imagenet" else UNITS[:3]
    made = build_classifier(units, base_channels=16, num_classes=5, halting=halting, family=family, **fields)
    return randomize(made, images(4, 64, 64), halting_bias=-1.0).eval()


def plain_flops(model, x):
    """Of each image, from the plain network of the same units."""
    units = tuple(model.spec.units)
    plain = build_classifier(units, base_channels=16, num_classes=5, halting="none", family=model.spec.family)
    return plain.eval()(x).ponder.flops


@torch.no_grad()
@pytest.mark.parametrize("shift", [-math.inf, -4.0, 0.0, 3.0])
@pytest.mark.parametrize(
    ("halting", "family", "fields"),
    [("sact", "imagenet", {}), ("sact", "imagenet", {"tile": 2}), ("act", "imagenet", {}), ("sact", "cifar", {})],
)
def test_no_image_takes_more(halting, family, fields, shift):
    model, x = classifier(halting, family, **fields), images(3, 50, 70)
    plain = plain_flops(model, x)
    for name in model.block_names:
        model.get_submodule(name).shift = shift
    unlimited = model(x)
    for limit in LIMITS:
        model.flops_limit = limit
        ponder = model(x).ponder
        assert (ponder.flops <= limit * plain).all()
        for block in ponder.blocks.values():  # the weights of a position sum to 1 all the same
            torch.testing.assert_close(block.halting_distribution.sum(1), torch.ones_like(block.ponder_cost))
    model.flops_limit = 10.0
    assert torch.equal(model(x).logits, unlimited.logits)


@torch.no_grad()
@pytest.mark.parametrize("shift", [-math.inf, 0.0])
def test_most_of_a_limit_is_spent_where_positions_would_go_on(shift):
    model, x = classifier("sact"), images(3, 96, 96)
    for name in model.block_names:
        model.get_submodule(name).shift = shift
    model.flops_limit = 0.7
    share = model(x).ponder.flops / plain_flops(model, x)
    assert (share > 0.66).all() and (share <= 0.7).all()


@torch.no_grad()
@pytest.mark.parametrize("execution", ["perforated", "auto"])
def test_every_execution_halts_the_same_positions(execution):
    model, x = classifier("sact"), images(3, 50, 70)
    model.flops_limit = 0.7
    expected = model(x)
    model.set_execution(execution)
    output = model(x)
    assert torch.equal(output.ponder.flops, expected.ponder.flops)
    for name in model.block_names:
        assert torch.equal(output.ponder.blocks[name].num_units, expected.ponder.blocks[name].num_units)
    torch.testing.assert_close(output.logits, expected.logits, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("halting", ["sact", "act"])
def test_so_do_the_kernels_of_a_gpu(halting, monkeypatch):
    pytest.importorskip("triton", reason="Triton is not installed: there is none for this platform")
    monkeypatch.setitem(PLANS, "perforated", TritonPlan)
    block, x, sizes = block_of("imagenet", halting).eval(), inputs(2, 13, 12, 16), [(13, 9), (8, 12)]
    least, plain = block.flops_bounds((13, 12), sizes, 2, x.device)
    results = []
    for execution in ("dense", "perforated"):
        set_execution(block, execution)
        results.append(block(x, sizes, allowance=least + (plain - least) // 3))
    (expected, spent), (output, ponder) = results
    assert torch.equal(ponder.num_units, spent.num_units) and torch.equal(ponder.flops, spent.flops)
    assert (ponder.flops <= least + (plain - least) // 3).all() and (ponder.flops > least).all()
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_an_image_halts_alike_alone_and_in_a_padded_batch():
    spec = ResNetV2Spec(units=UNITS[:3], base_channels=16)
    backbone = randomize(SACTBackbone(spec, execution="dense"), images(4, 64, 64), halting_bias=-1.0).eval()
    backbone.flops_limit = 0.7
    x, sizes = images(2, 64, 96), [(64, 70), (48, 96)]
    x[0, :, :, 70:] = x[1, :, 48:] = 0
    with ledger.open(sizes) as spent:
        backbone(x)
    (together,) = spent["backbone"]
    plain = SACTBackbone(ResNetV2Spec(units=UNITS[:3], base_channels=16, halting="none")).eval()
    for number, (height, width) in enumerate(sizes):
        own = x[number : number + 1, :, :height, :width]
        with ledger.open([(height, width)]) as alone:
            backbone(own)
        with ledger.open([(height, width)]) as all_of_it:
            plain(own)
        assert alone["backbone"][0].flops.item() == together.flops[number].item()
        assert alone["backbone"][0].flops.item() <= 0.7 * all_of_it["backbone"][0].flops.item()


@torch.no_grad()
def test_training_knows_no_limit():
    model, x = classifier("sact"), images(3, 50, 70)
    expected = model.train()(x).ponder.flops
    model.flops_limit = 0.6
    assert torch.equal(model(x).ponder.flops, expected)


@torch.no_grad()
def test_what_first_units_take_cannot_be_taken_away():
    model, x = classifier("sact"), images(2, 50, 70)
    model.flops_limit = 0.1
    said = r"FLOPS_LIMIT 0\.1 cannot be kept: the first units of all blocks, which run everywhere, take 0\.\d{4} of"
    with pytest.raises(InputError, match=said) as error:
        model(x)
    least = float(str(error.value).split(" take ")[1].split()[0])
    model.flops_limit = least + 1e-4
    assert (model(x).ponder.flops <= (least + 1e-4) * plain_flops(model, x)).all()


def test_positions_of_the_least_remainder_halt_first_and_as_few_as_must():
    generator = torch.Generator().manual_seed(0)
    h = torch.rand(2, 5, 6, generator=generator) * 0.9
    exists = torch.ones(2, 5, 6, dtype=torch.bool)
    active = torch.rand(2, 5, 6, generator=generator) < 0.8
    left = torch.tensor([100, 10**6])
    limited = FlopsLimit(left, exists, 0.01)(h, active, lambda evaluated, dilated: 3 * evaluated + 2 * dilated)
    kept = active & (limited < 1)
    assert torch.equal(limited[1], h[1])  # there is enough for the second image
    assert 0 < kept[0].sum() < active[0].sum() and torch.equal(limited[kept], h[kept])
    assert h[0][kept[0]].max() <= h[0][active[0] & ~kept[0]].min()
    evaluated, dilated = active_positions(kept, exists)
    assert 3 * evaluated[0] + 2 * dilated[0] <= 100
    one_more = kept.clone()
    one_more[0].view(-1)[torch.where((active & ~kept)[0], h[0], torch.inf).argmin()] = True
    evaluated, dilated = active_positions(one_more, exists)
    assert 3 * evaluated[0] + 2 * dilated[0] > 100


def test_bounds_are_what_blocks_take_at_least_and_as_plain_ones():
    for halting in ("sact", "act", "none"):
        block = ResNetV2Spec((3, 4), base_channels=8, halting=halting).build_block(2).eval()
        assert isinstance(block, AdaptiveBlock)
        x, sizes = images(2, 20, 24, 32), [(20, 13), (9, 24)]
        block.shift = math.inf
        least, plain = block.flops_bounds((20, 24), sizes, 2, x.device)
        with torch.no_grad():
            assert torch.equal(block(x, sizes)[1].flops, least)
        other = ResNetV2Spec((3, 4), base_channels=8, halting="none").build_block(2).eval()
        with torch.no_grad():
            assert torch.equal(other(x, sizes)[1].flops, plain)
