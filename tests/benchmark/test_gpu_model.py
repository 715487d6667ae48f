"""The model of a GPU counts what the paper's rule counts, and grows with what is active."""

import pytest
import torch

from sact_det.benchmark.gpu.model import predict, unit_work
from sact_det.benchmark.gpu.training_model import DENSE_PASSES, training_work
from sact_det.benchmark.gpu.work import LEAST_DEPTH, PARTS, TILE, Card, Work, cut_product, dense_work, product
from sact_det.benchmark.networks import PartSettings
from sact_det.network.resnet_v2 import ResNetV2Spec


@pytest.fixture(scope="module")
def part():
    return PartSettings(ResNetV2Spec(units=(2, 2, 3, 2), base_channels=8, halting="sact")).build()


def test_flops_of_a_unit_are_those_of_the_papers_rule(part):
    unit = part.blocks[2].units[1]
    works = unit_work(unit, 1000, 300, 400, scored=True)
    counts = [torch.tensor([count]) for count in (1000, 1000, 300, 400)]
    taps = 2 * 9 * unit.conv1.in_channels
    assert sum(work.flops for work in works) == int(unit.flops(*counts)) + 400 * taps
    first = part.blocks[2].units[0]
    dense = int(first.flops(torch.tensor([4000]), torch.tensor([1000])))
    assert sum(work.flops for work in dense_work(first, 4000, 1000)) == dense


def test_the_longer_of_computing_and_moving_counts_and_few_tiles_take_longer():
    card = Card(flops=1e12, bytes=1e9, reached_flops=1.0, reached_bytes=0.5, multiprocessors=10)
    assert Work(2e12, 1).seconds(card) == 2 and Work(1, 1e9).seconds(card) == 2
    assert Work(2e12, 1, tiles=5).seconds(card) == 4 and Work(2e12, 1, tiles=50).seconds(card) == 2
    assert Work(2e12, 1, tiles=5, parts=2).seconds(card) == 2
    assert [cut_product(1, depth, 1, 0.0).parts for depth in (1, 3 * LEAST_DEPTH, 1000 * LEAST_DEPTH)] == [1, 3, PARTS]
    assert product(TILE + 1, 10, TILE, 0.0).tiles == 2 and product(0, 10, 10, 0.0).flops == 0


def test_fewer_positions_take_less_and_graphs_less_than_launches(part):
    shape = (1, 3, 600, 800)
    ratios = (part.least_ratio(shape) + 0.01, 1.0)
    predicted = [predict(part, 1, part.depths_for_ratio(shape, ratio, 0)[0], Card()) for ratio in ratios]
    few, all_ = predicted
    assert few.dense == all_.dense and few.graphs < all_.graphs and few.kernels < all_.kernels
    assert all(one.graphs < one.kernels for one in predicted)


def test_training_a_unit_everywhere_has_the_flops_of_three_passes_and_fewer_positions_take_less(part):
    unit = part.blocks[2].units[1]
    counts = [torch.tensor([1000])] * 4
    works = training_work(unit, 1000, 1000)
    assert sum(work.flops for work in works) == DENSE_PASSES * int(unit.flops(*counts))
    fewer = training_work(unit, 300, 400)
    assert all(few.flops <= work.flops and few.bytes < work.bytes for few, work in zip(fewer, works))
