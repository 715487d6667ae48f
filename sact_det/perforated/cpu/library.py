"""The C++ sources of this folder as a library: compiled for this processor on first use, and kept.

The library lies in the cache folder (sact_det/files.py), under a name made from the sources, the compiler and the
processor. It knows nothing of Python or torch: plain C calls with plain pointers.
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

from sact_det.files import cache_folder

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
SOURCES = sorted(FOLDER.glob("*.cpp"))
HEADERS = sorted(FOLDER.glob("*.h"))
COMPILERS = ("c++", "g++", "clang++")
FLAGS = (
    "-std=gnu++17",
    "-O3",
    "-march=native",
    "-ffp-contract=fast",
    "-fno-trapping-math",
    "-fopenmp",
    "-shared",
    "-fPIC",
)


class LibraryUnavailable(Exception):
    """The library cannot be had; the message says why."""


@functools.lru_cache(maxsize=None)
def load_library() -> ctypes.CDLL:
    """The library; calls.py knows its functions.

    Raises:
        LibraryUnavailable: there is no compiler, or it fails.
    """
    compiler = _compiler()
    identity = "\0".join((*(path.read_text() for path in SOURCES + HEADERS), _version(compiler), *FLAGS, _processor()))
    name = f"rows-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
    try:
        path = cache_folder() / name
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _compile(compiler, path)
    except OSError as error:
        logger.info("The kernels for this processor are compiled anew in every process: %s", error)
        with tempfile.TemporaryDirectory() as folder:
            _compile(compiler, Path(folder) / name)
            return _load(Path(folder) / name)
    return _load(path)


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
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise LibraryUnavailable(f"{path} cannot be loaded: {error}") from error


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
