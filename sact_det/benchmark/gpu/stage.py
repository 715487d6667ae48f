"""A stage of the check, and the report that it writes as it goes: a later failure loses nothing."""

import contextlib
import subprocess
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Optional, Sequence

import torch

from sact_det.base.errors import one_line
from sact_det.base.files import write_json


@dataclass(frozen=True)
class Machine:
    """Where a stage runs.

    Attributes:
        device: an NVIDIA GPU; or the CPU, where Triton's interpreter stands for one and every measurement is tiny.
        output: the folder for files of the stages.
        data: a folder with data sets (voc2012_animals, weights), or None.
    """

    device: torch.device
    output: Path
    data: Optional[Path] = None

    @property
    def tiny(self) -> bool:
        """Whether nothing but the script itself is tried."""
        return self.device.type != "cuda"


class Report:
    """What a stage has found so far, kept in a JSON file that is rewritten with every entry.

    Args:
        path: of the file.
        name: of the stage.
        seconds: what the stage may take.
    """

    def __init__(self, path: Path, name: str, seconds: float):
        self._path = path
        self._start = time.monotonic()
        self._seconds = seconds
        self.values: dict[str, Any] = {"stage": name, "ended": False, "seconds": 0.0, "faults": [], "skipped": []}
        self._write()

    @property
    def left(self) -> float:
        """Seconds that are left to the stage; negative when it should have ended."""
        return self._seconds - (time.monotonic() - self._start)

    def note(self, name: str, value: Any) -> None:
        """Enters a finding, plain values, under a name of its own."""
        self.values[name] = value
        self._write()

    def fault(self, line: str) -> None:
        """Enters what is wrong, in one line."""
        self.values["faults"].append(line)
        self._write()

    def skip(self, line: str) -> None:
        """Enters what was not done, and why, in one line."""
        self.values["skipped"].append(line)
        self._write()

    def check(self, name: str, holds: bool, otherwise: str) -> None:
        """Counts a check by name; enters a fault, `otherwise`, where it does not hold."""
        counts = self.values.setdefault("checks", {}).setdefault(name, {"passed": 0, "failed": 0})
        counts["passed" if holds else "failed"] += 1
        if not holds:
            self.fault(f"{name}: {otherwise}")

    @contextlib.contextmanager
    def part(self, name: str, least: float = 0.0) -> Iterator[bool]:
        """A part of the stage: yields whether there are `least` seconds for it; what it raises becomes a fault."""
        enough = self.left >= least
        if not enough:
            self.skip(f"{name}: {self.left:.0f} s were left, it takes {least:.0f}")
        start = time.monotonic()
        try:
            yield enough
        except Exception as error:
            self.fault(f"{name}: {type(error).__name__}: {one_line(error)}")
            self.values.setdefault("tracebacks", {})[name] = traceback.format_exc()
        if enough:
            self.values.setdefault("part_seconds", {})[name] = round(time.monotonic() - start, 2)
            self._write()

    def end(self) -> None:
        """Marks the report as complete."""
        self.note("ended", True)

    def _write(self) -> None:
        self.values["seconds"] = round(time.monotonic() - self._start, 2)
        write_json(self._path, self.values)


def output_of(
    command: Sequence[str], seconds: float, environment: Mapping[str, str], folder: Optional[Path] = None
) -> str:
    """What a command says on stdout.

    Raises:
        RuntimeError: it failed; the message is the last line that it said.
        subprocess.TimeoutExpired: it took longer than `seconds`.
    """
    seconds = max(seconds, 1)
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    if done.returncode:
        raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1])
    return done.stdout


@dataclass(frozen=True)
class Stage:
    """A question to a GPU.

    Attributes:
        name: for --only and the report's file.
        question: in a line.
        least: seconds without which it is not begun on a GPU.
        limit: seconds that it may take there.
        run: does it.
        tuned: whether kernels choose their tiles by measurement, which compiles all of them.
    """

    name: str
    question: str
    least: float
    limit: float
    run: Callable[[Machine, Report], None]
    tuned: bool = False
