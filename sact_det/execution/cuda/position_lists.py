"""Lists of the positions at which a unit reads and writes, made and kept on the device.

Shape shorthand in this module:
    N: images; H, W: feature map, padding included; P = N * H * W.
"""

from typing import Optional

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_BLOCK = 512


@triton.jit
def _load_masks(
    active,
    exists,
    tile,
    tiles_per_image,
    height,
    width,
    stride_n,
    stride_y,
    stride_x,
    BLOCK: tl.constexpr,
):
    """For a tile of one image: positions, which of them are active, and which lie in the 3x3 dilation."""
    image = tile // tiles_per_image
    within = (tile % tiles_per_image) * BLOCK + tl.arange(0, BLOCK)
    y, x = within // width, within % width
    positions = image * height * width + within
    real = within < height * width
    if exists is not None:
        real = real & (tl.load(exists + positions, mask=real, other=0) != 0)
    plane = active + image.to(tl.int64) * stride_n
    here = real & (tl.load(plane + y * stride_y + x * stride_x, mask=real, other=0) != 0)
    near = here
    for tap in tl.static_range(9):
        if tap != 4:
            ny, nx = y + (tap // 3 - 1), x + (tap % 3 - 1)
            inside = real & (ny >= 0) & (ny < height) & (nx >= 0) & (nx < width)
            beside = tl.load(plane + ny * stride_y + nx * stride_x, mask=inside, other=0) != 0
            if exists is not None:
                neighbour = image * height * width + ny * width + nx
                beside = beside & (tl.load(exists + neighbour, mask=inside, other=0) != 0)
            near = near | beside
    return positions, here.to(tl.int32), near.to(tl.int32)


@triton.jit(do_not_specialize=["height", "width", "tiles_per_image", "tiles"])
def count_kernel(
    active,
    exists,
    tile_counts,
    height,
    width,
    tiles_per_image,
    tiles,
    stride_n,
    stride_y,
    stride_x,
    BLOCK: tl.constexpr,
):
    """tile_counts [2, tiles]: active and dilated positions of every tile."""
    tile = tl.program_id(0)
    _, here, near = _load_masks(
        active, exists, tile, tiles_per_image, height, width, stride_n, stride_y, stride_x, BLOCK
    )
    tl.store(tile_counts + tile, tl.sum(here, 0))
    tl.store(tile_counts + tiles + tile, tl.sum(near, 0))


@triton.jit(do_not_specialize=["height", "width", "tiles_per_image", "tiles"])
def list_kernel(
    active,
    exists,
    tile_counts,
    writes,
    reads,
    offsets,
    num_reads,
    height,
    width,
    tiles_per_image,
    tiles,
    stride_n,
    stride_y,
    stride_x,
    BLOCK: tl.constexpr,
    BLOCK_TILES: tl.constexpr,
):
    """Both lists, ascending, and where every image begins in `writes`."""
    tile = tl.program_id(0)
    first_write, first_read = 0, 0
    for start in range(0, tile, BLOCK_TILES):
        before = start + tl.arange(0, BLOCK_TILES)
        first_write += tl.sum(tl.load(tile_counts + before, mask=before < tile, other=0), 0)
        first_read += tl.sum(tl.load(tile_counts + tiles + before, mask=before < tile, other=0), 0)
    positions, here, near = _load_masks(
        active, exists, tile, tiles_per_image, height, width, stride_n, stride_y, stride_x, BLOCK
    )
    tl.store(writes + first_write + tl.cumsum(here, 0) - here, positions, mask=here != 0)
    tl.store(reads + first_read + tl.cumsum(near, 0) - near, positions, mask=near != 0)
    if tile % tiles_per_image == 0:
        tl.store(offsets + tile // tiles_per_image, first_write)
    if tile == tiles - 1:
        tl.store(offsets + tiles // tiles_per_image, first_write + tl.sum(here, 0))
        tl.store(num_reads, first_read + tl.sum(near, 0))


class PositionLists:
    """The active positions of a batch, and those that 3x3 convolutions read around them.

    Args:
        exists: bool [N, H, W], False at padding, or None.
        shape: (N, H, W), none of them 0.
        device: of the lists.

    Attributes:
        mask: uint8 [N, H, W], not 0 where active; its strides may be 0.
        exists: likewise, contiguous, or None.
        writes: int32 [P], the active positions, ascending; the first `num_writes` entries count.
        reads: int32 [P], likewise the active positions dilated 3x3, without what lies in padding or beyond the map.
        offsets: int32 [N + 1], where every image begins in `writes`; the last one is `num_writes`.
        num_writes, num_reads: int32 [1], on the device.
    """

    def __init__(self, exists: Optional[Tensor], shape: tuple[int, int, int], device: torch.device):
        number, height, width = self._shape = shape
        self.exists = None if exists is None else exists.contiguous().view(torch.uint8)
        size = number * height * width
        self.writes, self.reads = torch.empty(2, size, dtype=torch.int32, device=device)
        self.offsets = torch.empty(number + 1, dtype=torch.int32, device=device)
        self.num_writes = self.offsets[-1:]
        self.num_reads = torch.empty(1, dtype=torch.int32, device=device)
        self._block = min(MAX_BLOCK, max(16, triton.next_power_of_2(height * width)))
        self._tiles_per_image = triton.cdiv(height * width, self._block)
        self._tile_counts = torch.empty(2, number * self._tiles_per_image, dtype=torch.int32, device=device)
        self._everywhere = torch.ones(1, 1, 1, dtype=torch.bool, device=device)
        self.mask = self._everywhere.view(torch.uint8).expand(shape)

    def fill(self, active: Optional[Tensor] = None) -> None:
        """Lists what is active: bool [N, H or 1, W or 1], or None for every position there is."""
        active = self._everywhere if active is None else active
        mask = self.mask = active.view(torch.uint8).expand(self._shape)
        tiles = self._tile_counts.shape[1]
        sizes = (*self._shape[1:], self._tiles_per_image, tiles)
        count_kernel[(tiles,)](mask, self.exists, self._tile_counts, *sizes, *mask.stride(), BLOCK=self._block)
        list_kernel[(tiles,)](
            mask,
            self.exists,
            self._tile_counts,
            self.writes,
            self.reads,
            self.offsets,
            self.num_reads,
            *sizes,
            *mask.stride(),
            BLOCK=self._block,
            BLOCK_TILES=MAX_BLOCK,
        )
