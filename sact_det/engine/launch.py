"""The processes of a training, started here or by torchrun: arguments checked, ended together, out of their group."""

import os
import signal
import socket
import threading
from datetime import timedelta
from types import FrameType
from typing import Callable, Optional, Sequence
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
import torch.multiprocessing
from detectron2.engine.launch import DEFAULT_TIMEOUT, _find_free_port
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException

from sact_det.base.errors import InputError
from sact_det.base.processes import end_processes, follow_parent, interrupts_blocked
from sact_det.base.torchrun import Place, restarts
from sact_det.engine import peers

GRACE = 5.0  # seconds in which processes may clean up: one that waits for others may never
TO_SAVE = 60.0  # the same where all of them were asked to end: they finish their step and write a checkpoint


def check_launch(
    num_processes: int, on_gpus: bool, num_machines: int, machine_rank: int, dist_url: str, available_gpus: int
) -> None:
    """Raises InputError, naming the option, if the processes could not be started or would wait for ever.

    Args:
        num_processes: on this machine; the option --num-gpus or, on its CPU, --num-processes.
        on_gpus: which of both.
        num_machines, machine_rank, dist_url: options of Detectron2's command lines.
        available_gpus: of this machine.
    """
    option = "--num-gpus" if on_gpus else "--num-processes"
    if num_processes < 1:
        raise InputError(
            f"{option} must be 1 or more, the number of processes on this machine; got {num_processes} "
            "(MODEL.DEVICE cpu does without a GPU)"
        )
    if on_gpus and available_gpus < num_processes and (available_gpus or num_processes > 1):
        others = f"{available_gpus}" if available_gpus else f"none; --num-processes {num_processes} share its CPU"
        raise InputError(f"--num-gpus {num_processes}: this machine has {others}")
    if num_machines < 1:
        raise InputError(f"--num-machines must be 1 or more; got {num_machines}")
    if not 0 <= machine_rank < num_machines:
        raise InputError(
            f"--machine-rank must lie in 0 to {num_machines - 1} with --num-machines {num_machines}; got {machine_rank}"
        )
    _check_dist_url(dist_url, num_machines)
    if num_processes * num_machines > 1 and machine_rank == 0:
        _check_port(dist_url)


def _check_dist_url(url: str, num_machines: int) -> None:
    wanted = "tcp://HOST:PORT, file:///PATH, env://, or, on one machine, auto"
    if url == "auto":
        if num_machines > 1:
            raise InputError(
                f"--dist-url auto: {num_machines} machines need the address of one of them, tcp://HOST:PORT"
            )
        return
    address = _tcp_address(url)
    if address is not None:
        try:
            socket.getaddrinfo(*address)
        except (OSError, UnicodeError) as error:
            raise InputError(f"--dist-url {url}: no machine is called {address[0]}") from error
    elif url == "env://":
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
        if missing:
            raise InputError(f"--dist-url env://: {' and '.join(missing)} not set in the environment")
    elif not (url.startswith("file:///") and os.path.isdir(os.path.dirname(url[len("file://") :]))):
        raise InputError(f"--dist-url must be {wanted}; got {url!r}")


def _tcp_address(url: str) -> Optional[tuple[str, int]]:
    """Host and port of tcp://HOST:PORT, or None."""
    try:
        parts = urlsplit(url)
        return (parts.hostname, parts.port) if parts.scheme == "tcp" and parts.hostname and parts.port else None
    except ValueError:  # no port number, or no IPv6 address
        return None


def _check_port(url: str) -> None:
    """Raises InputError if another program of this machine listens where the first process has to."""
    address = _tcp_address(url)
    if address is None:
        return
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("", address[1]))
        except OSError as error:
            raise InputError(
                f"--dist-url {url}: port {address[1]} of this machine cannot be used ({error.strerror}), perhaps "
                "because another training runs here; choose another, or, on one machine, auto"
            ) from error


