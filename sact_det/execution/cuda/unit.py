"""A unit's three products at lists of positions, launched; for runs in inference and in training.

Shape shorthand in this module:
    N: images; C: channels; H, W: feature map, padding included; P = N * H * W; w: bottleneck width.
"""

import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, Callable, NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from sact_det.base.precision import convolution_precision
from sact_det.execution.folded import FoldedUnit

if TYPE_CHECKING:  # Triton may be missing
    from sact_det.execution.cuda.position_lists import PositionLists

RECTIFIED_BLOCK = (32, 64)  # rows and columns of a program that rectifies


class Residual(NamedTuple):
    """What a unit's residual is added to beside the state; memory of sums_size for its sums over tiles.

    Attributes:
        output: float32 [P, C], updated.
        remaining: float32 [N, H, W], the open share of each position.
        partial_sums, tile_rows: as of conv3_kernel, written.
    """

    output: Tensor
    remaining: Tensor
    partial_sums: Tensor
    tile_rows: Tensor


class Workspace(NamedTuple):
    """Where parts of a product wait for each other (products.py); kernels that run one after the other share it.

    Attributes:
        products: float32, a tile for each program with which the card is full.
        arrived: int32, zero between two kernels.
        multiprocessors: of the card.
    """

    products: Tensor
    arrived: Tensor
    multiprocessors: int


def new_workspace(device: torch.device) -> Workspace:
    """Memory for the products of one run; some megabytes."""
    from sact_det.execution.cuda import tiles  # late: Triton may be missing

    number = _multiprocessors(device)
    products = torch.empty(2 * number * tiles.LARGEST_OF_TWO, dtype=torch.float32, device=device)
    return Workspace(products, torch.zeros(2 * number, dtype=torch.int32, device=device), number)


@lru_cache(maxsize=None)
def _multiprocessors(device: torch.device) -> int:
    """Of a card; interpreted, few enough for short lists to be cut in more than one way."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 3


def sums_size(positions: int, images: int) -> int:
    """Rows of Residual.partial_sums for so many positions, P, of so many images."""
    from sact_det.execution.cuda import tiles  # late: Triton may be missing

    return -(-positions // tiles.MIN_ROWS) + images - 1


def product_precision(dtype: torch.dtype) -> str:
    """How kernels multiply factors of dtype: float32 as PyTorch's convolutions do."""
    return convolution_precision() if dtype == torch.float32 else "ieee"


def bucket_of(positions: int, device: torch.device) -> int:
    """A number that maps of about one size have in common on cards of one name: they share their tiles."""
    return positions.bit_length() + 64 * _card_number(device)


@lru_cache(maxsize=None)
def _card_number(device: torch.device) -> int:
    """Of the card's name, 20 bits; 0 for a CPU. Triton tells cards apart by their compute capability only."""
    return zlib.crc32(torch.cuda.get_device_name(device).encode()) >> 12 if device.type == "cuda" else 0


