"""Detectron2's launch: its arguments checked, its processes ended with this one and out of their group."""

import os
import socket
from datetime import timedelta
from typing import Any, Callable, Optional, Sequence
from urllib.parse import urlsplit

import torch.distributed as dist
import torch.multiprocessing
from detectron2.engine.launch import DEFAULT_TIMEOUT, _distributed_worker, _find_free_port
from detectron2.utils import comm

from sact_det.base.errors import InputError
from sact_det.base.processes import end_processes, follow_parent, interrupts_blocked

GRACE = 5.0  # seconds in which processes may clean up: one that waits for others may never
TO_SAVE = 60.0  # the same where all of them were asked to end: they finish their step and write a checkpoint


def check_launch(num_gpus: int, num_machines: int, machine_rank: int, dist_url: str, available_gpus: int) -> None:
    """Raises InputError, naming the option, if the processes could not be started or would wait for ever.

    Args:
        num_gpus, num_machines, machine_rank, dist_url: options of Detectron2's command lines.
        available_gpus: of this machine; 0: processes share its CPU.
    """
    if num_gpus < 1:
        raise InputError(
            f"--num-gpus must be 1 or more, the number of processes on this machine; got {num_gpus} "
            "(MODEL.DEVICE cpu does without a GPU)"
        )
    if 0 < available_gpus < num_gpus:
        raise InputError(f"--num-gpus {num_gpus}: this machine has {available_gpus}")
    if num_machines < 1:
        raise InputError(f"--num-machines must be 1 or more; got {num_machines}")
    if not 0 <= machine_rank < num_machines:
        raise InputError(
            f"--machine-rank must lie in 0 to {num_machines - 1} with --num-machines {num_machines}; got {machine_rank}"
        )
    _check_dist_url(dist_url, num_machines)
    if num_gpus * num_machines > 1 and machine_rank == 0:
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
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    args: Sequence = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
) -> None:
    """detectron2.engine.launch, and afterwards leave_process_group() in every process whose main returned.

    The processes end with this one, whatever ends it, and leave Ctrl-C to it.

    Args:
        main: called as main(*args) in every process; picklable.
        num_processes: on this machine, one for each GPU if there are any.
        num_machines, machine_rank, dist_url, timeout: as Detectron2 has them.
    """
    world_size = num_machines * num_processes
    if world_size == 1:
        main(*args)
        leave_process_group()
        return
    if dist_url == "auto":
        dist_url = f"tcp://127.0.0.1:{_find_free_port()}"
    started = (_run_and_leave, world_size, num_processes, machine_rank, dist_url, (main, *args), timeout)
    with interrupts_blocked():
        context = torch.multiprocessing.spawn(_distributed_worker, started, num_processes, join=False)
    try:
        while not context.join():
            pass
    except BaseException as error:
        end_processes(context.processes, GRACE if isinstance(error, Exception) else TO_SAVE)
        raise


def _run_and_leave(main: Callable, *args: Any) -> None:
    follow_parent(GRACE)
    main(*args)
    leave_process_group()


def leave_process_group() -> None:
    """Ends the groups that Detectron2 set up in this process, and their threads; without any it does nothing.

    A thread of gloo that is still dropping the tensors of the last collective while the interpreter ends aborts the
    process (pytorch/pytorch#190489), so that one that did all of its work exits with an error now and then. A group
    lives for as long as it is referred to, and Detectron2 keeps references of its own.
    """
    if dist.is_initialized():
        comm._get_global_gloo_group.cache_clear()
        comm._LOCAL_PROCESS_GROUP = None
        dist.destroy_process_group()
