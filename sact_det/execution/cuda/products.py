"""The loops of matrix products at lists of positions, as kernels inline them.

Left factors are rows that are read in place. A right factor of TAPS matrices is [COLUMNS, TAPS, DEPTH] or, TRANSPOSED,
[DEPTH, TAPS, COLUMNS]: what one pass multiplies with, the other one reads the other way round.

Where a list is so short that its tiles do not fill the card, their depth is cut into parts (split-K): each part's
product is written to a workspace, and the program that comes last adds them up, in their order. So results repeat bit
for bit, whoever comes last. The host does not know how long a list is: programs decide, from its length.
"""

import triton
import triton.language as tl

from sact_det.execution.cuda.tiles import INTERPRETED, LARGEST_OF_TWO, LEAST_STEPS

_INTERPRETED = tl.constexpr(INTERPRETED)
_LEAST_STEPS = tl.constexpr(LEAST_STEPS)
_LARGEST_OF_TWO = tl.constexpr(LARGEST_OF_TWO)


@triton.jit
def relu(x):
    """max(x, 0), and NaN for NaN."""
    return tl.where(x < 0, 0.0, x)


@triton.jit
def part_of(
    length,  # of the list
    multiprocessors,  # of the card
    PARTS: tl.constexpr,  # at most; 1: no tile is cut
    STEPS: tl.constexpr,  # in which a tile's depth is multiplied
    COLUMNS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """This program's work: the tile, the part of its depth, of how many, and whether there is none."""
    tiles = tl.cdiv(length, BLOCK_M) * ((COLUMNS + BLOCK_N - 1) // BLOCK_N)
    program = tl.program_id(0)
    if PARTS == 1:
        return program, 0, 1, program >= tiles
    else:
        LIMIT: tl.constexpr = STEPS // _LEAST_STEPS if STEPS < PARTS * _LEAST_STEPS else PARTS
        PROGRAMS: tl.constexpr = 2 if BLOCK_M * BLOCK_N <= _LARGEST_OF_TWO else 1  # of a multiprocessor
        some = tl.maximum(tiles, 1)
        parts = tl.maximum(tl.minimum(PROGRAMS * multiprocessors // some, LIMIT), 1)
        return program % some, program // some, parts, program >= tiles * parts


@triton.jit
def listed_tile(tile, positions, length, COLUMNS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Of a tile: entries of the list, which of them there are, what they say, and columns."""
    ACROSS: tl.constexpr = (COLUMNS + BLOCK_N - 1) // BLOCK_N
    slots = tile // ACROSS * BLOCK_M + tl.arange(0, BLOCK_M)
    listed = slots < length
    position = tl.load(positions + slots, mask=listed, other=0)
    return slots, listed, position, tile % ACROSS * BLOCK_N + tl.arange(0, BLOCK_N)


@triton.jit
def add_parts(
    product,  # of this program's part
    workspace,  # float32, a tile of products per program
    arrived,  # int32 per tile, zero, and zero afterwards
    tile,
    part,
    parts,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """The whole product, and whether it is: for the program alone that comes last."""
    whole = parts == 1
    if not whole:
        within = tl.arange(0, BLOCK_M)[:, None] * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
        first = workspace + (tile * parts).to(tl.int64) * (BLOCK_M * BLOCK_N) + within
        tl.store(first + part * (BLOCK_M * BLOCK_N), product)
        tl.debug_barrier()  # every thread has written before one says so
        whole = tl.atomic_add(arrived + tile, 1, sem="acq_rel") == parts - 1
        if whole:
            product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
            for other in range(parts):  # from the second-level cache, where other multiprocessors have written
                product += tl.load(first + other * (BLOCK_M * BLOCK_N), cache_modifier=".cg")
            tl.store(arrived + tile, 0)
    return product, whole


@triton.jit
def load_rows(rows_of, rows, columns, mask, COLUMNS: tl.constexpr):
    """A tile [rows, columns] of a matrix, float32; zeros beside the mask."""
    return tl.load(rows_of + rows.to(tl.int64)[:, None] * COLUMNS + columns[None, :], mask=mask, other=0.0).to(
        tl.float32
    )


@triton.jit
def store_rows(rows_of, rows, columns, mask, tile, COLUMNS: tl.constexpr):
    """Writes a tile [rows, columns] of a matrix, in its type."""
    place = rows_of + rows.to(tl.int64)[:, None] * COLUMNS + columns[None, :]
    tl.store(place, tile.to(rows_of.dtype.element_ty), mask=mask)


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
    part,
    parts,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """left[rows] @ weight over a part of the depth, float32 [BLOCK_M, BLOCK_N]."""
    EVEN: tl.constexpr = DEPTH % BLOCK_K == 0 and COLUMNS % BLOCK_N == 0
    STEPS: tl.constexpr = (DEPTH + BLOCK_K - 1) // BLOCK_K
    product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(part * STEPS // parts, (part + 1) * STEPS // parts):
        k = step * BLOCK_K + tl.arange(0, BLOCK_K)
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
    part,
    parts,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    TRANSPOSED: tl.constexpr,  # also the taps: what reads this position, rather than what it reads
    PRECISION: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """A part of the sum over 3x3 taps of left[the neighbour's row] @ the tap's weight, float32 [BLOCK_M, BLOCK_N]."""
    EVEN: tl.constexpr = DEPTH % BLOCK_K == 0 and COLUMNS % BLOCK_N == 0
    SIGN: tl.constexpr = -1 if TRANSPOSED else 1
    STEPS: tl.constexpr = (DEPTH + BLOCK_K - 1) // BLOCK_K
    x, y = position % width, position // width % height
    product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    # One loop, not two: it is pipelined across taps.
    for step in range(part * (9 * STEPS) // parts, (part + 1) * (9 * STEPS) // parts):
        tap = step // STEPS
        k = (step % STEPS) * BLOCK_K + tl.arange(0, BLOCK_K)
        dy, dx = SIGN * (tap // 3 - 1), SIGN * (tap % 3 - 1)
        inside = (y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width)
        neighbour = position + dy * width + dx
        if present is not None:
            inside = inside & (tl.load(present + neighbour, mask=inside, other=0) != 0)
        rows = load_left(left, neighbour, inside, k, DEPTH, DEPTH % BLOCK_K == 0)
        right = load_weights(weight, columns, k, tap, COLUMNS, DEPTH, 9, TRANSPOSED, EVEN)
        product = multiply(rows, right, product, PRECISION)
    return product
