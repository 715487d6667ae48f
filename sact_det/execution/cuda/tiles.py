"""Tiles of matrix products: which there are, and which one a card takes, by measurement.

Tile sizes are chosen once per shape and card; Triton keeps the choice in its cache ($TRITON_CACHE_DIR). With
SACT_DET_TUNING=0 the first that fits is taken, unmeasured: for runs that compiling all of them would delay. With
TRITON_INTERPRET=1, set before Triton is first imported, kernels run on the CPU: slow, for tests, in small tiles.
"""

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Mapping, NamedTuple, Sequence

import triton

from sact_det.base.errors import one_line

logger = logging.getLogger(__name__)

INTERPRETED = triton.knobs.runtime.interpret

MAX_PARTS = 8


class Tile(NamedTuple):
    """What a program of a product computes, and with what.

    Attributes:
        rows, columns: of the product.
        warps: that compute it.
        stages: of the software pipeline.
        capability, below: from the one on to below the other, times 10, its registers suffice
            (benchmark/gpu/compilation.py tells).
        parts: into which its depth may be cut where a list has too few tiles for the card (products.py).
        plain: whether they suffice for float32 without tensor cores, too; larger tiles than 64x128 are not tried there.
    """

    rows: int
    columns: int
    warps: int
    stages: int
    capability: int = 80
    below: int = 1000
    parts: int = MAX_PARTS
    plain: bool = True


# The smallest first.
_INTERPRETED_TILES = (Tile(32, 16, 1, 1, capability=0),)
CONV1_TILES: tuple[Tile, ...] = (
    Tile(64, 32, 4, 4),  # for a batch of one: small tiles keep more multiprocessors busy
    Tile(64, 64, 4, 4),
    Tile(128, 64, 8, 4),
    Tile(64, 128, 8, 4),
    Tile(128, 128, 8, 3),
    Tile(64, 256, 8, 3, capability=90),
    Tile(128, 256, 8, 3, capability=90, parts=1),
)
CONV2_TILES: tuple[Tile, ...] = (
    Tile(64, 32, 4, 4),
    Tile(64, 64, 4, 4),
    Tile(128, 64, 4, 4),
    Tile(64, 128, 8, 4),
    Tile(128, 128, 8, 3),
    Tile(64, 256, 8, 3),
    Tile(128, 256, 8, 3),
)
CONV3_TILES: tuple[Tile, ...] = (  # it also holds state and output
    Tile(64, 64, 8, 4, below=89),
    Tile(64, 64, 4, 4, capability=89),
    Tile(64, 64, 8, 4, capability=90),
    Tile(128, 64, 8, 4),
    Tile(64, 128, 8, 4),
    Tile(128, 128, 8, 3),
)
# Of products in a backward pass: gradients of what conv3 and conv2 read, of the state, which its kernel also holds, and
# of weights.
GRADIENT_TILES: tuple[Tile, ...] = (
    Tile(64, 64, 4, 4, plain=False),
    Tile(128, 64, 8, 4),
    Tile(64, 128, 8, 4),
    Tile(128, 128, 8, 3, parts=1),
)
STATE_TILES: tuple[Tile, ...] = (
    Tile(64, 64, 8, 4),
    Tile(128, 64, 8, 4),
    Tile(64, 128, 8, 4),
    Tile(128, 128, 8, 3, capability=90),
)
WEIGHT_TILES: tuple[Tile, ...] = (
    Tile(64, 64, 8, 4),
    Tile(128, 64, 8, 3, plain=False),
    Tile(64, 128, 8, 3, plain=False),
    Tile(128, 128, 8, 3),
)
if INTERPRETED:
    CONV1_TILES = CONV2_TILES = CONV3_TILES = _INTERPRETED_TILES
    GRADIENT_TILES = STATE_TILES = WEIGHT_TILES = _INTERPRETED_TILES
