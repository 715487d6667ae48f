"""Where a unit is evaluated in training, as the kernels read it (training.h)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sact_det.execution.cpu.calls import SitesStruct, kernels
from sact_det.execution.cpu.memory import address, addresses, empty


@dataclass(frozen=True, eq=False)
class Sites:
    """The positions at which a unit is evaluated.

    Attributes:
        struct: the kernels' structure, with the addresses of the other attributes.
        reads: int64, the positions at input resolution that the unit reads.
        read_rows: int32 [input positions], where a position stands in `reads`; -1 where it does not.
        writes, write_rows: likewise at output resolution, where the unit is evaluated.
    """

    struct: SitesStruct
    reads: Tensor
    read_rows: Tensor
    writes: Tensor
    write_rows: Tensor


def make_sites(size_in: tuple[int, int], exists: Tensor, reads: Tensor, writes: Tensor) -> Sites:
    """Sites of two lists of positions.

    Args:
        size_in: (height, width) of the input.
        exists: bool [N, H, W] at output resolution.
        reads, writes: int64; `writes` ascends.
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
        num_reads=len(reads),
        num_writes=len(writes),
        **addresses(torch.int64, reads=reads, writes=writes),
        **addresses(torch.int32, read_rows=read_rows, write_rows=write_rows),
    )
    return Sites(struct, reads, read_rows, writes, write_rows)


def _tabulate(positions: Tensor, number: int) -> Tensor:
    table = empty(number, dtype=torch.int32)
    kernels().tabulate(address(positions, torch.int64), len(positions), address(table, torch.int32), number)
    return table
