"""A block in inference in one call of the kernels: all of its units, and SACT's halting between them (block.cpp)."""

import ctypes
from typing import Optional

import torch
from torch import Tensor

from sact_det.base.precision import compute_type
from sact_det.execution.cpu import calls
from sact_det.execution.cpu.buffers import Buffers, lend_rows
from sact_det.execution.cpu.memory import address, addresses, empty, plain
from sact_det.execution.cpu.packed import PackedBlock, factor_type, pack_block
from sact_det.execution.packing import WeightCache
from sact_det.network.branch import SpatialHalting
from sact_det.network.halting_rule import SACT, Plain
from sact_det.network.plan import PlannedBlock
from sact_det.rule.padding import Mask, strided_size
from sact_det.rule.process import HaltingOutcome


def goes_in_one_call(block: PlannedBlock) -> bool:
    """Whether evaluate_block knows the rule of a block that a RowsRun could evaluate (run.py)."""
    return type(block.rule) in (Plain, SACT)


def evaluate_block(
    block: PlannedBlock, packed: WeightCache, x: Tensor, valid_in: Mask, valid: Mask, shortcut: Optional[Tensor]
) -> tuple[Tensor, Optional[HaltingOutcome]]:
    """Every bit of what a RowsRun computes unit by unit.

    Args:
        block: that goes in one call, and for which why_not_rows(block, x) is None.
        packed: keeps what is packed from its weights.
        x, valid_in, valid, shortcut: as of Plan.start.

    Returns:
        As of Plan.complete.
    """
    kernels, threads, dtype = calls.kernels(), torch.get_num_threads(), compute_type(x)
    known = packed.renew(block, pack_block, factor_type(dtype))
    first = known.in_order[0]
    number, size = len(x), (x.shape[2], x.shape[3])
    shape = (number, *strided_size(size, first.stride))
    adds_x = shortcut is None and not first.projects
    as_it_is = x.dtype == torch.bfloat16 and bool(first.bfloat16) and not adds_x
    masks = [None if mask is None else plain(mask[:, 0]) for mask in (valid_in, valid)]
    outcome = _room_for_outcome(shape, len(block.units)) if block.rule.adaptive else None
    with Buffers() as buffers:
        rows = buffers.rows("input", x, as_it_is)
        added = rows if adds_x else None if shortcut is None else buffers.rows("shortcut", shortcut)
        if dtype == torch.float32:
            output = lend_rows(*shape, first.out_channels)
        else:  # a copy becomes the result
            output = buffers.take("output", *shape, first.out_channels).permute(0, 3, 1, 2)
        passage = calls.Passage(
            images=number,
            in_height=size[0],
            in_width=size[1],
            out_height=shape[1],
            out_width=shape[2],
            x=address(rows, rows.dtype),
            x_bfloat16=as_it_is,
            shortcut=address(added),
            output=address(output, strided=True),
            **addresses(torch.bool, exists_in=masks[0], exists=masks[1]),
            **({} if outcome is None else _addresses_of(outcome)),
        )
        structure = _structure(block, known)
        passage.room = buffers.room("block", -(-kernels.block_room(structure, passage, threads) // 4))
        kernels.evaluate_block(structure, passage, threads)
        return output.to(dtype), outcome


def _room_for_outcome(shape: tuple[int, ...], num_units: int) -> HaltingOutcome:
    number, *size = shape
    distribution, counts = empty(number, num_units, *size), empty(2, number, num_units, dtype=torch.int64)
    return HaltingOutcome(empty(*shape), empty(*shape, dtype=torch.int64), distribution, *counts)


def _addresses_of(outcome: HaltingOutcome) -> dict[str, Optional[int]]:
    return {
        **addresses(ponder_cost=outcome.ponder_cost, distribution=outcome.distribution),
        **addresses(torch.int64, num_units=outcome.num_units, evaluated=outcome.evaluated, dilated=outcome.dilated),
    }


def _structure(block: PlannedBlock, packed: PackedBlock) -> calls.Block:
    count = len(block.units)
    if not block.rule.adaptive:
        return calls.Block(packed.in_order, count)
    branches = (unit.halting for unit in block.units)
    added = [packed.added(branch) if isinstance(branch, SpatialHalting) else 0.0 for branch in branches]
    return calls.Block(
        packed.in_order, count, packed.branches_in_order, (count * ctypes.c_double)(*added), 1.0 - block.eps
    )
