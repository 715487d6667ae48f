"""Detectron2's launch, whose processes leave their process group before they exit."""

from typing import Any, Callable, Sequence

import torch.distributed as dist
from detectron2.engine import launch as launch_detectron2
from detectron2.utils import comm


def launch(main: Callable, num_processes: int, *, args: Sequence = (), **options: Any) -> None:
    """detectron2.engine.launch, and afterwards leave_process_group() in every process whose main returned.

    Args:
        main: called as main(*args) in every process; picklable.
        num_processes: on this machine, one for each GPU if there are any.
        options: num_machines, machine_rank, dist_url and timeout, as Detectron2 has them.
    """
    launch_detectron2(_run_and_leave, num_processes, args=(main, *args), **options)


def _run_and_leave(main: Callable, *args: Any) -> None:
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
