"""Residual units at lists of positions: Triton kernels for NVIDIA GPUs.

A feature map is stored in rows, [P, C], position = (n * H + y) * W + x, channels last. The lengths of lists stay on the
device: grids are as large as the whole map needs, and programs beyond the end of their list return at once. Left
factors are read in place (products.py). Sums over positions have a fixed order.

Shape shorthand in this module:
    N: images; H, W: feature map, padding included; P = N * H * W; C: channels; w: bottleneck width.
"""

import triton
import triton.language as tl

from sact_det.execution.cuda.products import (
    add_parts,
    listed_tile,
    load_rectified,
    load_rows,
    load_weights,
    multiply,
    multiply_rows,
    multiply_taps,
    part_of,
    relu,
    store_rows,
)
from sact_det.execution.cuda.tiles import CONV1_TILES, CONV2_TILES, CONV3_TILES, tuned


@triton.jit
def _store_rectified(inner, rows, columns, listed, product, bias, COLUMNS: tl.constexpr):
    """inner[rows] = relu(product + bias)."""
    product = relu(product + tl.load(bias + columns, mask=columns < COLUMNS, other=0.0)[None, :])
    store_rows(inner, rows, columns, listed[:, None] & (columns < COLUMNS)[None, :], product, COLUMNS)


@tuned(CONV1_TILES, "weight")
@triton.jit(do_not_specialize=["multiprocessors", "bucket"])
def conv1_kernel(
    state,  # [P, DEPTH]
    scale,  # float32 [DEPTH], the first norm
    shift,
    weight,  # [COLUMNS, DEPTH]
    bias,  # float32 [COLUMNS]
    inner,  # [P, COLUMNS]
    positions,  # int32 list
    count,  # int32 [1], its length
    workspace,  # as of products.py
    arrived,
    multiprocessors,
    bucket,  # of the card and the map's size
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    PARTS: tl.constexpr,  # into which the depth of a tile may be cut
    BLOCK_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """inner = relu(relu(scale * state + shift) @ weight.T + bias) at the listed positions."""
    EVEN: tl.constexpr = DEPTH % BLOCK_K == 0 and COLUMNS % BLOCK_N == 0
    STEPS: tl.constexpr = (DEPTH + BLOCK_K - 1) // BLOCK_K
    length = tl.load(count)
    tile, part, parts, idle = part_of(length, multiprocessors, PARTS, STEPS, COLUMNS, BLOCK_M, BLOCK_N)
    if idle:
        return
    _, listed, position, columns = listed_tile(tile, positions, length, COLUMNS, BLOCK_M, BLOCK_N)
    product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(part * STEPS // parts, (part + 1) * STEPS // parts):
        k = step * BLOCK_K + tl.arange(0, BLOCK_K)
        x = load_rectified(state, scale, shift, position, k, DEPTH, DEPTH % BLOCK_K == 0)
        right = load_weights(weight, columns, k, 0, COLUMNS, DEPTH, 1, False, EVEN)
        product = multiply(x.to(weight.dtype.element_ty), right, product, PRECISION)
    product, whole = add_parts(product, workspace, arrived, tile, part, parts, BLOCK_M, BLOCK_N)
    if whole:
        _store_rectified(inner, position, columns, listed, product, bias, COLUMNS)


@tuned(CONV2_TILES, "weight")
@triton.jit(do_not_specialize=["multiprocessors", "bucket", "height", "width"])
def conv2_kernel(
    inner,  # [P, DEPTH]; zero at padding
    weight,  # [COLUMNS, 9 * DEPTH], taps row by row
    bias,  # float32 [COLUMNS]
    middle,  # [P, COLUMNS], a row per entry of the list
    positions,  # int32 list
    count,  # int32 [1], its length
    workspace,  # as of products.py
    arrived,
    multiprocessors,
    bucket,  # of the card and the map's size
    height,
    width,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    PARTS: tl.constexpr,  # into which the depth of a tile may be cut
    BLOCK_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """middle = relu(3x3 convolution of inner + bias) at the listed positions; zeros beyond the map."""
    STEPS: tl.constexpr = (DEPTH + BLOCK_K - 1) // BLOCK_K
    length = tl.load(count)
    tile, part, parts, idle = part_of(length, multiprocessors, PARTS, 9 * STEPS, COLUMNS, BLOCK_M, BLOCK_N)
    if idle:
        return
    slots, listed, position, columns = listed_tile(tile, positions, length, COLUMNS, BLOCK_M, BLOCK_N)
    factors = (inner, None, position, weight, columns, height, width, part, parts)
    product = multiply_taps(*factors, DEPTH, COLUMNS, False, PRECISION, BLOCK_K, BLOCK_M, BLOCK_N)
    product, whole = add_parts(product, workspace, arrived, tile, part, parts, BLOCK_M, BLOCK_N)
    if whole:
        _store_rectified(middle, slots, columns, listed, product, bias, COLUMNS)


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


@tuned(CONV3_TILES, "weight", keys=("ADAPTIVE",), changes=("state", "output"))
@triton.jit(do_not_specialize=["bucket", "image_size"])
def conv3_kernel(
    middle,  # [P, DEPTH], a row per entry of the list; AT_POSITIONS: per position
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
    AT_POSITIONS: tl.constexpr,
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
    if ADAPTIVE:  # noqa: SIM102 (one is known to the compiler, the other is not)
        if tl.program_id(0) == 0:
            tl.store(tile_rows, BLOCK_M)
    length = tl.load(count)
    tile, part, parts, idle = part_of(length, 0, 1, 1, COLUMNS, BLOCK_M, BLOCK_N)
    if idle:
        return
    slots, listed, position, columns = listed_tile(tile, positions, length, COLUMNS, BLOCK_M, BLOCK_N)
    rows = position if AT_POSITIONS else slots
    factors = (middle, rows, listed, weight, columns, part, parts)
    product = multiply_rows(*factors, DEPTH, COLUMNS, False, PRECISION, BLOCK_K, BLOCK_M, BLOCK_N)
    ACROSS: tl.constexpr = (COLUMNS + BLOCK_N - 1) // BLOCK_N
    rest = (bias, state, output, remaining, partial_sums, position, listed, tile // ACROSS, image_size)
    if BLOCK_N > 64:  # in halves: a whole tile's state and output would not fit into registers
        left, right = tl.split(tl.permute(tl.reshape(product, (BLOCK_M, 2, BLOCK_N // 2)), (0, 2, 1)))
        half = tile % ACROSS * BLOCK_N + tl.arange(0, BLOCK_N // 2)
        _add_residual(left, half, *rest, ADAPTIVE, COLUMNS)
        _add_residual(right, half + BLOCK_N // 2, *rest, ADAPTIVE, COLUMNS)
    else:
        _add_residual(product, columns, *rest, ADAPTIVE, COLUMNS)


@triton.jit(do_not_specialize=["size"])
def rectify_kernel(
    rows,  # [P, C]
    scale,  # float32 [C]; None: 1
    shift,  # float32 [C]
    exists,  # uint8 [P], 0 at padding; or None
    rectified,  # [P, C]; may be `rows`
    size,  # P
    C: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """rectified = relu(scale * rows + shift) everywhere, 0 at padding."""
    ACROSS: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C
    row = tl.program_id(0) // ACROSS * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(0) % ACROSS * BLOCK_C + tl.arange(0, BLOCK_C)
    mask = (row < size)[:, None] & (columns < C)[None, :]
    x = load_rows(rows, row, columns, mask, C)
    if scale is not None:
        x *= tl.load(scale + columns, mask=columns < C, other=0.0)[None, :]
    x = relu(x + tl.load(shift + columns, mask=columns < C, other=0.0)[None, :])
    if exists is not None:
        x = tl.where((tl.load(exists + row, mask=row < size, other=0) != 0)[:, None], x, 0.0)
    store_rows(rectified, row, columns, mask, x, C)
