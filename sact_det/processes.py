"""A command line as processes: one, unless it starts others itself, which end with it.

A launcher that starts the same command several times (torchrun, srun) would have every copy do all of the work and
write into the same folder: the commands start their processes themselves.
"""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Collection, Iterator, Mapping, Optional

from sact_det.errors import InputError, errors_to_exit_code

# What launchers tell a process about itself: how many of its kind they have started.
_COPIES = {
    "WORLD_SIZE": "torchrun",
    "SLURM_STEP_NUM_TASKS": "srun",  # SLURM_NTASKS stands in batch scripts, too, which run once
    "OMPI_COMM_WORLD_SIZE": "mpirun",
    "PMI_SIZE": "mpirun",
}

_TERMINATED = 128 + signal.SIGTERM  # as shells have it


@contextlib.contextmanager
def command_line(num_machines: int = 1) -> Iterator[None]:
    """What every command line does around its work.

    * A launcher's copies of it are refused.
    * Whatever is raised ends it as errors_to_exit_code says.
    * SIGTERM ends it as Ctrl-C does, with what `finally` has to clean up, and exit code 143.

    Args:
        num_machines: that each run a copy of the command and work together.
    """
    with errors_to_exit_code(), _clean_end_by_sigterm():
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
    """Raised by SIGTERM."""


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

    In a process that nobody started so, nothing changes.

    Args:
        grace: seconds to clean up in, behind the KeyboardInterrupt that Ctrl-C raises, too. With 0 there is nothing to
            clean up: Ctrl-C, which reaches both processes, is left to the other.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        signal.signal(signal.SIGINT, _interrupt_once if grace else signal.SIG_IGN)
        threading.Thread(target=_end_with, args=(parent.sentinel, grace), name="follow_parent", daemon=True).start()


def _interrupt_once(number: int, frame: Optional[FrameType]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what cleans up is not interrupted again
    raise KeyboardInterrupt


def _end_with(sentinel: int, grace: float) -> None:
    multiprocessing.connection.wait([sentinel])
    if grace:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(grace)
    os._exit(1)  # sys.exit would end this thread alone


def end_children(grace: float, spare: Collection[BaseProcess] = ()) -> None:
    """Ends the processes that this one started by `multiprocessing` and that still run, all but those to spare.

    Args:
        grace: seconds in which they may end as by Ctrl-C.
        spare: whom to leave alone.
    """
    children = [child for child in multiprocessing.active_children() if child not in spare]
    for child in children:
        if child.pid is not None:
            os.kill(child.pid, signal.SIGINT)
    deadline = time.monotonic() + grace
    for child in children:
        child.join(max(deadline - time.monotonic(), 0))
        child.terminate()
    for child in children:
        child.join()
