"""Prescribed masks: the share of FLOPs they take, and that nothing else changes."""

import math
from dataclasses import replace

import pytest
import torch
from small_networks import images, randomize

from sact_det.base.errors import InputError
from sact_det.benchmark.masks import prescribed_flops
from sact_det.benchmark.networks import PartSettings
from sact_det.benchmark.setting import relative_difference
from sact_det.benchmark.unit import coherent_mask
from sact_det.execution import set_execution
from sact_det.network.resnet_v2 import ResNetV2Spec

SPEC = ResNetV2Spec(units=(3, 4, 9, 1), base_channels=8, halting="sact")


def build(spec=SPEC):
    """The extractor of a network whose features and halting scores vary."""
    part = PartSettings(spec).build()
    randomize(part.stem, images(2, 48, 64))
    with torch.no_grad():
        x = part.stem(images(2, 48, 64))
        for block in part.blocks:
            x, _ = randomize(block, x)(x)
    return part


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("wanted", [0.4, 0.6, 0.85, 1.0])
def test_masks_reach_the_wanted_share_of_flops(wanted, batch):
    part = PartSettings(ResNetV2Spec(units=(3, 4, 23, 3), base_channels=16)).build()
    depths, reached = part.depths_for_ratio((batch, 3, 300, 400), wanted, seed=1)
    assert abs(reached - wanted) < 0.02 * wanted
    assert reached == part.flops((batch, 3, 300, 400), depths) / part.dense_flops((batch, 3, 300, 400))
    assert all(depth.min() >= 1 and depth.max() <= len(block.units) for depth, block in zip(depths, part.blocks))


def test_flops_from_masks_are_those_that_the_network_counts():
    part, x = build(), images(2, 75, 99)
    depths, _ = part.depths_for_ratio(x.shape, 0.75, seed=3)
    part.prescribe(depths)
    with torch.no_grad():
        _, ponders = part(x)
    assert [ponder.num_units.equal(depth) for ponder, depth in zip(ponders, depths)] == [True] * 3
    counted = part.stem_flops(x.shape) + sum(int(ponder.flops.sum()) for ponder in ponders)
    assert counted == part.flops(x.shape, depths)


def test_dense_flops_are_those_of_a_plain_network():
    part, x = build(), images(2, 75, 99)
    spec = replace(SPEC, halting="none")
    y, total = part.stem(x), part.stem_flops(x.shape)
    for block in (spec.build_block(index).eval() for index in (1, 2, 3)):
        y, ponder = block(y)
        total += int(ponder.flops.sum())
    assert total == part.dense_flops(x.shape)
    with pytest.raises(ValueError, match="must halt by 'sact'"):
        PartSettings(spec).build()


def test_less_than_one_unit_per_block_is_out_of_reach_and_the_least_is_named():
    part = build()
    least = part.least_ratio((1, 3, 75, 99))
    with pytest.raises(InputError, match=f"takes {math.ceil(1000 * least) / 1000:g}$"):
        part.depths_for_ratio((1, 3, 75, 99), 0.9 * least, seed=0)
    assert part.depths_for_ratio((1, 3, 75, 99), least, seed=0)[1] == pytest.approx(least, rel=0.05)


@pytest.mark.parametrize("execution", ["dense", "perforated", "auto"])
def test_prescribed_halting_weighs_the_states_as_halting_does(execution):
    part, x = build(), images(2, 75, 99)
    block = part.blocks[2]
    set_execution(block, execution)
    with torch.no_grad():
        state = part.blocks[1](part.blocks[0](part.stem(x))[0])[0]
        depths = torch.randint(1, 10, (2, 5, 7), generator=torch.Generator().manual_seed(0))
        block.prescribe(depths)
        features, ponder = block(state)
        expected, y = 0, state
        for index, unit in enumerate(block.units):
            y = unit(y, None if index == 0 else (depths > index)[:, None])
            before = (1 - block.eps) / (2 * len(block.units))
            weight = torch.where(depths == index + 1, 1 - index * before, before) * (depths > index)
            expected = expected + weight[:, None] * y
    assert relative_difference(features, expected) < 1e-5
    assert ponder.flops.equal(prescribed_flops(block, depths, (10, 13)))


def test_prescribed_scores_leave_the_branches_their_gradients():
    part = PartSettings(ResNetV2Spec(units=(2, 2, 2, 1), base_channels=8, norm="FrozenBN", halting_norm="MovingBN"))
    part = part.build().train()
    x = images(1, 48, 64)
    part.prescribe(part.depths_for_ratio(x.shape, 1.0, seed=0)[0])
    _, ponders = part(x)
    sum(ponder.mean_cost().mean() for ponder in ponders).backward()
    gradients = [block.units[0].halting.local_conv.weight.grad for block in part.blocks]
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_without_prescribed_masks_the_branches_decide():
    part, x = build(), images(1, 75, 99)
    with torch.no_grad():
        own, _ = part(x)
        part.prescribe(part.depths_for_ratio(x.shape, 1.0, seed=0)[0])
        assert not part(x)[0].equal(own)
        part.prescribe(None)
        assert part(x)[0].equal(own)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_active_share_of_a_unit_is_met(share):
    settings = PartSettings(SPEC, block=3)
    x = torch.zeros(settings.input_shape(2, (300, 400)))
    mask = coherent_mask(settings.build(), x, share, seed=0)
    assert mask.shape == (2, 19, 25) and mask.flatten(1).sum(1).tolist() == [round(share * 475)] * 2
