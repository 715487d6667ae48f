"""Residual units at lists of positions: Triton kernels for NVIDIA GPUs.

A feature map is stored in rows, [P, C], position = (n * H + y) * W + x, channels last. The lengths of lists stay on the
device: grids are as large as the whole map needs, and programs beyond the end of their list return at once. Left
factors are read in place, right factors are [columns, depth]. Sums over positions have a fixed order.

Tile sizes are chosen by measurement, once per shape and card; Triton keeps the choice in its cache ($TRITON_CACHE_DIR).
With TRITON_INTERPRET=1, set before Triton is first imported, the kernels run on the CPU: slow, for tests.

Shape shorthand in this module:
    N: images; H, W: feature map, padding included; P = N * H * W; C: channels; w: bottleneck width.
"""

from typing import Any, Sequence

import triton
import triton.language as tl

INTERPRETED = triton.knobs.runtime.interpret
_INTERPRETED = tl.constexpr(INTERPRETED)

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
if INTERPRETED:
    CONV1_TILES = CONV2_TILES = CONV3_TILES = _INTERPRETED_TILES
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
    widest = max(MIN_COLUMNS, triton.next_power_of_2(columns))
    return [
        tile
        for tile in tiles
        if tile[1] <= widest and tile[4] <= capability and not (plain and tile[0] * tile[1] > 64 * 128)
    ]


def _tuned(tiles: tuple[Tile, ...], changes: tuple[str, ...] = ()) -> Any:
    """Triton's autotuner for a product; `changes` names the arguments that a launch changes."""
    configs = {
        tile: triton.Config({"BLOCK_M": tile[0], "BLOCK_N": tile[1]}, num_warps=tile[2], num_stages=tile[3])
        for tile in tiles
    }

    def prune(_: Any, arguments: dict[str, Any], **constants: Any) -> list[triton.Config]:
        plain = constants["PRECISION"] == "ieee" and arguments["weight"].element_size() == 4
        capability = 0 if INTERPRETED else triton.runtime.driver.active.get_current_target().arch
        return [configs[tile] for tile in fitting(tiles, constants["COLUMNS"], capability, plain)]

    return triton.autotune(
        list(configs.values()),
        key=["bucket", "DEPTH", "COLUMNS", "PRECISION", *(["ADAPTIVE"] if changes else [])],
        restore_value=list(changes),
        prune_configs_by={"early_config_prune": prune},
        cache_results=True,
    )


@triton.jit
def _relu(x):
    return tl.where(x < 0, 0.0, x)  # keeps NaN


@triton.jit
def _multiply(left, right, product, PRECISION: tl.constexpr):
    """product + left @ right."""
    if _INTERPRETED:  # it would take the bits of bfloat16 for integers
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, product, input_precision=PRECISION)


@triton.jit
def _load_weights(weight, columns, k, depth, first, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, EVEN: tl.constexpr):
    """A tile [k, columns] of a right factor [COLUMNS, depth]; k counts from `first` to first + DEPTH."""
    pointers = weight + columns[None, :] * depth + (first + k)[:, None]
    if EVEN:
        return tl.load(pointers)
    else:
        return tl.load(pointers, mask=(k < DEPTH)[:, None] & (columns < COLUMNS)[None, :], other=0.0)


