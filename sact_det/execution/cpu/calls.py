"""The functions of the compiled library and the structures that they take, declared for ctypes.

A structure has the fields of its C++ namesake, in the same order.
"""

import ctypes
import functools
from typing import Optional

from sact_det.execution.cpu import library


def _integers(*names: str) -> list[tuple[str, type]]:
    return [(name, ctypes.c_int64) for name in names]


def _addresses(*names: str) -> list[tuple[str, type]]:
    return [(name, ctypes.c_void_p) for name in names]


class Unit(ctypes.Structure):
    """struct Unit of unit.h."""

    _fields_ = [
        *_integers("in_channels", "width", "out_channels", "stride", "dilation"),
        *_addresses("scale", "shift", "scale1", "bias1", "scale2", "bias2", "bias3", "conv1", "conv2", "conv3"),
        *_integers("projects", "bfloat16"),
    ]

    @property
    def inner_size(self) -> int:
        """Floats that a row of conv1's output takes in memory: whole vectors of elements."""
        return whole_vectors(self.width) // (2 if self.bfloat16 else 1)


class Halting(ctypes.Structure):
    """struct Halting of taps.h."""

    _fields_ = [
        *_integers("channels"),
        *_addresses("taps", "bias", "mean_weights"),
        ("constant", ctypes.c_float),
    ]

    def shifted(self, shift: float) -> "Halting":
        """The same branch with so much more in every logit."""
        copy = Halting.from_buffer_copy(self)
        copy.constant += shift
        return copy


class Evaluation(ctypes.Structure):
    """struct Evaluation of unit.h."""

    _fields_ = [
        *_integers("images", "in_height", "in_width", "out_height", "out_width"),
        *_addresses("x"),
        *_integers("x_bfloat16"),
        *_addresses("inner", "reads"),
        *_integers("num_reads"),
        *_addresses("writes"),
        *_integers("num_writes"),
        *_addresses("shortcut", "state", "output", "moved", "remaining", "sums", "scratch"),
        *_addresses("counts", "products", "image_logits", "scores"),
    ]


class Block(ctypes.Structure):
    """struct Block of block.cpp."""

    _fields_ = [
        ("units", ctypes.POINTER(Unit)),
        *_integers("count"),
        ("branches", ctypes.POINTER(Halting)),
        ("added", ctypes.POINTER(ctypes.c_double)),
        ("threshold", ctypes.c_float),
    ]


class Passage(ctypes.Structure):
    """struct Passage of block.cpp."""

    _fields_ = [
        *_integers("images", "in_height", "in_width", "out_height", "out_width"),
        *_addresses("x"),
        *_integers("x_bfloat16"),
        *_addresses("shortcut", "exists_in", "exists", "output"),
        *_addresses("ponder_cost", "num_units", "distribution", "evaluated", "dilated", "room"),
    ]


class Process(ctypes.Structure):
    """struct Process of process.h."""

    _fields_ = [
        *_integers("images", "height", "width", "units"),
        ("threshold", ctypes.c_float),
        *_addresses("exists", "cumulative", "remainder", "ponder_cost", "num_units"),
        *_addresses("active", "distribution", "evaluated", "dilated"),
    ]


class Stem(ctypes.Structure):
    """struct Stem of stem.cpp."""

    _fields_ = [
        *_integers("channels"),
        *_addresses("conv", "bias"),
        *_integers("same", "bfloat16"),
    ]


class Images(ctypes.Structure):
    """struct Images of stem.cpp."""

    _fields_ = [
        *_integers("images", "height", "width"),
        *_addresses("pixels"),
        *_integers("stride_image", "stride_colour", "stride_y", "stride_x"),
        *_addresses("sizes", "colours", "rows", "scratch"),
    ]


class TrainedUnit(ctypes.Structure):
    """struct TrainedUnit of training.h."""

    _fields_ = [
        *_integers("in_channels", "width", "out_channels", "stride", "dilation", "projects"),
        *_addresses("scale", "shift", "bias1", "bias2", "bias3", "scale1", "scale2"),
        *_addresses("conv1", "conv2", "conv3", "back1", "back2", "back3", "shortcut"),
    ]


class SitesStruct(ctypes.Structure):
    """struct Sites of training.h."""

    _fields_ = [
        *_integers("images", "in_height", "in_width", "out_height", "out_width"),
        *_addresses("reads"),
        *_integers("num_reads"),
        *_addresses("read_rows", "writes"),
        *_integers("num_writes"),
        *_addresses("write_rows"),
    ]


class Factor(ctypes.Structure):
    """struct Factor of factors.h."""

    _fields_ = [
        *_addresses("target", "source"),
        *_integers("columns", "outer", "inner", "step", "outer_step", "inner_step"),
        *_addresses("by_column", "by_inner"),
    ]


class Factors(ctypes.Structure):
    """struct Factors of factors.h."""

    _fields_ = [("factors", ctypes.POINTER(Factor)), *_integers("count")]


