"""Tiles of matrix products: which there are, and which one a card takes, by measurement.

Tile sizes are chosen once per shape and card; Triton keeps the choice in its cache ($TRITON_CACHE_DIR). With
TRITON_INTERPRET=1, set before Triton is first imported, kernels run on the CPU: slow, for tests, in small tiles.
"""

from typing import Any, Sequence

import triton

INTERPRETED = triton.knobs.runtime.interpret

# Rows and columns of a tile, warps, stages of the software pipeline, and the least compute capability (times 10) on
# which its registers suffice (benchmark/gpu/compilation.py tells); the smallest first.
Tile = tuple[int, int, int, int, int]
_INTERPRETED_TILES: tuple[Tile, ...] = ((32, 16, 1, 1, 0),)
CONV1_TILES: tuple[Tile, ...] = (
    (64, 32, 4, 4, 80),  # for a batch of one: small tiles keep more multiprocessors busy
    (64, 64, 4, 4, 80),
    (128, 64, 4, 4, 80),
    (64, 128, 8, 4, 80),
    (128, 128, 8, 3, 80),
    (64, 256, 8, 3, 80),
    (128, 256, 8, 3, 90),
)
CONV2_TILES: tuple[Tile, ...] = (
    (64, 32, 4, 4, 80),
    (64, 64, 4, 4, 80),
    (128, 64, 4, 4, 80),
    (64, 128, 4, 4, 80),
    (128, 128, 8, 3, 80),
    (64, 256, 8, 3, 80),
    (128, 256, 8, 3, 80),
)
CONV3_TILES: tuple[Tile, ...] = (  # it also holds state and output
    (64, 64, 8, 4, 80),
    (64, 64, 4, 4, 90),
    (128, 64, 8, 4, 80),
    (64, 128, 4, 4, 80),
    (128, 128, 8, 3, 80),
)
# Of products in a backward pass: gradients of what conv3 and conv2 read, of the state, which its kernel also holds, and
# of weights.
GRADIENT_TILES: tuple[Tile, ...] = (
    (64, 64, 4, 4, 80),
    (128, 64, 8, 4, 80),
    (64, 128, 8, 4, 80),
    (128, 128, 8, 3, 80),
)
STATE_TILES: tuple[Tile, ...] = (
    (64, 64, 8, 4, 80),
    (128, 64, 8, 4, 80),
    (64, 128, 8, 4, 80),
    (128, 128, 8, 3, 90),
)
WEIGHT_TILES: tuple[Tile, ...] = (
    (64, 64, 4, 4, 80),
    (128, 64, 8, 3, 80),
    (64, 128, 8, 3, 80),
    (128, 128, 8, 3, 80),
)
if INTERPRETED:
    CONV1_TILES = CONV2_TILES = CONV3_TILES = _INTERPRETED_TILES
    GRADIENT_TILES = STATE_TILES = WEIGHT_TILES = _INTERPRETED_TILES
MIN_ROWS = min(rows for rows, *_ in CONV3_TILES)
MIN_COLUMNS = min(columns for _, columns, *_ in CONV1_TILES)


def block_depth(itemsize: int) -> int:
    """How much of a product's depth is loaded at a time; itemsize: bytes of an element of the right factor."""
    return 16 if INTERPRETED else 128 // itemsize


def fitting(tiles: Sequence[Tile], columns: int, capability: int, plain: bool) -> list[Tile]:
    """The tiles that are worth measuring: not wider than the product, unless they are the smallest.

    Args:
        tiles: of a kernel.
        columns: of its product.
        capability: of the card, times 10.
        plain: float32 without tensor cores ("ieee"), for which large tiles have too few registers.
    """
    narrowest = min(tile[1] for tile in tiles)
    widest = max(narrowest, MIN_COLUMNS, triton.next_power_of_2(columns))
    return [
        tile
        for tile in tiles
        if tile[1] <= widest and tile[4] <= capability and not (plain and tile[0] * tile[1] > 64 * 128)
    ]


def tuned(tiles: tuple[Tile, ...], factor: str, keys: tuple[str, ...] = (), changes: tuple[str, ...] = ()) -> Any:
    """Triton's autotuner for a product.

    Args:
        tiles: to choose from.
        factor: the argument whose type is that of the product's factors.
        keys: constants beside DEPTH, COLUMNS and PRECISION that a choice depends on.
        changes: the arguments that a launch changes, rather than writes.
    """
    configs = {
        tile: triton.Config({"BLOCK_M": tile[0], "BLOCK_N": tile[1]}, num_warps=tile[2], num_stages=tile[3])
        for tile in tiles
    }

    def prune(_: Any, arguments: dict[str, Any], **constants: Any) -> list[triton.Config]:
        plain = constants["PRECISION"] == "ieee" and arguments[factor].element_size() == 4
        capability = 0 if INTERPRETED else triton.runtime.driver.active.get_current_target().arch
        return [configs[tile] for tile in fitting(tiles, constants["COLUMNS"], capability, plain)]

    return triton.autotune(
        list(configs.values()),
        key=["bucket", "DEPTH", "COLUMNS", "PRECISION", *keys],
        restore_value=list(changes),
        prune_configs_by={"early_config_prune": prune},
        cache_results=True,
    )