@_tuned(CONV1_TILES)
@triton.jit(do_not_specialize=["bucket"])
def conv1_kernel(
    state,  # [P, DEPTH]
    scale,  # float32 [DEPTH], the first norm
    shift,
    weight,  # [COLUMNS, DEPTH]
    bias,  # float32 [COLUMNS]
    inner,  # [P, COLUMNS]
    positions,  # int32 list
    count,  # int32 [1], its length
    bucket,  # of the card and the map's size
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """inner = relu(relu(scale * state + shift) @ weight.T + bias) at the listed positions."""
    EVEN: tl.constexpr = DEPTH % BLOCK_K == 0 and COLUMNS % BLOCK_N == 0
    tiles: tl.constexpr = (COLUMNS + BLOCK_N - 1) // BLOCK_N
    tile, column = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    length = tl.load(count)
    if tile * BLOCK_M >= length:
        return
    slots = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    rows = tl.load(positions + slots, mask=slots < length, other=0).to(tl.int64)
    columns = column * BLOCK_N + tl.arange(0, BLOCK_N)
    product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, DEPTH, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        pointers = state + rows[:, None] * DEPTH + k[None, :]
        if DEPTH % BLOCK_K == 0:
            x, a, b = tl.load(pointers), tl.load(scale + k), tl.load(shift + k)
        else:
            x = tl.load(pointers, mask=(k < DEPTH)[None, :], other=0.0)
            a = tl.load(scale + k, mask=k < DEPTH, other=0.0)
            b = tl.load(shift + k, mask=k < DEPTH, other=0.0)
        x = _relu(x.to(tl.float32) * a[None, :] + b[None, :]).to(weight.dtype.element_ty)
        right = _load_weights(weight, columns, k, DEPTH, 0, COLUMNS, DEPTH, EVEN)
        product = _multiply(x, right, product, PRECISION)
    product = _relu(product + tl.load(bias + columns, mask=columns < COLUMNS, other=0.0)[None, :])
    tl.store(
        inner + rows[:, None] * COLUMNS + columns[None, :],
        product.to(inner.dtype.element_ty),
        mask=(slots < length)[:, None] & (columns < COLUMNS)[None, :],
    )


@_tuned(CONV2_TILES)
@triton.jit(do_not_specialize=["bucket", "height", "width"])
def conv2_kernel(
    inner,  # [P, DEPTH]; zero at padding
    weight,  # [COLUMNS, 9 * DEPTH], taps row by row
    bias,  # float32 [COLUMNS]
    middle,  # [P, COLUMNS], a row per entry of the list
    positions,  # int32 list
    count,  # int32 [1], its length
    bucket,  # of the card and the map's size
    height,
    width,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """middle = relu(3x3 convolution of inner + bias) at the listed positions; zeros beyond the map."""
    EVEN: tl.constexpr = DEPTH % BLOCK_K == 0 and COLUMNS % BLOCK_N == 0
    steps: tl.constexpr = (DEPTH + BLOCK_K - 1) // BLOCK_K
    tiles: tl.constexpr = (COLUMNS + BLOCK_N - 1) // BLOCK_N
    tile, column = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    length = tl.load(count)
    if tile * BLOCK_M >= length:
        return
    slots = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    position = tl.load(positions + slots, mask=slots < length, other=0)
    x, y = position % width, position // width % height
    columns = column * BLOCK_N + tl.arange(0, BLOCK_N)
    product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(0, 9 * steps):  # one loop, not two: it is pipelined across taps
        tap = step // steps
        k = (step % steps) * BLOCK_K + tl.arange(0, BLOCK_K)
        dy, dx = tap // 3 - 1, tap % 3 - 1
        inside = (y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width)
        rows = (position + dy * width + dx).to(tl.int64)
        pointers = inner + rows[:, None] * DEPTH + k[None, :]
        if DEPTH % BLOCK_K == 0:
            left = tl.load(pointers, mask=inside[:, None], other=0.0)
        else:
            left = tl.load(pointers, mask=inside[:, None] & (k < DEPTH)[None, :], other=0.0)
        right = _load_weights(weight, columns, k, 9 * DEPTH, tap * DEPTH, COLUMNS, DEPTH, EVEN)
        product = _multiply(left, right, product, PRECISION)
    product = _relu(product + tl.load(bias + columns, mask=columns < COLUMNS, other=0.0)[None, :])
    tl.store(
        middle + slots.to(tl.int64)[:, None] * COLUMNS + columns[None, :],
        product.to(middle.dtype.element_ty),
        mask=(slots < length)[:, None] & (columns < COLUMNS)[None, :],
    )


@triton.jit
def _add_residual(
    product,
    columns,
    bias,
    state,
    output,
    remaining,
    partial_sums,
    position,
    listed,
    tile,
    image_size,
    ADAPTIVE: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The end of conv3_kernel, for some columns of its tile."""
    product += tl.load(bias + columns, mask=columns < COLUMNS, other=0.0)[None, :]
    row = position.to(tl.int64)[:, None] * COLUMNS
    mask = listed[:, None] & (columns < COLUMNS)[None, :]
    old = tl.load(state + row + columns[None, :], mask=mask, other=0.0).to(tl.float32)
    new = (old + product).to(state.dtype.element_ty)
    tl.store(state + row + columns[None, :], new, mask=mask)
    if ADAPTIVE:
        # As rounded: the output is made of the states there were.
        change = tl.where(mask, new.to(tl.float32) - old, 0.0)
        image = position // image_size
        first = tl.min(tl.where(listed, image, 2147483647), 0)
        last = tl.max(tl.where(listed, image, 0), 0)
        for i in range(first, last + 1):
            total = tl.sum(tl.where((image == i)[:, None], change, 0.0), 0)
            slot = (tile + i).to(tl.int64)
            tl.store(partial_sums + slot * COLUMNS + columns, total, mask=columns < COLUMNS)
        share = tl.load(remaining + position, mask=listed, other=0.0)
        before = tl.load(output + row + columns[None, :], mask=mask, other=0.0)
        tl.store(output + row + columns[None, :], before + share[:, None] * change, mask=mask)


@_tuned(CONV3_TILES, changes=("state", "output"))
@triton.jit(do_not_specialize=["bucket", "image_size"])
def conv3_kernel(
    middle,  # [P, DEPTH], a row per entry of the list
    weight,  # [COLUMNS, DEPTH]
    bias,  # float32 [COLUMNS]
    state,  # [P, COLUMNS]
    output,  # float32 [P, COLUMNS]
    remaining,  # float32 [P]
    partial_sums,  # float32 [tiles + N - 1, COLUMNS]
    tile_rows,  # int32 [1]
    positions,  # int32 list
    count,  # int32 [1], its length
    bucket,  # of the card and the map's size
    image_size,  # H * W
    ADAPTIVE: tl.constexpr,  # else: the state alone; the arguments between it and `positions` are not used
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """f = middle @ weight.T + bias; state += f and output += remaining * f at the listed positions.

    Sums of f over each tile of the list and image go to partial_sums[tile + image]: where both ascend along a list, no
    two pairs share a sum. tile_rows says how many entries of the list make a tile.
    """
    EVEN: tl.constexpr = DEPTH % BLOCK_K == 0 and COLUMNS % BLOCK_N == 0
    tiles: tl.constexpr = (COLUMNS + BLOCK_N - 1) // BLOCK_N
    tile, column = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    if ADAPTIVE:  # noqa: SIM102 (one is known to the compiler, the other is not)
        if tl.program_id(0) == 0:
            tl.store(tile_rows, BLOCK_M)
    length = tl.load(count)
    if tile * BLOCK_M >= length:
        return
    slots = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    listed = slots < length
    position = tl.load(positions + slots, mask=listed, other=0)
    columns = column * BLOCK_N + tl.arange(0, BLOCK_N)
    product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, DEPTH, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        pointers = middle + slots.to(tl.int64)[:, None] * DEPTH + k[None, :]
        if DEPTH % BLOCK_K == 0:
            left = tl.load(pointers, mask=listed[:, None], other=0.0)
        else:
            left = tl.load(pointers, mask=listed[:, None] & (k < DEPTH)[None, :], other=0.0)
        right = _load_weights(weight, columns, k, DEPTH, 0, COLUMNS, DEPTH, EVEN)
        product = _multiply(left, right, product, PRECISION)
    rest = (bias, state, output, remaining, partial_sums, position, listed, tile, image_size)
    if BLOCK_N > 64:  # in halves: a whole tile's state and output would not fit into registers
        left, right = tl.split(tl.permute(tl.reshape(product, (BLOCK_M, 2, BLOCK_N // 2)), (0, 2, 1)))
        half = column * BLOCK_N + tl.arange(0, BLOCK_N // 2)
        _add_residual(left, half, *rest, ADAPTIVE, COLUMNS)
        _add_residual(right, half + BLOCK_N // 2, *rest, ADAPTIVE, COLUMNS)
    else:
        _add_residual(product, columns, *rest, ADAPTIVE, COLUMNS)
