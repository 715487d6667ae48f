"""What the kernels for training should take on a GPU (model.py), unit by unit.

Shape shorthand in this module:
    C: channels of a block; w: bottleneck width; P: positions of a map, over the batch.
"""

import itertools
import math

from tabulate import tabulate

from sact_det.benchmark.gpu.work import FLOAT, HALF, TILE, Card, Work, cut_product, dense_work, product
from sact_det.benchmark.networks import PartSettings
from sact_det.network.resnet_v2 import BottleneckUnit, ResNetV2Spec
from sact_det.rule.flops import MULTIPLY_ADD

SHARES = (0.3, 0.5, 1.0)  # of the positions
DENSE_PASSES = 3  # forward, gradients of features, gradients of weights


def training_work(unit: BottleneckUnit, evaluated: int, dilated: int, state: int = FLOAT) -> list[Work]:
    """The kernels of a unit behind the first, forward and backward: 16-bit products; state: bytes of its numbers."""
    channels, width = unit.conv1.in_channels, unit.conv1.out_channels
    forward = [
        Work(0, 2 * state * dilated * channels),  # the state that the unit leaves
        cut_product(dilated, channels, width, dilated * (state * channels + HALF * width)),
        cut_product(evaluated, 9 * width, width, HALF * width * (dilated + evaluated)),
        product(evaluated, width, channels, evaluated * (HALF * width + 2 * (state + FLOAT) * channels)),
    ]
    gradients = [
        Work(0, evaluated * channels * (3 * state + FLOAT + HALF)),  # of the residual
        cut_product(evaluated, channels, width, HALF * evaluated * (channels + 2 * width)),
        cut_product(dilated, 9 * width, width, HALF * width * (evaluated + 2 * dilated)),
        product(dilated, width, channels, dilated * (HALF * width + 3 * state * channels)),
    ]
    weights = [  # cut into parts over the positions: there are programs enough
        Work(MULTIPLY_ADD * evaluated * channels * width, HALF * evaluated * (channels + width)),
        Work(MULTIPLY_ADD * evaluated * 9 * width * width, HALF * width * (evaluated + dilated)),
        Work(MULTIPLY_ADD * dilated * channels * width, dilated * (state * channels + HALF * width)),
    ]
    return [*forward, *gradients, *weights]


def branch_work(channels: int, dilated: int, state: int = FLOAT) -> list[Work]:
    """The local part of a halting branch, forward and backward."""
    taps = MULTIPLY_ADD * dilated * channels * 9
    tiles = -(-dilated // TILE)
    return [Work(taps, state * dilated * channels, tiles), Work(2 * taps, 3 * state * dilated * channels, tiles)]


def training_table(card: Card, size: tuple[int, int], batches: tuple[int, ...]) -> str:
    """A unit of each block of ResNet-101 in training, at some shares of the positions, beside a dense one."""
    part, rows = PartSettings(ResNetV2Spec(halting="sact")).build(), []
    for batch in batches:
        for index, (block, own) in enumerate(zip(part.blocks, part.map_sizes(size)[1:])):
            unit, positions = block.units[1], batch * math.prod(own)
            assert isinstance(unit, BottleneckUnit)
            dense = DENSE_PASSES * sum(work.seconds(card) for work in dense_work(unit, positions, positions))
            taken = []
            for state, share in itertools.product((FLOAT, HALF), SHARES):
                works = training_work(unit, round(share * positions), round(share * positions), state)
                works += branch_work(unit.conv1.in_channels, round(share * positions), state)
                taken.append(1e6 * sum(work.seconds(card) for work in works))
            rows.append([batch, index + 1, positions, 1e6 * dense, *taken])
    shares = [f"at {share:.0%}" for share in SHARES]
    headers = ["batch", "block", "positions", "dense", *shares, *(f"16 bits, {share}" for share in shares)]
    return tabulate(rows, headers, tablefmt="pipe", floatfmt=".1f")
