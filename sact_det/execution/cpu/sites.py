"""Where a unit is evaluated in training, as the kernels want to know it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sact_det.execution.cpu.calls import SitesStruct, kernels
from sact_det.execution.cpu.memory import address, empty


@dataclass(frozen=True, eq=False)
class Sites:
    """Where a unit is evaluated; see training.h.

    Attributes:
        struct: with the addresses of the others.
        reads, read_rows, writes, write_rows: int64 lists and int32 tables.
    """

    struct: SitesStruct
    reads: Tensor
    read_rows: Tensor
    writes: Tensor
    write_rows: Tensor


def make_sites(size_in: tuple[int, int], exists: Tensor, reads: Tensor, writes: Tensor) -> Sites:
    """Sites of sorted lists of positions.

    Args:
        size_in: (H, W) of the input.
        exists: bool [N, H, W] at output resolution.
        reads, writes: int64.
    """
    number, height, width = exists.shape
    read_rows = _tabulate(reads, number * size_in[0] * size_in[1])
    write_rows = read_rows if writes is reads else _tabulate(writes, number * height * width)
    struct = SitesStruct(
        images=number,
        in_height=size_in[0],
        in_width=size_in[1],
        out_height=height,
        out_width=width,
        reads=address(reads, torch.int64),
        num_reads=len(reads),
        read_rows=address(read_rows, torch.int32),
        writes=address(writes, torch.int64),
        num_writes=len(writes),
        write_rows=address(write_rows, torch.int32),
    )
    return Sites(struct, reads, read_rows, writes, write_rows)


def _tabulate(positions: Tensor, number: int) -> Tensor:
    table = empty(number, dtype=torch.int32)
    kernels().tabulate(address(positions, torch.int64), len(positions), address(table, torch.int32), number)
    return table
