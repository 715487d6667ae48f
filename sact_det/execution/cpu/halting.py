"""The halting process of SACT on a CPU: all of a unit's arithmetic in one pass over the positions (halting.cpp)."""

from typing import Optional

import torch
from torch import Tensor
from typing_extensions import override

from sact_det.execution.cpu import calls
from sact_det.execution.cpu.memory import address, addresses, ones, plain, zeros
from sact_det.rule.process import HaltingOutcome, HaltingProcess


class RowsHalting(HaltingProcess):
    """The process of TensorHalting for SACT in float32, without gradients; the bits are the same.

    Args: as of TensorHalting.

    Attributes:
        remainder: R so far, float32 [N, H, W]; where a position goes on, the share of its output that is open.
    """

    def __init__(self, exists: Tensor, num_units: int, eps: float):
        number, height, width = exists.shape
        self._kernels = calls.kernels()
        exists = plain(exists)
        self._active = exists.clone()
        self._distribution = zeros(number, num_units, height, width)
        cumulative, self._ponder_cost = zeros(2, *exists.shape)
        self.remainder = ones(*exists.shape)
        self._units = zeros(*exists.shape, dtype=torch.int64)
        self._counts = zeros(2, number, num_units, dtype=torch.int64)
        self._kept = exists, cumulative
        self._process = calls.Process(
            images=number,
            height=height,
            width=width,
            units=num_units,
            threshold=1.0 - eps,
            **addresses(torch.bool, exists=exists, active=self._active),
            **addresses(cumulative=cumulative, remainder=self.remainder, ponder_cost=self._ponder_cost),
            **addresses(distribution=self._distribution),
            **addresses(torch.int64, num_units=self._units, evaluated=self._counts[0], dilated=self._counts[1]),
        )
        self._unit = 0
        self._left = self._kernels.count_positions(self._process, 0)

    @property
    @override
    def active(self) -> Tensor:
        return self._active

    @override
    def any_active(self) -> bool:
        return self._left > 0

    @override
    def step(self, h: Optional[Tensor]) -> Tensor:
        h = None if h is None else plain(h)
        self._left = self._kernels.halting_step(self._process, self._unit, address(h))
        self._unit += 1
        return self._distribution[:, self._unit - 1]

    @override
    def outcome(self) -> HaltingOutcome:
        return HaltingOutcome(self._ponder_cost, self._units, self._distribution, *self._counts)
