"""FLOPs and bytes of kernels, and what they imply on a GPU.

Shape shorthand in this module:
    C: channels of a block; w: bottleneck width; P: positions of a map, over the batch.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from sact_det.network.resnet_v2 import BottleneckUnit
from sact_det.rule.flops import MULTIPLY_ADD

HALF, FLOAT = 2, 4  # bytes
TILE = 64  # rows and columns of the smallest tile of a product
# Where a product has too few tiles, the kernels cut their depth: into at most so many parts, of at least this depth.
PARTS, LEAST_DEPTH = 8, 256


@dataclass(frozen=True)
class Card:
    """A GPU, by its data sheet, and what is assumed of programs on it.

    Attributes:
        flops, bytes: per second, of 16-bit products and of memory.
        multiprocessors: how many tiles run at once.
        reached_flops, reached_bytes: the share of both that a good kernel reaches.
        launch, graph_launch: seconds from one small kernel to the next, and within a CUDA graph.
    """

    name: str = "H100 SXM"
    flops: float = 989e12
    bytes: float = 3.35e12
    multiprocessors: int = 132
    reached_flops: float = 0.6
    reached_bytes: float = 0.8
    launch: float = 6e-6
    graph_launch: float = 2e-6


class Work(NamedTuple):
    """Of one kernel. `tiles`: its programs, which can be too few for the card; `parts`: into which one may be cut."""

    flops: float
    bytes: float
    tiles: float = math.inf
    parts: int = 1

    def seconds(self, card: Card) -> float:
        """Whichever takes longer; a card that is not full computes in proportion."""
        full = min(1.0, self.tiles * self.parts / card.multiprocessors)
        computing = self.flops / (card.flops * card.reached_flops * full) if self.flops else 0.0
        return max(computing, self.bytes / (card.bytes * card.reached_bytes))


def product(rows: int, depth: int, columns: int, bytes_: float) -> Work:
    """A matrix product whose weights are read once; `bytes_`: of everything else."""
    tiles = -(-rows // TILE) * -(-columns // TILE)
    return Work(MULTIPLY_ADD * rows * depth * columns, bytes_ + HALF * depth * columns * (rows > 0), max(tiles, 1))


def cut_product(rows: int, depth: int, columns: int, bytes_: float) -> Work:
    """A product whose tiles are cut along its depth where they are too few."""
    return product(rows, depth, columns, bytes_)._replace(parts=max(1, min(PARTS, depth // LEAST_DEPTH)))


def dense_work(unit: BottleneckUnit, positions_in: int, positions: int) -> list[Work]:
    """A unit computed everywhere: convolutions whose norms are folded, and the first norm by itself."""
    channels, width, out = unit.conv1.in_channels, unit.conv1.out_channels, unit.conv3.out_channels
    works = [
        Work(0, 2 * HALF * positions_in * channels),
        product(positions_in, channels, width, HALF * positions_in * (channels + width)),
        product(positions, 9 * width, width, HALF * width * (positions_in + positions)),
        product(positions, width, out, HALF * positions * (width + 2 * out)),
    ]
    if unit.shortcut is not None:
        works.append(product(positions, channels, out, HALF * (positions_in * channels + positions * out)))
    return works
