"""What the kernels should take on a GPU that need not be there: FLOPs, bytes, launches, and what these imply.

    python -m sact_det.benchmark.gpu.model --output docs/performance/gpu_model.md

A prediction, so that the first measurement has something to be compared with.

Shape shorthand in this module:
    N: images; C: channels of a block; w: bottleneck width; P: positions of a map, over the batch.
"""

import argparse
import math
from typing import NamedTuple, Optional, Sequence

import torch
from tabulate import tabulate
from torch import Tensor

from sact_det.base.files import write_text
from sact_det.benchmark.gpu.training_model import DENSE_PASSES, training_table
from sact_det.benchmark.gpu.work import (
    FLOAT,
    HALF,
    LEAST_DEPTH,
    PARTS,
    TILE,
    Card,
    Work,
    cut_product,
    dense_work,
    product,
)
from sact_det.benchmark.networks import AdaptivePart, PartSettings
from sact_det.network.resnet_v2 import BottleneckUnit, ResNetV2Spec
from sact_det.rule.flops import MULTIPLY_ADD, active_positions

SIZE = (600, 800)
BATCHES = (1, 8)
RATIOS = (0.3, 0.5, 0.8, 1.0)
# float32 and int64 numbers that scores, halting and lists read and write per position, in bytes.
HALTING_BYTES = 9 * FLOAT + 2 * FLOAT + 4 * 2 * FLOAT + 2 * 8 + 2 * FLOAT + 4
LAUNCHES = 7  # tests/execution/test_waits.py counts them
DENSE_LAUNCHES = 4  # a norm with ReLU, and three convolutions that take what follows them along


