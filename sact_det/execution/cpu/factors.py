"""Weights packed anew for each pass of a unit in training, where they change all the time (factors.h)."""

from typing import Optional

from torch import Tensor

from sact_det.execution.cpu.buffers import Buffers
from sact_det.execution.cpu.calls import Factor, Factors, whole_vectors
from sact_det.execution.cpu.memory import address


class PassBuffers(Buffers):
    """Buffers of one pass, and the weights that its kernel is to pack into some of them."""

    def __init__(self) -> None:
        super().__init__()
        self._factors: list[Factor] = []
        self._sources: list[Tensor] = []

    def pack(self, name: str, conv: Tensor, scale: Optional[Tensor] = None, transposed: bool = False) -> int:
        """Has the kernel pack a convolution's weight [K, C, k, k], times scale [K]; returns the address of the result.

        Columns are the output channels, or, transposed, the input channels.
        """
        conv = conv.resolve_neg()
        step_out, step_in, step_row, step_tap = conv.stride()
        if conv.shape[2] > 1 and step_row != conv.shape[3] * step_tap:
            conv = conv.contiguous()
            step_out, step_in, step_row, step_tap = conv.stride()
        channels_out, channels_in = conv.shape[:2]
        taps = conv.shape[2] * conv.shape[3]
        columns, depth = (channels_in, channels_out) if transposed else (channels_out, channels_in)
        steps = (step_in, step_tap, step_out) if transposed else (step_out, step_tap, step_in)
        factors = (None, address(scale)) if transposed else (address(scale), None)
        target = self.room(name, taps * depth * whole_vectors(columns))
        self._factors.append(Factor(target, address(conv, strided=True), columns, taps, depth, *steps, *factors))
        self._sources.append(conv)
        return target

    def factors(self) -> Factors:
        """What the kernel has to pack."""
        return Factors((Factor * len(self._factors))(*self._factors), len(self._factors))
