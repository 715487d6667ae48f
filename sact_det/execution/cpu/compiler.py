"""Finds and runs a C++ compiler, which may be missing, broken or hang."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional, Sequence

NAMES = ("c++", "g++", "clang++")
ANSWER_S, COMPILATION_S = 20, 300  # a busy machine is slow


class LibraryUnavailable(Exception):
    """There is no library of kernels; the message says why."""


@dataclass(frozen=True)
class Compiler:
    """A compiler that can be run.

    Attributes:
        command: its path, and the arguments that follow it in $CXX.
        version: the output of --version.
    """

    command: tuple[str, ...]
    version: str

    def compile(self, arguments: Sequence[str], output: Path) -> None:
        """Runs it with these arguments and `-o output`. Raises LibraryUnavailable if that fails."""
        try:
            done = _run([*self.command, *arguments, "-o", str(output)], COMPILATION_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LibraryUnavailable(f"{self.command[0]} {_reason(error)}") from error
        if done.returncode or not output.is_file():
            said = (done.stderr.strip().splitlines() or [f"no message (exit status {done.returncode})"])[-1]
            raise LibraryUnavailable(f"{self.command[0]} failed: {said}")


def find_compiler() -> Compiler:
    """$CXX or the first of NAMES that can be run. Raises LibraryUnavailable if none can."""
    problems = []
    for command in _commands():
        try:
            return Compiler(command, _run([*command, "--version"], ANSWER_S).stdout)
        except (OSError, subprocess.TimeoutExpired) as error:
            problems.append(f"; {command[0]} {_reason(error)}")
    raise LibraryUnavailable(f"no C++ compiler (CXX, {', '.join(NAMES)}){''.join(problems)}")


def _commands() -> Iterator[tuple[str, ...]]:
    try:
        chosen = shlex.split(os.environ.get("CXX", ""))
    except ValueError:  # a quotation mark without another
        chosen = []
    for name, *more in filter(None, (chosen, *([name] for name in NAMES))):
        path = shutil.which(name)
        if path is not None:
            yield (path, *more)


def _run(command: Sequence[str], limit_s: float) -> "subprocess.CompletedProcess[str]":
    """As subprocess.run, but kills the command's own children, too. Raises OSError and TimeoutExpired as that does."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=limit_s)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"does not end (within {error.timeout:g} s)"
    strerror: Optional[str] = getattr(error, "strerror", None)
    return f"cannot be run ({strerror or error})"
