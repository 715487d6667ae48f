"""Lists of the positions at which a unit reads and writes, made and kept on the device.

Shape shorthand in this module:
    N: images; H, W: feature map, padding included; P = N * H * W.
"""

from typing import Optional

import torch
import triton
import triton.language as tl
from torch import Tensor

MIN_BLOCK, MAX_BLOCK = 128, 512  # positions of a tile
MANY_TILES = 256  # with which any GPU is busy


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

    A map is cut into tiles of one image each. Tiles are counted first; then each one adds up the counts before its own.

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
        block: positions of a tile.
        tiles: of all images.
    """

    def __init__(self, exists: Optional[Tensor], shape: tuple[int, int, int], device: torch.device):
        number, height, width = self._shape = shape
        self.exists = None if exists is None else exists.contiguous().view(torch.uint8)
        size = number * height * width
        self.writes, self.reads = torch.empty(2, size, dtype=torch.int32, device=device)
        self.offsets = torch.empty(number + 1, dtype=torch.int32, device=device)
        self.num_writes = self.offsets[-1:]
        self.num_reads = torch.empty(1, dtype=torch.int32, device=device)
        self.block = tile_size(number, height * width)
        tiles_per_image = triton.cdiv(height * width, self.block)
        self.tiles = number * tiles_per_image
        self.sizes = (height, width, tiles_per_image, self.tiles)
        self._everywhere = torch.ones(1, 1, 1, dtype=torch.bool, device=device)
        self.mask = self._everywhere.view(torch.uint8).expand(shape)

    def new_counts(self, *shape: int) -> Tensor:
        """Memory for counts of tiles, int32 [*shape, 2, tiles]: of active positions, and of those in their dilation."""
        return torch.empty(*shape, 2, self.tiles, dtype=torch.int32, device=self.writes.device)

    def fill(self, active: Optional[Tensor] = None, tile_counts: Optional[Tensor] = None) -> None:
        """Lists what is active.

        Args:
            active: bool [N, H or 1, W or 1], or None for every position there is.
            tile_counts: int32 [2, tiles], takes the counts; None: nobody wants them.
        """
        mask = (self._everywhere if active is None else active).view(torch.uint8).expand(self._shape)
        tile_counts = self.new_counts() if tile_counts is None else tile_counts
        count_kernel[(self.tiles,)](mask, self.exists, tile_counts, *self.sizes, *mask.stride(), BLOCK=self.block)
        self.fill_counted(mask, tile_counts)

    def fill_counted(self, mask: Tensor, tile_counts: Tensor) -> None:
        """Lists what is active, uint8 [N, H, W], where the tiles have been counted."""
        self.mask = mask
        list_kernel[(self.tiles,)](
            *(mask, self.exists, tile_counts, self.writes, self.reads, self.offsets, self.num_reads),
            *(*self.sizes, *mask.stride()),
            **{"BLOCK": self.block, "BLOCK_TILES": MAX_BLOCK},
        )


def tile_size(number: int, image_size: int) -> int:
    """Positions of a tile, for so many images of so many positions: a power of 2, small where positions are few."""
    wanted = triton.next_power_of_2(triton.cdiv(number * image_size, MANY_TILES))
    return min(max(wanted, MIN_BLOCK), MAX_BLOCK, max(16, triton.next_power_of_2(image_size)))