# Where the depth of a tile is cut: the least steps of a part; two programs of a multiprocessor, if tiles are not larger
# than this, else one.
LEAST_STEPS = 1 if INTERPRETED else 4
LARGEST_OF_TWO = 128 * 128
MIN_ROWS = min(tile.rows for tile in CONV3_TILES)
MIN_COLUMNS = min(tile.columns for tile in CONV1_TILES)


def block_depth(itemsize: int) -> int:
    """How much of a product's depth is loaded at a time; itemsize: bytes of an element of the right factor."""
    return 16 if INTERPRETED else 128 // itemsize


def fitting(tiles: Sequence[Tile], columns: int, capability: int, plain: bool) -> list[Tile]:
    """The tiles that are worth measuring: not wider than the product, unless they are the smallest.

    Args:
        tiles: of a kernel.
        columns: of its product.
        capability: of the card, times 10.
        plain: float32 without tensor cores ("ieee").
    """
    narrowest = min(tile.columns for tile in tiles)
    widest = max(narrowest, MIN_COLUMNS, triton.next_power_of_2(columns))
    return [
        tile
        for tile in tiles
        if tile.columns <= widest
        and tile.capability <= capability < tile.below
        and not (plain and (tile.rows * tile.columns > 64 * 128 or not tile.plain))
    ]


def constants_of(tile: Tile, names: Sequence[str]) -> dict[str, int]:
    """The constants that a kernel with arguments of these names has of a tile."""
    constants = {"BLOCK_M": tile.rows, "BLOCK_N": tile.columns, "PARTS": tile.parts}
    return {name: value for name, value in constants.items() if name in names}


def compile_together(
    kernel: Any, arguments: Mapping[str, Any], constants: Mapping[str, Any], configs: Sequence[triton.Config]
) -> None:
    """Compiles a kernel for several tiles at once, a thread for each: before they are measured one after the other.

    Args:
        kernel: a function decorated by triton.jit.
        arguments: of a launch, by name, in their order.
        constants: of a launch, by name; what says how to launch is passed over.
        configs: of the tiles.
    """
    own = {name: value for name, value in constants.items() if name not in ("grid", "warmup")}
    threads = max(1, min(len(configs), os.cpu_count() or 1))
    try:
        with ThreadPoolExecutor(threads) as pool, triton.AsyncCompileMode(pool):
            for config in configs:
                kernel.warmup(*arguments.values(), grid=(1,), **own, **config.all_kwargs())
    except Exception as error:  # an older Triton, or a tile that does not compile, which the autotuner leaves out
        logger.info("Tiles of %s compile one after the other: %s", kernel.__name__, one_line(error))


def tuned(
    tiles: tuple[Tile, ...], factor: str, keys: tuple[str, ...] = (), changes: tuple[str, ...] = ()
) -> Callable[[Any], Any]:
    """Triton's autotuner for a product.

    Args:
        tiles: to choose from.
        factor: the argument whose type is that of the product's factors.
        keys: constants beside DEPTH, COLUMNS and PRECISION that a choice depends on.
        changes: the arguments that a launch changes, rather than writes.
    """

    def decorate(kernel: Any) -> Any:
        configs = {
            tile: triton.Config(constants_of(tile, kernel.arg_names), num_warps=tile.warps, num_stages=tile.stages)
            for tile in tiles
        }

        def prune(_: Any, arguments: dict[str, Any], **constants: Any) -> list[triton.Config]:
            plain = constants["PRECISION"] == "ieee" and arguments[factor].element_size() == 4
            capability = 0 if INTERPRETED else triton.runtime.driver.active.get_current_target().arch
            fit = fitting(tiles, constants["COLUMNS"], capability, plain)
            chosen = [configs[tile] for tile in (fit[:1] if os.environ.get("SACT_DET_TUNING") == "0" else fit)]
            if len(chosen) > 1:
                compile_together(kernel, arguments, constants, chosen)
            return chosen

        return triton.autotune(
            list(configs.values()),
            key=["bucket", "DEPTH", "COLUMNS", "PRECISION", *keys],
            restore_value=list(changes),
            prune_configs_by={"early_config_prune": prune},
            cache_results=True,
        )(kernel)

    return decorate
