"""A long command as one line with a bar; what it says goes to a file."""

import contextlib
import os
import queue
import re
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Iterator, Optional, Sequence

from tqdm import tqdm

from sact_det.base.errors import InputError
from sact_det.base.files import writable_file

_ITERATION = re.compile(r"eta: \S+\s+iter: (\d+)\s+total_loss: (\S+)")
_INFERENCE = re.compile(r"Inference done (\d+)/(\d+)")
_FORM = "{desc} |{bar:20}| {elapsed}{postfix}"
_WIDTH = 58  # characters of what a stage does
_MOMENT = 0.5  # seconds
_SHOWN = 20  # lines of a command that failed


def run_stage(what: str, arguments: Sequence[str], log: Path, steps: Optional[int] = None) -> None:
    """Runs python with these arguments, and shows one line: what it does, a bar, the time.

    The bar counts the steps of a training, and the images of an evaluation as far as Detectron2 tells of them; of other
    commands the time passes alone. Where the output is no terminal, the line appears when the command has ended.

    Args:
        what: it does.
        arguments: of python.
        log: file that receives what it says; replaced if it exists.
        steps: of a training.

    Raises:
        InputError: it failed; with the end of what it said.
        OSError: the log cannot be written.
    """
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    start = time.monotonic()
    with (
        open(writable_file(log), "w", encoding="utf-8") as file,
        subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
        ) as process,
        tqdm(total=steps or 1, desc=what.ljust(_WIDTH), bar_format=_FORM, file=sys.stdout, disable=None) as bar,
    ):
        try:
            for line in _lines(process):
                file.write(line)
                _show(bar, line)
        except BaseException:
            process.terminate()
            raise
        process.wait()
        bar.set_postfix_str("", refresh=False)
        bar.update(bar.total - bar.n if process.returncode == 0 else 0)
    if not sys.stdout.isatty():
        print(f"{what.ljust(_WIDTH)} {time.monotonic() - start:.0f} s", flush=True)
    if process.returncode:
        said = log.read_text(encoding="utf-8").splitlines()[-_SHOWN:]
        raise InputError(f"{shlex.join(arguments)} failed ({log}): {' '.join(said)}")


def _show(bar: tqdm, line: str) -> None:
    """Moves the bar as a line of the command asks for; an empty one only lets the time pass."""
    training, inference = _ITERATION.search(line), _INFERENCE.search(line)
    if training:
        bar.set_postfix_str(f"loss {training[2]}", refresh=False)
        bar.n = min(int(training[1]) + 1, bar.total)
    elif inference:
        bar.set_postfix_str(f"evaluates image {inference[1]} of {inference[2]}", refresh=False)
    bar.refresh()


def _lines(process: "subprocess.Popen[str]") -> Iterator[str]:
    """What the command says, line by line, and an empty text whenever it was silent for a moment."""
    said: queue.Queue[Optional[str]] = queue.Queue()

    def listen() -> None:
        assert process.stdout is not None
        with contextlib.suppress(ValueError):  # closed, because the stage is interrupted
            for line in process.stdout:
                said.put(line)
        said.put(None)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        try:
            line = said.get(timeout=_MOMENT)
        except queue.Empty:
            yield ""
            continue
        if line is None:
            return
        yield line
