"""The kernels for training (forward.cpp, backward.cpp), as functions of ctypes structures; and their weights."""

import ctypes
import functools
from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

from sact_det.perforated.cpu import library
from sact_det.perforated.cpu.workspace import workspace


def _addresses(*names: str) -> list[tuple[str, type]]:
    return [(name, ctypes.c_void_p) for name in names]


class TrainedUnit(ctypes.Structure):
    """struct TrainedUnit of training.h."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("in_channels", "width", "out_channels", "stride", "dilation", "projects")
        ),
        *_addresses("scale", "shift", "bias1", "bias2", "bias3", "scale1", "scale2"),
        *_addresses("conv1", "conv2", "conv3", "back1", "back2", "back3", "shortcut"),
    ]


class SitesStruct(ctypes.Structure):
    """struct Sites of training.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("images", "in_height", "in_width", "out_height", "out_width")),
        ("reads", ctypes.c_void_p),
        ("num_reads", ctypes.c_int64),
        *_addresses("read_rows", "writes"),
        ("num_writes", ctypes.c_int64),
        ("write_rows", ctypes.c_void_p),
    ]


class Factor(ctypes.Structure):
    """struct Factor of factors.h."""

    _fields_ = [
        *_addresses("to", "source"),
        *((name, ctypes.c_int64) for name in ("columns", "outer", "inner", "step", "outer_step", "inner_step")),
        *_addresses("by_column", "by_inner"),
    ]


class Factors(ctypes.Structure):
    """struct Factors of factors.h."""

    _fields_ = [("factors", ctypes.POINTER(Factor)), ("count", ctypes.c_int64)]


class ForwardPass(ctypes.Structure):
    """struct ForwardPass of forward.cpp."""

    _fields_ = _addresses(
        *("x", "x_rows", "inner", "middle", "state", "output", "remaining", "sums", "squares", "scratch")
    )


class BackwardPass(ctypes.Structure):
    """struct BackwardPass of backward.cpp."""

    _fields_ = [
        *_addresses("x", "x_rows", "inner", "middle", "state", "remaining", "grad_state", "grad_output", "grad_sums"),
        *_addresses("grad_x"),
        ("adds", ctypes.c_int64),
        *_addresses("grad_remaining", "grad_conv1", "grad_conv2", "grad_conv3", "grad_shortcut"),
        *_addresses("turned_conv3", "turned_shortcut", "grad_inner", "grad_middle", "taps", "scratch"),
    ]


class LocalScoring(ctypes.Structure):
    """struct LocalScoring of backward.cpp."""

    _fields_ = [
        ("channels", ctypes.c_int64),
        *_addresses("taps", "packed", "bias", "rows", "products", "logits", "grad_rows", "grad_taps", "scratch"),
    ]


_POINTER, _INT64, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
_SIGNATURES = {
    "forward_scratch_size": (_INT64, [ctypes.POINTER(TrainedUnit)]),
    "backward_scratch_size": (_INT64, [ctypes.POINTER(TrainedUnit)]),
    "local_scratch_size": (_INT64, []),
    "tabulate": (None, [_POINTER, _INT64, _POINTER, _INT64]),
    "train_forward": (None, [*map(ctypes.POINTER, (TrainedUnit, SitesStruct, ForwardPass, Factors)), _INT]),
    "train_backward": (None, [*map(ctypes.POINTER, (TrainedUnit, SitesStruct, BackwardPass, Factors)), _INT]),
    "local_forward": (None, [*map(ctypes.POINTER, (LocalScoring, SitesStruct, Factors)), _INT]),
    "local_backward": (None, [*map(ctypes.POINTER, (LocalScoring, SitesStruct)), _INT]),
}


@functools.lru_cache(maxsize=None)
def kernels() -> ctypes.CDLL:
    """The library, with the types of these functions."""
    loaded = library.load_library()
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


def address(tensor: Optional[Tensor]) -> Optional[int]:
    """Of its data, or None."""
    return None if tensor is None else tensor.data_ptr()


@functools.lru_cache(maxsize=None)
def whole_vectors(columns: int) -> int:
    """See gemm.h."""
    lanes = kernels().lanes()
    return -(-columns // lanes) * lanes


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
        reads=reads.data_ptr(),
        num_reads=len(reads),
        read_rows=read_rows.data_ptr(),
        writes=writes.data_ptr(),
        num_writes=len(writes),
        write_rows=write_rows.data_ptr(),
    )
    return Sites(struct, reads, read_rows, writes, write_rows)


def _tabulate(positions: Tensor, number: int) -> Tensor:
    table = torch.empty(number, dtype=torch.int32)
    kernels().tabulate(positions.data_ptr(), len(positions), table.data_ptr(), number)
    return table


class Borrowed:
    """Memory that is used again and again, for the time of a `with`; room for packed weights among it."""

    def __init__(self) -> None:
        self._taken: dict[str, Tensor] = {}
        self._factors: list[Factor] = []
        self._sources: list[Tensor] = []

    def __enter__(self) -> "Borrowed":
        return self

    def __exit__(self, *_: object) -> None:
        for name, tensor in self._taken.items():
            workspace.give_back(name, tensor)

    def take(self, name: str, *shape: int) -> Tensor:
        """See Workspace.take; each name once."""
        self._taken[name] = workspace.take(name, *shape)
        return self._taken[name]

    def room(self, name: str, size: int) -> int:
        """The address of so many floats; each name once."""
        self._taken[name] = workspace.take_flat(name, size)
        return self._taken[name].data_ptr()

    def pack(self, name: str, conv: Tensor, scale: Optional[Tensor] = None, transposed: bool = False) -> int:
        """Has a kernel pack a convolution's weight [K, C, k, k], times scale [K]; returns the address of the result.

        Columns are the output channels, or, transposed, the input channels.
        """
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
        self._factors.append(Factor(target, conv.data_ptr(), columns, taps, depth, *steps, *factors))
        self._sources.append(conv)
        return target

    def factors(self) -> Factors:
        """What a kernel has to pack."""
        return Factors((Factor * len(self._factors))(*self._factors), len(self._factors))