def grid_over(rows: int, multiprocessors: int = 0) -> Callable[[dict[str, int]], tuple[int]]:
    """The programs of a product of so many rows at most: one a tile, and, if tiles can be cut, what fills the card."""

    def grid(constants: dict[str, int]) -> tuple[int]:
        tiles = -(-rows // constants["BLOCK_M"]) * -(-constants["COLUMNS"] // constants["BLOCK_N"])
        return (max(tiles, 2 * multiprocessors),)

    return grid


def launch_unit(
    unit: FoldedUnit,
    lists: "PositionLists",
    state: Tensor,
    inner: Tensor,
    middle: Tensor,
    residual: Optional[Residual],
    workspace: Workspace,
) -> None:
    """Evaluates a unit with an identity shortcut at the listed positions.

    Args:
        unit: its matrices in the type of the products.
        lists: where it is evaluated.
        state: [P, C], updated.
        inner: [P, w], of the type of the products, zero at padding; written where conv2 reads.
        middle: [P, w], likewise, a row per position written.
        residual: None: the state alone is updated.
        workspace: of the run.
    """
    from sact_det.execution.cuda import tiles, unit_kernels  # late: Triton may be missing

    (size, channels), width = state.shape, inner.shape[1]
    height, map_width = lists.sizes[:2]
    bucket, grid = bucket_of(size, state.device), grid_over(size, workspace.multiprocessors)
    constants = {
        "PRECISION": product_precision(inner.dtype),
        "BLOCK_K": tiles.block_depth(unit.conv1.element_size()),
    }
    unit_kernels.conv1_kernel[grid](
        *(state, unit.scale, unit.shift, unit.conv1, unit.bias1, inner),
        *(lists.reads, lists.num_reads, *workspace, bucket),
        **{"DEPTH": channels, "COLUMNS": width, **constants},
    )
    unit_kernels.conv2_kernel[grid](
        *(inner, unit.conv2, unit.bias2, middle),
        *(lists.writes, lists.num_writes, *workspace, bucket, height, map_width),
        **{"DEPTH": width, "COLUMNS": width, **constants},
    )
    _launch_residual(unit, lists, state, middle, residual, at_positions=False)


def launch_dense_unit(unit: FoldedUnit, lists: "PositionLists", state: Tensor, residual: Optional[Residual]) -> None:
    """As launch_unit, but PyTorch convolves everywhere in the places of conv1 and conv2: for nearly all positions."""
    from sact_det.execution.cuda import unit_kernels  # late: Triton may be missing

    (size, channels), width = state.shape, len(unit.conv1)
    height, map_width = lists.sizes[:2]

    def rectify(rows: Tensor, scale: Optional[Tensor], shift: Tensor, exists: Optional[Tensor], to: Tensor) -> Tensor:
        block_m, block_c = RECTIFIED_BLOCK
        grid = (-(-size // block_m) * -(-rows.shape[1] // block_c),)
        blocks = {"C": rows.shape[1], "BLOCK_M": block_m, "BLOCK_C": block_c}
        unit_kernels.rectify_kernel[grid](rows, scale, shift, exists, to, size, **blocks)
        return to

    def convolve(rows: Tensor, weight: Tensor, padding: int) -> Tensor:
        x = rows.view(-1, height, map_width, rows.shape[1]).permute(0, 3, 1, 2)
        return F.conv2d(x, weight, padding=padding).permute(0, 2, 3, 1).reshape(size, -1)

    read = torch.empty(size, channels, dtype=unit.conv1.dtype, device=state.device)
    inner = convolve(rectify(state, unit.scale, unit.shift, None, read), unit.conv1[:, :, None, None], 0)
    kernel = unit.conv2.view(width, 3, 3, width).permute(0, 3, 1, 2)
    middle = convolve(rectify(inner, None, unit.bias1, lists.exists, inner), kernel, 1)
    rectify(middle, None, unit.bias2, None, middle)
    _launch_residual(unit, lists, state, middle, residual, at_positions=True)


def _launch_residual(
    unit: FoldedUnit,
    lists: "PositionLists",
    state: Tensor,
    middle: Tensor,
    residual: Optional[Residual],
    at_positions: bool,
) -> None:
    """conv3, and what its result is added to."""
    from sact_det.execution.cuda import tiles, unit_kernels  # late: Triton may be missing

    (size, channels), width = state.shape, middle.shape[1]
    height, map_width = lists.sizes[:2]
    unit_kernels.conv3_kernel[grid_over(size)](
        *(middle, unit.conv3, unit.bias3, state),
        *((state,) * 4 if residual is None else residual),  # without one the state stands for what is not used
        *(lists.writes, lists.num_writes, bucket_of(size, state.device), height * map_width),
        **{"ADAPTIVE": residual is not None, "AT_POSITIONS": at_positions, "DEPTH": width, "COLUMNS": channels},
        **{"PRECISION": product_precision(middle.dtype), "BLOCK_K": tiles.block_depth(middle.element_size())},
    )