class ForwardPass(ctypes.Structure):
    """struct ForwardPass of forward.cpp."""

    _fields_ = _addresses(
        "x", "x_rows", "inner", "middle", "state", "output", "remaining", "sums", "squares", "scratch"
    )


class BackwardPass(ctypes.Structure):
    """struct BackwardPass of backward.cpp."""

    _fields_ = [
        *_addresses(
            *("x", "x_rows", "inner", "middle", "state", "remaining"),
            *("grad_state", "filled", "grad_output", "grad_sums", "grad_x"),
        ),
        *_integers("adds"),
        *_addresses("grad_remaining", "grad_conv1", "grad_conv2", "grad_conv3", "grad_shortcut"),
        *_addresses("grad_conv3_transposed", "grad_shortcut_transposed"),
        *_addresses("grad_inner", "grad_middle", "taps", "scratch"),
    ]


class LocalScoring(ctypes.Structure):
    """struct LocalScoring of scores.cpp."""

    _fields_ = [
        *_integers("channels"),
        *_addresses("taps", "packed", "bias", "rows", "products", "logits", "grad_rows"),
        *_integers("adds"),
        *_addresses("filled", "grad_taps", "scratch"),
    ]


class Regions(ctypes.Structure):
    """struct Regions of roi_align.cpp."""

    _fields_ = [
        *_integers("images", "height", "width", "channels"),
        *_integers("count", "bins_y", "bins_x", "max_pool", "step", "sampling_ratio", "aligned"),
        ("scale", ctypes.c_float),
        *_addresses("boxes", "targets", "scratch"),
    ]


class Convolution(ctypes.Structure):
    """struct Convolution of convolution.cpp."""

    _fields_ = [*_integers("in_channels", "out_channels", "taps", "rectify"), *_addresses("weight", "bias")]


class Maps(ctypes.Structure):
    """struct Maps of convolution.cpp."""

    _fields_ = [
        *_integers("images", "height", "width"),
        *_addresses("x", "zeros", "list"),
        *_integers("count"),
        *_addresses("coarser", "y"),
    ]


_ADDRESS, _INT64, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int


def _pointers(*structures: type[ctypes.Structure]) -> list[type]:
    return [ctypes.POINTER(structure) for structure in structures]


_SIGNATURES: dict[str, tuple[Optional[type], list[type]]] = {
    "lanes": (_INT64, []),
    "panel": (_INT64, []),
    "list_positions": (_INT64, [_ADDRESS, _ADDRESS, *3 * [_INT64], _ADDRESS, ctypes.POINTER(_INT64), _ADDRESS]),
    # Inference.
    **{name: (_INT64, []) for name in ("has_bfloat16", "has_bfloat16_tiles", "has_float16")},
    "scratch_size": (_INT64, [*_pointers(Unit, Evaluation), _INT]),
    "evaluate_unit": (None, [*_pointers(Unit, Halting, Evaluation), _INT]),
    "block_room": (_INT64, [*_pointers(Block, Passage), _INT]),
    "evaluate_block": (None, [*_pointers(Block, Passage), _INT]),
    "stem_scratch_size": (_INT64, [*_pointers(Stem), _INT64]),
    "evaluate_stem": (None, [*_pointers(Stem, Images), _INT]),
    "count_positions": (_INT64, [*_pointers(Process), _INT64]),
    "halting_step": (_INT64, [*_pointers(Process), _INT64, _ADDRESS]),
    "convolve": (None, [*_pointers(Convolution, Maps), _INT]),
    # Regions.
    "roi_align_scratch_size": (_INT64, _pointers(Regions)),
    "roi_align": (None, [*_pointers(Regions), _ADDRESS, _ADDRESS, _INT64, _INT]),
    "roi_align_backward": (None, [*_pointers(Regions), _ADDRESS, _ADDRESS, _INT]),
    # Training.
    "forward_scratch_size": (_INT64, [*_pointers(TrainedUnit, SitesStruct), _INT]),
    "backward_scratch_size": (_INT64, _pointers(TrainedUnit)),
    "local_scratch_size": (_INT64, []),
    "tabulate": (None, [_ADDRESS, _INT64, _ADDRESS, _INT64]),
    "train_forward": (None, [*_pointers(TrainedUnit, SitesStruct, ForwardPass, Factors), _INT]),
    "train_backward": (None, [*_pointers(TrainedUnit, SitesStruct, BackwardPass, Factors), _INT]),
    "local_forward": (None, [*_pointers(LocalScoring, SitesStruct, Factors), _INT]),
    "local_backward": (None, [*_pointers(LocalScoring, SitesStruct), _INT]),
}


@functools.lru_cache(maxsize=None)
def kernels() -> ctypes.CDLL:
    """The library, its functions declared.

    Raises:
        LibraryUnavailable: library.load_library does.
    """
    loaded = library.load_library()
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


@functools.lru_cache(maxsize=None)
def whole_vectors(columns: int) -> int:
    """A number of columns, rounded up to whole vectors of the processor."""
    lanes = kernels().lanes()
    return -(-columns // lanes) * lanes