def unit_work(unit: BottleneckUnit, positions: int, evaluated: int, dilated: int, scored: bool) -> list[Work]:
    """The kernels of a unit behind the first in 16 bits; positions: P; scored: whether a halting branch follows."""
    channels, width = unit.conv1.in_channels, unit.conv1.out_channels
    works = [
        cut_product(dilated, channels, width, HALF * dilated * (channels + width)),
        cut_product(evaluated, 9 * width, width, HALF * width * (dilated + evaluated)),
        # The state is read and written, and so is the output, in float32.
        product(evaluated, width, channels, evaluated * (HALF * width + 2 * channels * (HALF + FLOAT))),
    ]
    if scored:
        works.append(Work(MULTIPLY_ADD * dilated * channels * 9, HALF * dilated * channels, -(-dilated // TILE)))
        works.append(Work(0, positions * HALTING_BYTES))
    return works


class Prediction(NamedTuple):
    """Seconds of an extractor."""

    dense: float
    kernels: float
    graphs: float


def predict(part: AdaptivePart, batch: int, depths: Sequence[Tensor], card: Card) -> Prediction:
    """What an extractor takes with prescribed depths, per block int64 [N, h, w], and what it takes dense."""
    shape = (batch, 3, *SIZE)
    sizes = part.map_sizes(SIZE)
    half = batch * math.prod(side // 2 for side in SIZE)
    stem = [Work(part.stem_flops(shape), HALF * (batch * 3 * math.prod(SIZE) + 64 * half)), Work(0, HALF * 80 * half)]
    common, launches = sum(work.seconds(card) for work in stem), len(stem)
    dense = sparse = 0.0
    dense_launches = sparse_launches = 0
    for block, own, size_in, size in zip(part.blocks, depths, sizes, sizes[1:]):
        positions_in, positions = (batch * math.prod(size) for size in (size_in, size))
        exists = torch.ones_like(own, dtype=torch.bool)
        for index, unit in enumerate(block.units):
            assert isinstance(unit, BottleneckUnit)
            everywhere = sum(work.seconds(card) for work in dense_work(unit, positions_in, positions))
            if index == 0:
                common, launches, positions_in = common + everywhere, launches + DENSE_LAUNCHES + 1, positions
                continue
            dense, dense_launches = dense + everywhere, dense_launches + DENSE_LAUNCHES
            evaluated, dilated = (int(count.sum()) for count in active_positions(own > index, exists))
            works = unit_work(unit, positions, evaluated, dilated, unit.halting is not None)
            sparse, sparse_launches = sparse + sum(work.seconds(card) for work in works), sparse_launches + LAUNCHES
    return Prediction(
        dense=common + dense + card.graph_launch * (launches + dense_launches),
        kernels=common + sparse + card.launch * (launches + sparse_launches),
        graphs=common + sparse + card.graph_launch * (launches + sparse_launches),
    )


def tables(card: Card) -> tuple[str, str]:
    """A unit of each block with every position active; milliseconds of the extractor of ResNet-101."""
    part = PartSettings(ResNetV2Spec(halting="sact")).build()
    sizes, rows, predicted = part.map_sizes(SIZE)[1:], [], []
    for batch in BATCHES:
        for index, (block, size) in enumerate(zip(part.blocks, sizes)):
            unit, positions = block.units[1], batch * math.prod(size)
            assert isinstance(unit, BottleneckUnit)
            works = unit_work(unit, positions, positions, positions, True)
            flops, moved = sum(work.flops for work in works) / 1e9, sum(work.bytes for work in works) / 1e6
            tiles = "/".join(str(int(work.tiles)) for work in works[:3])
            seconds = sum(work.seconds(card) for work in works)
            rows.append([batch, index + 1, positions, flops, moved, tiles, LAUNCHES, 1e6 * seconds])
        for ratio in RATIOS:
            depths, reached = part.depths_for_ratio((batch, 3, *SIZE), ratio, 0)
            one = predict(part, batch, depths, card)
            predicted.append([batch, reached, *(1e3 * seconds for seconds in one), one.graphs / one.dense])
    headers = ["batch", "block", "positions", "GFLOP", "MB", "64x64 tiles of the products", "launches", "microseconds"]
    names = ["batch", "FLOP ratio", "dense, graph, ms", "perforated, ms", "graphs, ms", "graphs : dense"]
    return (
        tabulate(rows, headers, tablefmt="pipe", floatfmt=".1f"),
        tabulate(predicted, names, tablefmt="pipe", floatfmt=".2f"),
    )


def page(card: Card) -> str:
    """The model in markdown."""
    units, extractor = tables(card)
    teraflops, terabytes = card.flops / 1e12, card.bytes / 1e12
    launch, in_graph = 1e6 * card.launch, 1e6 * card.graph_launch
    return f"""# What to expect of a GPU

Predicted, not measured; a measurement belongs into [docs/results/gpu.md](../results/gpu.md). By

    python -m sact_det.benchmark.gpu.model --output docs/performance/gpu_model.md

for the extractor of ResNet-101 at {SIZE[0]}x{SIZE[1]} in 16 bits on one {card.name}:

- {teraflops:.0f} TFLOP/s, {terabytes:.2f} TB/s, {card.multiprocessors} multiprocessors, by its data sheet;
- assumed: kernels reach {card.reached_flops:.0%} of the one or {card.reached_bytes:.0%} of the other, the slower one;
- assumed: a product with fewer 64x64 tiles than multiprocessors computes in proportion; the kernels cut the tiles of
  3x3 convolutions, and of 1x1 ones to fewer channels, into up to {PARTS} parts of a depth of at least {LEAST_DEPTH};
- assumed: a small kernel follows the other in {launch:.0f} microseconds, in {in_graph:.0f} in a CUDA graph;
- weights and features are read once; caches are not modelled.

## A unit behind a block's first, all positions active

{units}

## The extractor

Masks as of the benchmarks at a FLOP ratio. "dense": convolutions with folded norms under a CUDA graph, {DENSE_LAUNCHES}
launches a unit.

{extractor}

## A unit in training, microseconds

Forward and backward under autocast, without launches and PyTorch's halting arithmetic; as many positions are read as
are evaluated. "dense": {DENSE_PASSES} times its forward pass. "16 bits": with states of 16 bits
(`SOLVER.AMP.HALF_STATES`); else they are float32.

{training_table(card, SIZE, BATCHES)}
"""


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Prints the page, or writes it to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", help="a markdown file; without it the page is printed")
    args = parser.parse_args(argv)
    text = page(Card())
    if args.output is None:
        print(text)
    else:
        write_text(args.output, text)


if __name__ == "__main__":
    main()
