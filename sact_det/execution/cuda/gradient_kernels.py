"""Backward passes of residual units at lists of positions: Triton kernels (unit_kernels.py has the forward passes).

A gradient of a 3x3 convolution's input is gathered: a position that the unit read sums over the positions that read it.
Gradients of weights are sums over positions: SPLITS programs share them for each tile, and their partial sums are added
in a fixed order. Nothing is added atomically: gradients repeat bit for bit.

Shape shorthand in this module:
    N: images; H, W: feature map, padding included; P = N * H * W; C: channels; w: bottleneck width.
"""

import triton
import triton.language as tl

from sact_det.execution.cuda.products import (
    add_parts,
    listed_tile,
    load_left,
    load_rectified,
    load_rows,
    multiply,
    multiply_rows,
    multiply_taps,
    part_of,
    store_rows,
)
from sact_det.execution.cuda.tiles import GRADIENT_TILES, STATE_TILES, WEIGHT_TILES, tuned


@triton.jit(do_not_specialize=["image_size"])
def residual_gradient_kernel(
    grad_state,  # [P, C], or None
    grad_output,  # float32 [P, C], or None
    grad_sums,  # float32 [N, C], or None
    remaining,  # float32 [P]
    before,  # [P, C], the state that the unit read
    after,  # [P, C], the state that it left
    grad_residual,  # [P, C], a row per entry of the list
    grad_remaining,  # float32 [P], or None
    partial_bias,  # float32 [programs, C], sums of grad_residual over each program's entries; or None
    positions,  # int32 list
    count,  # int32 [1], its length
    image_size,  # H * W
    C: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The gradient of the residual f, where state += f, sums += f and output += remaining * f; that of `remaining`."""
    length, program = tl.load(count), tl.program_id(0)
    slots = program * BLOCK_M + tl.arange(0, BLOCK_M)
    listed = slots < length
    position = tl.load(positions + slots, mask=listed, other=0)
    share = tl.load(remaining + position, mask=listed, other=0.0)
    image = (position // image_size).to(tl.int64)
    dot = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(0, C, BLOCK_C):
        columns = start + tl.arange(0, BLOCK_C)
        mask = listed[:, None] & (columns < C)[None, :]
        total = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
        if grad_state is not None:
            total += load_rows(grad_state, position, columns, mask, C)
        if grad_sums is not None:
            total += tl.load(grad_sums + image[:, None] * C + columns[None, :], mask=mask, other=0.0)
        if grad_output is not None:
            part = load_rows(grad_output, position, columns, mask, C)
            total += share[:, None] * part
            if grad_remaining is not None:
                new = load_rows(after, position, columns, mask, C)
                old = load_rows(before, position, columns, mask, C)
                dot += tl.sum(part * (new - old), 1)
        store_rows(grad_residual, slots, columns, mask, total, C)
        if partial_bias is not None:
            tl.store(partial_bias + program.to(tl.int64) * C + columns, tl.sum(total, 0), mask=columns < C)
    if grad_remaining is not None:
        tl.store(grad_remaining + position, dot, mask=listed)


@triton.jit
def _store_passed(gradient, rows, activated, own_rows, columns, listed, product, COLUMNS: tl.constexpr):
    """gradient[rows] = product where activated[own_rows] > 0, else 0."""
    mask = listed[:, None] & (columns < COLUMNS)[None, :]
    passes = load_rows(activated, own_rows, columns, mask, COLUMNS) > 0
    store_rows(gradient, rows, columns, mask, tl.where(passes, product, 0.0), COLUMNS)


@tuned(GRADIENT_TILES, "weight")
@triton.jit(do_not_specialize=["multiprocessors", "bucket"])
def middle_gradient_kernel(
    grad_residual,  # [P, DEPTH], a row per entry of the list
    weight,  # [DEPTH, COLUMNS], conv3's
    middle,  # [P, COLUMNS], a row per entry of the list
    grad_middle,  # [P, COLUMNS]
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
    """grad_middle = grad_residual @ weight where middle > 0, else 0, at the listed positions."""
    STEPS: tl.constexpr = (DEPTH + BLOCK_K - 1) // BLOCK_K
    length = tl.load(count)
    tile, part, parts, idle = part_of(length, multiprocessors, PARTS, STEPS, COLUMNS, BLOCK_M, BLOCK_N)
    if idle:
        return
    slots, listed, position, columns = listed_tile(tile, positions, length, COLUMNS, BLOCK_M, BLOCK_N)
    factors = (grad_residual, slots, listed, weight, columns, part, parts)
    product = multiply_rows(*factors, DEPTH, COLUMNS, True, PRECISION, BLOCK_K, BLOCK_M, BLOCK_N)
    product, whole = add_parts(product, workspace, arrived, tile, part, parts, BLOCK_M, BLOCK_N)
    if whole:
        _store_passed(grad_middle, position, middle, slots, columns, listed, product, COLUMNS)


@tuned(GRADIENT_TILES, "weight")
@triton.jit(do_not_specialize=["multiprocessors", "bucket", "height", "width"])
def inner_gradient_kernel(
    grad_middle,  # [P, DEPTH], where active
    active,  # uint8 [P]
    weight,  # [DEPTH, 9, COLUMNS], conv2's
    inner,  # [P, COLUMNS]
    grad_inner,  # [P, COLUMNS], a row per entry of the list
    positions,  # int32 list: what the unit read
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
    """grad_inner = the 3x3 convolution's transpose of grad_middle where inner > 0, else 0, at the listed positions."""
    STEPS: tl.constexpr = (DEPTH + BLOCK_K - 1) // BLOCK_K
    length = tl.load(count)
    tile, part, parts, idle = part_of(length, multiprocessors, PARTS, 9 * STEPS, COLUMNS, BLOCK_M, BLOCK_N)
    if idle:
        return
    slots, listed, position, columns = listed_tile(tile, positions, length, COLUMNS, BLOCK_M, BLOCK_N)
    factors = (grad_middle, active, position, weight, columns, height, width, part, parts)
    product = multiply_taps(*factors, DEPTH, COLUMNS, True, PRECISION, BLOCK_K, BLOCK_M, BLOCK_N)
    product, whole = add_parts(product, workspace, arrived, tile, part, parts, BLOCK_M, BLOCK_N)
    if whole:
        _store_passed(grad_inner, slots, inner, position, columns, listed, product, COLUMNS)


@tuned(STATE_TILES, "weight", changes=("grad_state",))
@triton.jit(do_not_specialize=["bucket"])
def state_gradient_kernel(
    grad_inner,  # [P, DEPTH], a row per entry of the list
    weight,  # [DEPTH, COLUMNS], conv1's
    before,  # [P, COLUMNS], the state that the unit read
    scale,  # float32 [COLUMNS], the first norm
    shift,
    grad_state,  # [P, COLUMNS], updated
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
    """grad_state += scale * (grad_inner @ weight) where scale * before + shift > 0, at the listed positions."""
    length = tl.load(count)
    tile, part, parts, idle = part_of(length, 0, 1, 1, COLUMNS, BLOCK_M, BLOCK_N)
    if idle:
        return
    slots, listed, position, columns = listed_tile(tile, positions, length, COLUMNS, BLOCK_M, BLOCK_N)
    factors = (grad_inner, slots, listed, weight, columns, part, parts)
    product = multiply_rows(*factors, DEPTH, COLUMNS, True, PRECISION, BLOCK_K, BLOCK_M, BLOCK_N)
    mask = listed[:, None] & (columns < COLUMNS)[None, :]
    a = tl.load(scale + columns, mask=columns < COLUMNS, other=0.0)[None, :]
    b = tl.load(shift + columns, mask=columns < COLUMNS, other=0.0)[None, :]
    passes = load_rows(before, position, columns, mask, COLUMNS) * a + b > 0
    old = load_rows(grad_state, position, columns, mask, COLUMNS)
    store_rows(grad_state, position, columns, mask, old + tl.where(passes, a * product, 0.0), COLUMNS)


@tuned(WEIGHT_TILES, "left", keys=("CONV",))
@triton.jit(do_not_specialize=["bucket", "height", "width"])
def weight_gradient_kernel(
    left,  # gradients of a convolution's output, [P, DEPTH]: of conv2 at positions, else a row per entry of the list
    right,  # its input, [P, COLUMNS]: of conv3 a row per entry of the list, else at positions; of conv1 the state
    scale,  # float32 [COLUMNS], the first norm, for conv1
    shift,
    partial,  # float32 [SPLITS, DEPTH, taps, COLUMNS]
    positions,  # int32 list
    count,  # int32 [1], its length
    bucket,  # of the card and the map's size
    height,
    width,
    CONV: tl.constexpr,  # 1, 2 or 3
    SPLITS: tl.constexpr,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_K: tl.constexpr,  # entries of the list at a time
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Parts of left.T @ right over the listed positions, one for each of SPLITS stretches of the list."""
    TAPS: tl.constexpr = 9 if CONV == 2 else 1
    tiles_m: tl.constexpr = (DEPTH + BLOCK_M - 1) // BLOCK_M
    tiles_n: tl.constexpr = (COLUMNS + BLOCK_N - 1) // BLOCK_N
    program = tl.program_id(0)
    split, program = program // (tiles_m * tiles_n * TAPS), program % (tiles_m * tiles_n * TAPS)
    tap, program = program // (tiles_m * tiles_n), program % (tiles_m * tiles_n)
    m = program // tiles_n * BLOCK_M + tl.arange(0, BLOCK_M)
    n = program % tiles_n * BLOCK_N + tl.arange(0, BLOCK_N)
    EVEN_M: tl.constexpr = DEPTH % BLOCK_M == 0
    EVEN_N: tl.constexpr = COLUMNS % BLOCK_N == 0
    dy, dx = tap // 3 - 1, tap % 3 - 1
    length = tl.load(count)
    stretch = tl.cdiv(tl.cdiv(length, SPLITS), BLOCK_K) * BLOCK_K
    product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(split * stretch, tl.minimum((split + 1) * stretch, length), BLOCK_K):
        slots = start + tl.arange(0, BLOCK_K)
        listed = slots < length
        position = tl.load(positions + tl.minimum(slots, length - 1))  # elsewhere rows need not hold numbers
        if CONV == 1:
            y = load_rectified(right, scale, shift, position, n, COLUMNS, EVEN_N).to(left.dtype.element_ty)
        elif CONV == 2:
            px, py = position % width + dx, position // width % height + dy
            inside = listed & (py >= 0) & (py < height) & (px >= 0) & (px < width)
            y = load_left(right, position + dy * width + dx, inside, n, COLUMNS, EVEN_N)
        else:
            y = load_left(right, slots, listed, n, COLUMNS, EVEN_N)
        x = load_left(left, position if CONV == 2 else slots, listed, m, DEPTH, EVEN_M)
        product = multiply(tl.trans(x), y, product, PRECISION)
    place = ((split * DEPTH + m).to(tl.int64)[:, None] * TAPS + tap) * COLUMNS + n[None, :]
    tl.store(partial + place, product, mask=(m < DEPTH)[:, None] & (n < COLUMNS)[None, :])
