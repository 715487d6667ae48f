"""The C++ sources of this folder as a library: compiled for this processor on first use, and kept.

The library is a file in the cache folder (sact_det/base/cache_folder.py), named after the sources, the processor and
the compiler, with its checksum beside it. It is loaded only if the checksum is right and no other user can have written
it. Its interface is plain C: it depends on neither Python nor torch.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Optional

from sact_det.base.cache_folder import is_private, private_cache_folder
from sact_det.base.files import file_sha256, replacing, why_not_regular
from sact_det.execution.cpu.compiler import Compiler, LibraryUnavailable, find_compiler

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
SOURCES = sorted(FOLDER.glob("*.cpp"))
HEADERS = sorted(FOLDER.glob("*.h"))
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


@functools.lru_cache(maxsize=None)
def load_library() -> ctypes.CDLL:
    """Loads the library, compiling it if none is kept; its functions are declared in calls.py.

    A library that is kept is used even if the compiler is gone by now, or fails.

    Raises:
        LibraryUnavailable: none is kept, and there is no compiler, or it fails.
    """
    name = f"rows-{_digest(*(path.read_text() for path in SOURCES + HEADERS), *FLAGS, _processor())}"
    folder = _cache()
    try:
        compiler = find_compiler()
        file = f"{name}-{_digest(*compiler.command[1:], compiler.version)}.so"
        return (folder and _load_kept(folder / file)) or _compile(compiler, folder, file)
    except LibraryUnavailable:
        kept = folder.glob(f"{name}-*.so") if folder is not None else ()  # by any compiler, from the same sources
        for path in sorted(kept, key=os.path.getmtime, reverse=True):
            library = _load_kept(path)
            if library is not None:
                return library
        raise


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _processor() -> str:
    """A description of the processor, as far as -march=native depends on it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(
        sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    )


def _cache() -> Optional[Path]:
    """The folder in which libraries are kept, or None if none can be."""
    try:
        return private_cache_folder()
    except OSError as error:
        logger.info("The kernels for this processor are compiled anew in every process: %s", error)
        return None


def _load_kept(path: Path) -> Optional[ctypes.CDLL]:
    """The library at `path`; None if there is none, if it is damaged, or if another user may have written it."""
    try:
        if why_not_regular(path) or not is_private(path):
            problem = "another user owns it, or may write to it"
        elif file_sha256(path) != _checksum(path).read_text(encoding="ascii"):
            problem = "damaged, or its checksum is"
        else:
            return ctypes.CDLL(str(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        problem = str(error)
    logger.info("%s is not used: %s", path, problem)
    return None


def _checksum(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _compile(compiler: Compiler, folder: Optional[Path], name: str) -> ctypes.CDLL:
    """Compiles and loads the library, and keeps it in the folder where that is possible."""
    # Nothing else is heard of until it is done, so that programs that show warnings only are told, too.
    level = logging.INFO if logger.isEnabledFor(logging.INFO) else logging.WARNING
    logger.log(level, "Compiling kernels for this processor, once; it can take a minute")
    try:
        with tempfile.TemporaryDirectory() as temporary:
            made = Path(temporary) / name
            compiler.compile([*FLAGS, *map(str, SOURCES)], made)
            library = ctypes.CDLL(str(made))
            if folder is not None:
                _keep(made, folder / name)
            return library
    except OSError as error:
        raise LibraryUnavailable(f"what {compiler.command[0]} made cannot be loaded: {error}") from error


def _keep(made: Path, path: Path) -> None:
    """Puts the library into the cache folder. Processes that do so at the same time do not disturb each other."""
    try:
        with replacing(path) as temporary:
            shutil.copyfile(made, temporary)
            temporary.chmod(0o755)
        with replacing(_checksum(path)) as temporary:
            temporary.write_text(file_sha256(made), encoding="ascii")
    except OSError as error:
        logger.info("The kernels for this processor are compiled anew in every process: %s", error)


@functools.lru_cache(maxsize=None)
def why_unavailable() -> Optional[str]:
    """Why there is no library, or None; logs a warning the first time if there is none."""
    try:
        load_library()
    except LibraryUnavailable as error:
        logger.warning("No kernels for this processor, PyTorch serves in their place and takes longer: %s", error)
        return str(error)
    return None
