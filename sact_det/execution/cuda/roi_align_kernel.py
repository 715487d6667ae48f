"""RoIAlign from rows to rows: a Triton kernel for NVIDIA GPUs.

Shape shorthand in this module:
    N: images; H, W: feature map; C: channels; R: regions.
"""

import triton
import triton.language as tl


@triton.jit
def _sample(x, image, y, x_, channels, height, width, C: tl.constexpr):
    """Bilinear interpolation of a map [N, H, W, C] at a point: float32 [channels]; zero beyond the map."""
    inside = (y >= -1.0) & (y <= height) & (x_ >= -1.0) & (x_ <= width)
    y, x_ = tl.minimum(tl.maximum(y, 0.0), height), tl.minimum(tl.maximum(x_, 0.0), width)
    top, left = tl.minimum(y.to(tl.int32), height - 1), tl.minimum(x_.to(tl.int32), width - 1)
    bottom, right = tl.minimum(top + 1, height - 1), tl.minimum(left + 1, width - 1)
    down = tl.where(top >= height - 1, 0.0, y - top)
    across = tl.where(left >= width - 1, 0.0, x_ - left)
    mask = channels < tl.where(inside, C, 0)
    row = image.to(tl.int64) * height
    upper, lower = (row + top) * width, (row + bottom) * width
    a = tl.load(x + (upper + left) * C + channels, mask=mask, other=0.0).to(tl.float32)
    b = tl.load(x + (upper + right) * C + channels, mask=mask, other=0.0).to(tl.float32)
    c = tl.load(x + (lower + left) * C + channels, mask=mask, other=0.0).to(tl.float32)
    d = tl.load(x + (lower + right) * C + channels, mask=mask, other=0.0).to(tl.float32)
    return (1 - down) * ((1 - across) * a + across * b) + down * ((1 - across) * c + across * d)


@triton.jit(do_not_specialize=["height", "width"])
def roi_align_kernel(
    x,  # [N, H, W, C]
    boxes,  # float32 [R, 5]: image, x0, y0, x1, y1
    pooled,  # [R, OUT_H, OUT_W, C]
    height,
    width,
    region_scale,  # from the coordinates of boxes to positions
    RATIO: tl.constexpr,  # samples of a bin along an axis; 0: as many as it spans positions
    ALIGNED: tl.constexpr,
    BINS_H: tl.constexpr,
    BINS_W: tl.constexpr,
    OUT_H: tl.constexpr,
    OUT_W: tl.constexpr,
    STEP: tl.constexpr,  # of the bins along an axis every STEP-th is pooled, from the first one on
    SIDE: tl.constexpr,  # the output is the maximum of SIDE x SIDE bins
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """A bin of a region, or the maximum of several, for BLOCK_C channels."""
    blocks: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C
    program, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    region, out_y, out_x = program // (OUT_H * OUT_W), program // OUT_W % OUT_H, program % OUT_W
    channels = block * BLOCK_C + tl.arange(0, BLOCK_C)
    box = boxes + region * 5
    image = tl.load(box).to(tl.int32)
    offset = 0.5 if ALIGNED else 0.0
    x0, y0 = tl.load(box + 1) * region_scale - offset, tl.load(box + 2) * region_scale - offset
    roi_w, roi_h = tl.load(box + 3) * region_scale - offset - x0, tl.load(box + 4) * region_scale - offset - y0
    if not ALIGNED:
        roi_w, roi_h = tl.maximum(roi_w, 1.0), tl.maximum(roi_h, 1.0)
    bin_w, bin_h = roi_w / BINS_W, roi_h / BINS_H
    if RATIO > 0:
        grid_w, grid_h = RATIO, RATIO
    else:
        grid_w, grid_h = tl.ceil(bin_w).to(tl.int32), tl.ceil(bin_h).to(tl.int32)
    count = tl.maximum(grid_w * grid_h, 1)
    best = tl.full((BLOCK_C,), float("-inf"), tl.float32)
    for part in range(0, SIDE * SIDE):
        bin_y, bin_x = out_y * STEP + part // SIDE, out_x * STEP + part % SIDE
        total = tl.zeros((BLOCK_C,), tl.float32)
        for sample in range(0, grid_w * grid_h):
            y = y0 + bin_y * bin_h + (sample // grid_w + 0.5) * bin_h / grid_h
            x_ = x0 + bin_x * bin_w + (sample % grid_w + 0.5) * bin_w / grid_w
            total += _sample(x, image, y, x_, channels, height, width, C)
        best = tl.maximum(best, total / count, propagate_nan=tl.PropagateNan.ALL)
    tl.store(pooled + program.to(tl.int64) * C + channels, best.to(pooled.dtype.element_ty), mask=channels < C)