def launch(
    main: Callable,
    num_processes: int,
    *,
    on_gpus: Optional[bool] = None,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    args: Sequence = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
) -> None:
    """Calls main(*args) in every process of a group, as detectron2.engine.launch does, and lets them leave it.

    The processes end with this one, whatever ends it, and leave Ctrl-C to it. What a scheduler sends to this one,
    SIGTERM or SIGUSR1, asks all of them to end, which a training does behind a checkpoint.

    Args:
        main: picklable.
        num_processes: on this machine.
        on_gpus: whether each of them has a GPU, and NCCL; else they share the CPU. None: if there are any.
        num_machines, machine_rank, dist_url, timeout: as Detectron2 has them.

    Raises:
        ProcessExitedException: a process ended with an error, or was killed; the others have been ended.
    """
    world_size = num_machines * num_processes
    if world_size == 1:
        main(*args)
        leave_process_group()
        return
    if dist_url == "auto":
        dist_url = f"tcp://127.0.0.1:{_find_free_port()}"
    on_gpus = torch.cuda.is_available() if on_gpus is None else on_gpus
    group = (world_size, machine_rank, num_processes, on_gpus, dist_url, timeout)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a store whose process has ended is told of in one line
    with interrupts_blocked():
        context = torch.multiprocessing.spawn(_run, (group, main, args), num_processes, join=False)
    before = signal.signal(signal.SIGUSR1, _end) if _is_main_thread() else None
    try:
        while not context.join():
            pass
    except BaseException as error:
        end_processes(context.processes, GRACE if isinstance(error, Exception) else TO_SAVE)
        raise
    finally:
        if before is not None:
            signal.signal(signal.SIGUSR1, before)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _end(number: int, frame: Optional[FrameType]) -> None:
    raise SystemExit(128 + number)  # as shells have it


def _run(local_rank: int, group: tuple[int, int, int, bool, str, timedelta], main: Callable, args: Sequence) -> None:
    follow_parent(GRACE)
    world_size, machine_rank, num_processes, on_gpus, dist_url, timeout = group
    place = Place(machine_rank * num_processes + local_rank, world_size, local_rank)
    _run_in_group(main, args, place, num_processes, on_gpus, dist_url, timeout)


def run_by_torchrun(main: Callable, place: Place, args: Sequence = (), timeout: timedelta = DEFAULT_TIMEOUT) -> None:
    """Calls main(*args) in this process as one of those that torchrun has started, and leaves their group.

    Args:
        place: of this process among them (sact_det/base/torchrun.py).
        timeout: after which one that waits for the others in vain fails.

    Raises:
        InputError: the environment does not say where the processes meet, or there are fewer GPUs than processes.
    """
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise InputError(f"RANK and WORLD_SIZE are set, but {' and '.join(missing)} not: torchrun sets all of them")
    on_this_machine = int(os.environ.get("LOCAL_WORLD_SIZE") or place.world_size)
    gpus = torch.cuda.device_count()
    if 0 < gpus < on_this_machine:
        raise InputError(f"torchrun has started {on_this_machine} processes on this machine, which has {gpus} GPUs")
    _run_in_group(main, args, place, on_this_machine, gpus > 0, "env://", timeout)


def _run_in_group(
    main: Callable, args: Sequence, place: Place, on_this_machine: int, on_gpus: bool, url: str, timeout: timedelta
) -> None:
    """As Detectron2's processes: it takes NCCL wherever there are GPUs, even for trainings on the CPU."""
    backend = "nccl" if on_gpus else "gloo"
    if on_gpus:
        torch.cuda.set_device(place.local_rank)
    store, rank, world_size = next(dist.rendezvous(url, place.rank, place.world_size, timeout=timeout))
    # torchrun keeps its store when it restarts processes, with the addresses of those that are no longer there.
    store = dist.PrefixStore(f"attempt_{restarts(os.environ)}", store)
    store.set_timeout(timeout)
    dist.init_process_group(backend, store=store, world_size=world_size, rank=rank, timeout=timeout)
    comm.create_local_process_group(on_this_machine)
    peers.join(store, rank)
    main(*args)
    leave_process_group()


def who_ended(error: ProcessExitedException, num_processes: int, machine_rank: int = 0) -> str:
    """Says which process was killed, by its rank in the whole training; one that failed has said so itself."""
    rank = machine_rank * num_processes + error.error_index
    return f"rank {rank} was killed by {error.signal_name}; the others have been ended, and --resume goes on"


def leave_process_group() -> None:
    """Ends the groups that Detectron2 set up in this process, and their threads; without any it does nothing.

    A thread of gloo that is still dropping the tensors of the last collective while the interpreter ends aborts the
    process (pytorch/pytorch#190489), so that one that did all of its work exits with an error now and then. A group
    lives for as long as it is referred to, and Detectron2 keeps references of its own.
    """
    if dist.is_initialized():
        peers.leave()
        comm._get_global_gloo_group.cache_clear()
        comm._LOCAL_PROCESS_GROUP = None
        comm.create_local_process_group.cache_clear()
        dist.destroy_process_group()
