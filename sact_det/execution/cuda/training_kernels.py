"""What a unit in training launches beside its products: copies, statistics and the local part of a halting branch.

Shape shorthand in this module:
    N: images; H, W: feature map, padding included; P = N * H * W; C: channels.
"""

import triton
import triton.language as tl

from sact_det.execution.cuda.score_kernels import sum_of_taps


@triton.jit
def copy_kernel(
    before,  # [P, C]
    after,  # [P, C]
    positions,  # int32 list
    count,  # int32 [1], its length
    C: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """after = before at the listed positions."""
    blocks: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C
    first, length = tl.program_id(0) // blocks * BLOCK_M, tl.load(count)
    if first >= length:
        return
    slots = first + tl.arange(0, BLOCK_M)
    columns = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    row = tl.load(positions + slots, mask=slots < length, other=0).to(tl.int64)[:, None] * C
    mask = (slots < length)[:, None] & (columns < C)[None, :]
    tl.store(after + row + columns[None, :], tl.load(before + row + columns[None, :], mask=mask), mask=mask)


@triton.jit
def squares_kernel(
    before,  # [P, C]
    after,  # [P, C]
    partial,  # float32 [programs / blocks, C]
    positions,  # int32 list
    count,  # int32 [1], its length
    C: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """By how much sums of squares grow, over BLOCK_M listed positions each."""
    blocks: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C
    tile, length = tl.program_id(0) // blocks, tl.load(count)
    slots = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    row = tl.load(positions + slots, mask=slots < length, other=0).to(tl.int64)[:, None] * C
    mask = (slots < length)[:, None] & (columns < C)[None, :]
    old = tl.load(before + row + columns[None, :], mask=mask, other=0.0).to(tl.float32)
    new = tl.load(after + row + columns[None, :], mask=mask, other=0.0).to(tl.float32)
    total = tl.sum((new - old) * (new + old), 0)
    tl.store(partial + tile.to(tl.int64) * C + columns, total, mask=columns < C)


@triton.jit(do_not_specialize=["height", "width", "size"])
def logits_kernel(
    products,  # float32 [9, P]; zero at padding
    active,  # uint8 [P]
    logits,  # float32 [P]
    size,  # P
    height,
    width,
    BLOCK: tl.constexpr,
):
    """The local convolution of a halting branch from its products where active, 0 elsewhere."""
    position = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    on_map = position < size
    here = on_map & (tl.load(active + position, mask=on_map, other=0) != 0)
    x, y = position % width, position // width % height
    local = sum_of_taps(products, position, here, x, y, height, width, size, BLOCK)
    tl.store(logits + position, local, mask=on_map)


@triton.jit(do_not_specialize=["height", "width"])
def local_gradient_kernel(
    grad_logits,  # float32 [P]
    active,  # uint8 [P]
    state,  # [P, C]
    taps,  # float32 [9, C]
    grad_state,  # [P, C], updated; or None
    partial_taps,  # float32 [SPLITS, 16, C], or None
    partial_bias,  # float32 [SPLITS, 16]
    positions,  # int32 list: what the branch read
    count,  # int32 [1], its length
    height,
    width,
    SPLITS: tl.constexpr,
    C: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Gradients of taps_kernel and logits_kernel: a program has BLOCK_C channels of a stretch of the list."""
    blocks: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C
    split, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    columns, tap = block * BLOCK_C + tl.arange(0, BLOCK_C), tl.arange(0, 16)
    dy, dx = (tap // 3 - 1)[None, :], (tap % 3 - 1)[None, :]
    length = tl.load(count)
    stretch = tl.cdiv(tl.cdiv(length, SPLITS), BLOCK_M) * BLOCK_M
    of_taps, of_bias = tl.zeros((16, BLOCK_C), tl.float32), tl.zeros((16,), tl.float32)
    kept = (tap < 9)[:, None] & (columns < C)[None, :]
    weights = tl.load(taps + tap[:, None] * C + columns[None, :], mask=kept, other=0.0)
    for start in range(split * stretch, tl.minimum((split + 1) * stretch, length), BLOCK_M):
        slots = start + tl.arange(0, BLOCK_M)
        position = tl.load(positions + slots, mask=slots < length, other=0)
        y, x = (position // width % height)[:, None] - dy, (position % width)[:, None] - dx
        inside = (slots < length)[:, None] & (tap < 9)[None, :]
        inside = inside & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        reader = position[:, None] - dy * width - dx
        inside = inside & (tl.load(active + reader, mask=inside, other=0) != 0)
        gradient = tl.load(grad_logits + reader, mask=inside, other=0.0)
        place = position.to(tl.int64)[:, None] * C + columns[None, :]
        mask = (slots < length)[:, None] & (columns < C)[None, :]
        if grad_state is not None:
            total = tl.load(grad_state + place, mask=mask, other=0.0).to(tl.float32)
            total = tl.dot(gradient, weights, total, input_precision="tf32x3")
            tl.store(grad_state + place, total.to(grad_state.dtype.element_ty), mask=mask)
        if partial_taps is not None:
            rows = tl.load(state + place, mask=mask, other=0.0).to(tl.float32)
            of_taps = tl.dot(tl.trans(gradient), rows, of_taps, input_precision="tf32x3")
        of_bias += tl.sum(gradient, 0)
    if partial_taps is not None:
        tl.store(partial_taps + (split * 16 + tap)[:, None].to(tl.int64) * C + columns[None, :], of_taps, mask=kept)
    if block == 0:
        tl.store(partial_bias + split * 16 + tap, of_bias)
