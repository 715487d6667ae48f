"""The mean of a map, and halting scores at lists of positions: Triton kernels for NVIDIA GPUs (see unit_kernels.py).

A 3x3 convolution to one channel is nine products per position it reads, then a sum of nine per position it writes.

Shape shorthand in this module:
    N: images; H, W: feature map, padding included; P = N * H * W; C: channels.
"""

import triton
import triton.language as tl

from sact_det.execution.cuda.tiles import INTERPRETED

# Rows and depth of the products; positions of the sums; channels at a time; rows and columns of partial sums.
PRODUCT_BLOCK = (32, 16) if INTERPRETED else (64, 64)
SCORE_BLOCK = 64 if INTERPRETED else 256
CHANNEL_BLOCK = 1024
SUM_BLOCK = (32, 64)


@triton.jit
def _add_sums(
    program,
    sums,  # float32 [N, C]
    partial_sums,
    tile_rows,
    offsets,  # int32 [N + 1], where images begin in the list
    C: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """sums += conv3_kernel's partial sums of an image, for BLOCK_C channels."""
    blocks: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C
    image, block = program // blocks, program % blocks
    begin, end = tl.load(offsets + image), tl.load(offsets + image + 1)
    if begin != end:
        rows = tl.load(tile_rows)
        columns = block * BLOCK_C + tl.arange(0, BLOCK_C)
        stop = (end - 1) // rows + 1
        total = tl.zeros((BLOCK_T, BLOCK_C), tl.float32)
        for start in range(begin // rows, stop, BLOCK_T):
            tile = start + tl.arange(0, BLOCK_T)
            total += tl.load(
                partial_sums + (tile + image).to(tl.int64)[:, None] * C + columns[None, :],
                mask=(tile < stop)[:, None] & (columns < C)[None, :],
                other=0.0,
            )
        place = sums + image.to(tl.int64) * C + columns
        tl.store(place, tl.load(place, mask=columns < C, other=0.0) + tl.sum(total, 0), mask=columns < C)


@triton.jit
def sums_kernel(sums, partial_sums, tile_rows, offsets, C: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr):
    """_add_sums of all images: N * ceil(C / BLOCK_C) programs."""
    _add_sums(tl.program_id(0), sums, partial_sums, tile_rows, offsets, C, BLOCK_T, BLOCK_C)


@triton.jit(do_not_specialize=["size", "sum_programs"])
def taps_kernel(
    state,  # [P, C]
    taps,  # float32 [9, C]
    bias,  # float32 [9]
    products,  # float32 [9, P]
    positions,  # int32 list
    count,  # int32 [1], its length
    size,  # P
    sums,  # as of _add_sums
    partial_sums,
    tile_rows,
    offsets,
    sum_programs,  # the first ones, which do the work of sums_kernel; 0 behind a block's first unit
    C: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """products = taps @ state + bias at the listed positions, as exact as float32; beside it, what sums_kernel does."""
    program = tl.program_id(0)
    if program < sum_programs:
        _add_sums(program, sums, partial_sums, tile_rows, offsets, C, BLOCK_T, BLOCK_C)
        return
    length = tl.load(count)
    first = (program - sum_programs) * BLOCK_M
    if first >= length:
        return
    slots = first + tl.arange(0, BLOCK_M)
    rows = tl.load(positions + slots, mask=slots < length, other=0).to(tl.int64)
    tap = tl.arange(0, 16)
    product = tl.zeros((BLOCK_M, 16), tl.float32)
    for start in range(0, C, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        if C % BLOCK_K == 0:
            x = tl.load(state + rows[:, None] * C + k[None, :])
        else:
            x = tl.load(state + rows[:, None] * C + k[None, :], mask=(k < C)[None, :], other=0.0)
        right = tl.load(taps + tap[None, :] * C + k[:, None], mask=(tap < 9)[None, :] & (k < C)[:, None], other=0.0)
        product = tl.dot(x.to(tl.float32), right, product, input_precision="tf32x3")
    product += tl.load(bias + tap, mask=tap < 9, other=0.0)[None, :]
    place = products + tap.to(tl.int64)[None, :] * size + rows[:, None]
    tl.store(place, product, mask=(slots < length)[:, None] & (tap < 9)[None, :])


@triton.jit
def sum_of_taps(products, position, here, x, y, height, width, size, BLOCK: tl.constexpr):
    """The local convolution from its products, float32 [9, P], where `here`; 0 elsewhere."""
    local = tl.zeros((BLOCK,), tl.float32)
    for tap in tl.static_range(9):
        ny, nx = y + (tap // 3 - 1), x + (tap % 3 - 1)
        inside = here & (ny >= 0) & (ny < height) & (nx >= 0) & (nx < width)
        neighbour = (position + (tap // 3 - 1) * width + (tap % 3 - 1)).to(tl.int64)
        local += tl.load(products + neighbour + size.to(tl.int64) * tap, mask=inside, other=0.0)
    return local


@triton.jit(do_not_specialize=["height", "width", "size"])
def scores_kernel(
    products,  # float32 [9, P]; zero at padding
    sums,  # float32 [N, C]
    counts,  # float32 [N], positions
    mean_weights,  # float32 [C]
    constant,  # float32 []
    logit_shift,  # added to it
    active,  # bool [N, H, W] as uint8
    exists,  # likewise, contiguous, or None
    scores,  # float32 [N, H, W]
    size,  # P
    height,
    width,
    stride_n,
    stride_y,
    stride_x,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """h^l where active, 0 elsewhere."""
    blocks = (height * width + BLOCK - 1) // BLOCK
    image, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    within = block * BLOCK + tl.arange(0, BLOCK)
    y, x = within // width, within % width
    position = image * height * width + within
    on_map = within < height * width
    here = tl.load(active + image.to(tl.int64) * stride_n + y * stride_y + x * stride_x, mask=on_map, other=0) != 0
    if exists is not None:
        here = here & (tl.load(exists + position, mask=on_map, other=0) != 0)

    channels = tl.arange(0, BLOCK_C)
    total = tl.zeros((BLOCK_C,), tl.float32)
    for start in range(0, C, BLOCK_C):
        c = start + channels
        total += tl.load(sums + image.to(tl.int64) * C + c, mask=c < C, other=0.0) * tl.load(
            mean_weights + c, mask=c < C, other=0.0
        )
    logit = tl.sum(total, 0) / tl.load(counts + image) + (tl.load(constant) + logit_shift)

    local = sum_of_taps(products, position, here, x, y, height, width, size, BLOCK)
    tl.store(scores + position, tl.where(here, tl.sigmoid(local + logit), 0.0), mask=on_map)
