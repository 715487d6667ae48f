"""A command line as processes: one, unless it starts others itself, which end with it.

A launcher that starts the same command several times (torchrun, srun) would have every copy do all of the work and
write into the same folder: the commands start their processes themselves, but for those that share their work by what
torchrun says.
"""

import contextlib
import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
import time
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Collection, Iterator, Mapping, Optional

from sact_det.base.errors import InputError, errors_to_exit_code
from sact_det.base.torchrun import place_by_torchrun

# What launchers tell a process about itself: how many of its kind they have started.
_COPIES = {
    "WORLD_SIZE": "torchrun",
    "SLURM_STEP_NUM_TASKS": "srun",  # SLURM_NTASKS stands in batch scripts, too, which run once
    "OMPI_COMM_WORLD_SIZE": "mpirun",
    "PMI_SIZE": "mpirun",
}

_TERMINATED = 128 + signal.SIGTERM  # as shells have it


@contextlib.contextmanager
def command_line(num_machines: int = 1, by_torchrun: bool = False) -> Iterator[None]:
    """What every command line does around its work: a context, or what decorates its `main`.

    * A launcher's copies of it are refused, but for one on each of `num_machines`, which work together, and those of
      torchrun where it shares its work among them (`by_torchrun`).
    * Whatever is raised ends it as errors_to_exit_code says.
    * SIGTERM ends it as Ctrl-C does, with what `finally` has to clean up, and exit code 143.
    """
    with errors_to_exit_code(), _clean_end_by_sigterm():
        if not (by_torchrun and place_by_torchrun(os.environ)):
            refuse_copies(os.environ, num_machines)
        yield


def refuse_copies(environment: Mapping[str, str], num_machines: int = 1) -> None:
    """Raises InputError if the environment says that a launcher started other copies than one for each machine."""
    for variable, launcher in _COPIES.items():
        value = environment.get(variable, "").strip()
        if value.isdecimal() and int(value) not in (0, 1, num_machines):
            raise InputError(
                f"{variable}={value}: {launcher} has started {value} copies of this command, which would all do the "
                "same; start it once (train_net.py starts processes itself: --num-gpus, and on several machines "
                "--num-machines)"
            )


class _Terminated(SystemExit):
    """What SIGTERM raises in this process, so that it ends as by an exit."""


@contextlib.contextmanager
def _clean_end_by_sigterm() -> Iterator[None]:
    def end(number: int, frame: Optional[FrameType]) -> None:
        raise _Terminated(_TERMINATED)

    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, end)
    try:
        yield
    except _Terminated:
        sys.stderr.write("terminated\n")  # behind the last words of what has been cleaned up
        raise
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def follow_parent(grace: float = 0) -> None:
    """For a process that another one started by `multiprocessing`: it ends when that one has ended, by whatever.

    Ctrl-C, which reaches both, is left to the other. In a process that nobody started so, nothing changes.

    Args:
        grace: seconds to clean up in, by `finally`, when the other ends or by SIGTERM; with 0 it ends at once. When the
            other has ended, SIGTERM comes twice, so many seconds apart.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if grace:
        signal.signal(signal.SIGTERM, _end_quietly)
    threading.Thread(target=_end_with, args=(parent.sentinel, grace), name="follow_parent", daemon=True).start()


def _end_quietly(number: int, frame: Optional[FrameType]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what cleans up is not interrupted again
    sys.unraisablehook = lambda _: None  # what was half made may complain as it goes
    raise _Terminated(_TERMINATED)


def _end_with(sentinel: int, grace: float) -> None:
    multiprocessing.connection.wait([sentinel])
    for _ in range(2 if grace else 0):  # what finishes its work first when it is asked once ends when it is asked twice
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace)
    os._exit(1)  # sys.exit would end this thread alone


@contextlib.contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Processes started here never hear Ctrl-C, not even while Python starts; this one hears it afterwards."""
    multiprocessing.resource_tracker.ensure_running()  # its start would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_processes(processes: Collection[BaseProcess], grace: float) -> None:
    """Ends them by SIGTERM and, those that are still there after so many seconds, by SIGKILL."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + grace
    for process in processes:
        process.join(max(deadline - time.monotonic(), 0))
        process.kill()
        process.join()
