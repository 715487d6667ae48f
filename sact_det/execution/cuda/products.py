"""The loops of matrix products at lists of positions, as kernels inline them.

Left factors are rows that are read in place. A right factor of TAPS matrices is [COLUMNS, TAPS, DEPTH] or, TRANSPOSED,
[DEPTH, TAPS, COLUMNS]: what one pass multiplies with, the other one reads the other way round.
"""

import triton
import triton.language as tl

from sact_det.execution.cuda.tiles import INTERPRETED

_INTERPRETED = tl.constexpr(INTERPRETED)


@triton.jit
def relu(x):
    """max(x, 0), and NaN for NaN."""
    return tl.where(x < 0, 0.0, x)


@triton.jit
def multiply(left, right, product, PRECISION: tl.constexpr):
    """product + left @ right."""
    if _INTERPRETED:  # it would take the bits of bfloat16 for integers
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, product, input_precision=PRECISION)


@triton.jit
def load_weights(
    weight,
    columns,
    k,
    tap,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    TAPS: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    EVEN: tl.constexpr,  # whether no part of the tile lies outside the matrix
):
    """A tile [k, columns] of a right factor."""
    if TRANSPOSED:
        pointers = weight + (k * TAPS + tap)[:, None] * COLUMNS + columns[None, :]
    else:
        pointers = weight + columns[None, :] * (TAPS * DEPTH) + (tap * DEPTH + k)[:, None]
    if EVEN:
        return tl.load(pointers)
    else:
        return tl.load(pointers, mask=(k < DEPTH)[:, None] & (columns < COLUMNS)[None, :], other=0.0)


@triton.jit
def load_left(left, rows, listed, k, DEPTH: tl.constexpr, EVEN: tl.constexpr):
    """A tile [rows, k] of a left factor; zeros where a row is not listed."""
    pointers = left + rows.to(tl.int64)[:, None] * DEPTH + k[None, :]
    if EVEN:
        return tl.load(pointers, mask=listed[:, None], other=0.0)
    else:
        return tl.load(pointers, mask=listed[:, None] & (k < DEPTH)[None, :], other=0.0)


@triton.jit
def load_rectified(state, scale, shift, rows, k, DEPTH: tl.constexpr, EVEN: tl.constexpr):
    """A tile [rows, k] of relu(scale * state + shift), float32; rows must lie on the map."""
    pointers = state + rows.to(tl.int64)[:, None] * DEPTH + k[None, :]
    if EVEN:
        x, a, b = tl.load(pointers), tl.load(scale + k), tl.load(shift + k)
    else:
        x = tl.load(pointers, mask=(k < DEPTH)[None, :], other=0.0)
        a = tl.load(scale + k, mask=k < DEPTH, other=0.0)
        b = tl.load(shift + k, mask=k < DEPTH, other=0.0)
    return relu(x.to(tl.float32) * a[None, :] + b[None, :])


@triton.jit
def multiply_rows(
    left,  # [., DEPTH]
    rows,  # which of them
    listed,
    weight,
    columns,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """left[rows] @ weight, float32 [BLOCK_M, BLOCK_N]."""
    EVEN: tl.constexpr = DEPTH % BLOCK_K == 0 and COLUMNS % BLOCK_N == 0
    product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, DEPTH, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x = load_left(left, rows, listed, k, DEPTH, DEPTH % BLOCK_K == 0)
        right = load_weights(weight, columns, k, 0, COLUMNS, DEPTH, 1, TRANSPOSED, EVEN)
        product = multiply(x, right, product, PRECISION)
    return product


@triton.jit
def multiply_taps(
    left,  # [P, DEPTH]
    present,  # uint8 [P], where there is a row; None: everywhere
    position,
    weight,
    columns,
    height,
    width,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    TRANSPOSED: tl.constexpr,  # also the taps: what reads this position, rather than what it reads
    PRECISION: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """The sum over 3x3 taps of left[the neighbour's row] @ the tap's weight, float32 [BLOCK_M, BLOCK_N]."""
    EVEN: tl.constexpr = DEPTH % BLOCK_K == 0 and COLUMNS % BLOCK_N == 0
    SIGN: tl.constexpr = -1 if TRANSPOSED else 1
    steps: tl.constexpr = (DEPTH + BLOCK_K - 1) // BLOCK_K
    x, y = position % width, position // width % height
    product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(0, 9 * steps):  # one loop, not two: it is pipelined across taps
        tap = step // steps
        k = (step % steps) * BLOCK_K + tl.arange(0, BLOCK_K)
        dy, dx = SIGN * (tap // 3 - 1), SIGN * (tap % 3 - 1)
        inside = (y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width)
        neighbour = position + dy * width + dx
        if present is not None:
            inside = inside & (tl.load(present + neighbour, mask=inside, other=0) != 0)
        rows = load_left(left, neighbour, inside, k, DEPTH, DEPTH % BLOCK_K == 0)
        right = load_weights(weight, columns, k, tap, COLUMNS, DEPTH, 9, TRANSPOSED, EVEN)
        product = multiply(rows, right, product, PRECISION)
    return product
