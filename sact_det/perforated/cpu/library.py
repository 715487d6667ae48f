"""The C++ sources of this folder as a library: compiled for this processor on first use, and kept.

The library lies in $SACT_DET_CACHE (default $XDG_CACHE_HOME/sact_det or ~/.cache/sact_det), under a name made from the
sources, the compiler and the processor. It knows nothing of Python or torch: plain C calls with plain pointers.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Optional

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
SOURCES = sorted(FOLDER.glob("*.cpp"))
HEADERS = sorted(FOLDER.glob("*.h"))
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")


class LibraryUnavailable(Exception):
    """The library cannot be had; the message says why."""


class Unit(ctypes.Structure):
    """struct Unit of rows.cpp."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("in_channels", "width", "out_channels", "stride", "dilation")),
        *((name, ctypes.c_void_p) for name in ("scale", "shift", "conv1", "bias1", "conv2", "bias2", "conv3", "bias3")),
        ("projects", ctypes.c_int64),
    ]


class Halting(ctypes.Structure):
    """struct Halting of rows.cpp."""

    _fields_ = [
        ("channels", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("taps", "bias", "pooled")),
        ("constant", ctypes.c_float),
    ]


class Evaluation(ctypes.Structure):
    """struct Evaluation of rows.cpp."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("images", "in_height", "in_width", "out_height", "out_width")),
        ("x", ctypes.c_void_p),
        ("inner", ctypes.c_void_p),
        ("reads", ctypes.c_void_p),
        ("num_reads", ctypes.c_int64),
        ("writes", ctypes.c_void_p),
        ("num_writes", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("shortcut", "state", "output", "moved", "remaining", "sums", "scratch")),
        *((name, ctypes.c_void_p) for name in ("counts", "products", "image_logits", "scores")),
    ]


class Process(ctypes.Structure):
    """struct Process of halting.cpp."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "units")),
        ("threshold", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("exists", "cumulative", "remainder", "ponder_cost", "num_units")),
        *((name, ctypes.c_void_p) for name in ("active", "distribution", "evaluated", "dilated")),
    ]


class Stem(ctypes.Structure):
    """struct Stem of stem.cpp."""

    _fields_ = [
        ("channels", ctypes.c_int64),
        ("conv", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("same", ctypes.c_int64),
    ]


class Images(ctypes.Structure):
    """struct Images of stem.cpp."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("images", "height", "width")),
        ("pixels", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("stride_image", "stride_colour", "stride_y", "stride_x")),
        *((name, ctypes.c_void_p) for name in ("sizes", "colours", "rows", "scratch")),
    ]


_POINTER, _INT64, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
_SIGNATURES = {
    "lanes": (_INT64, []),
    "panel": (_INT64, []),
    "scratch_size": (_INT64, [ctypes.POINTER(Unit)]),
    "evaluate_unit": (
        None,
        [ctypes.POINTER(Unit), ctypes.POINTER(Halting), ctypes.POINTER(Evaluation), _INT],
    ),
    "stem_scratch_size": (_INT64, [ctypes.POINTER(Stem), _INT64]),
    "evaluate_stem": (None, [ctypes.POINTER(Stem), ctypes.POINTER(Images), _INT]),
    "list_positions": (
        _INT64,
        [_POINTER, _POINTER, _INT64, _INT64, _INT64, _POINTER, ctypes.POINTER(_INT64), _POINTER],
    ),
    "count_positions": (_INT64, [ctypes.POINTER(Process), _INT64]),
    "halting_step": (_INT64, [ctypes.POINTER(Process), _INT64, _POINTER]),
}


@functools.lru_cache(maxsize=None)
def load_library() -> ctypes.CDLL:
    """The library.

    Raises:
        LibraryUnavailable: there is no compiler, or it fails.
    """
    compiler = _compiler()
    identity = "\0".join((*(path.read_text() for path in SOURCES + HEADERS), _version(compiler), *FLAGS, _processor()))
    name = f"rows-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
    try:
        path = _cache_folder() / name
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _compile(compiler, path)
    except OSError as error:
        logger.info("The kernels for this processor are compiled anew in every process: %s", error)
        with tempfile.TemporaryDirectory() as folder:
            _compile(compiler, Path(folder) / name)
            return _load(Path(folder) / name)
    return _load(path)


def _cache_folder() -> Path:
    own = os.environ.get("SACT_DET_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sact_det"


def _compiler() -> str:
    for name in filter(None, (os.environ.get("CXX"), *COMPILERS)):
        path = shutil.which(name)
        if path is not None:
            return path
    raise LibraryUnavailable("no C++ compiler (CXX, " + ", ".join(COMPILERS) + ")")


def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout


def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(
        sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    )


def _compile(compiler: str, path: Path) -> None:
    """Writes the library under its name once it is complete."""
    logger.info("Compiling kernels for this processor: %s", path)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        done = subprocess.run(
            [compiler, *FLAGS, *map(str, SOURCES), "-o", str(made)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise LibraryUnavailable(f"{compiler} failed: {last}")
        os.replace(made, path)


def _load(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise LibraryUnavailable(f"{path} cannot be loaded: {error}") from error
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def why_unavailable() -> Optional[str]:
    """Why there is no library, or None."""
    return _outcome()


@functools.lru_cache(maxsize=None)
def _outcome() -> Optional[str]:
    try:
        load_library()
    except LibraryUnavailable as error:
        return str(error)
    return None
