"""The same work on every image of a data set, in one process or several."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from typing import Any, Callable, Iterator, Optional, TypeVar

import cv2
from tqdm import tqdm

from sact_det.base.errors import InputError
from sact_det.base.processes import follow_parent, interrupts_blocked

Result = TypeVar("Result")


def each_image(task: Callable[[int], Result], number: int, title: str, processes: int) -> list[Result]:
    """task(0), task(1), ... task(number - 1), with a bar where stderr is a terminal.

    Args:
        task: sent to the processes once.
        number: of images.
        title: of the bar.
        processes: how many to use; with more than one, the calling script needs `if __name__ == "__main__":`.

    Raises:
        InputError: `processes` is not positive. What the task raises ends the work.
    """
    if processes < 1:
        raise InputError(f"`processes` must be at least 1; got {processes}")
    with ExitStack() as stack:
        results: Iterator[Result]
        if processes == 1 or number == 1:
            results = map(task, range(number))
        else:
            context = _process_context(type(task).__module__)
            executor = ProcessPoolExecutor(min(processes, number), context, _start_worker, (task,))
            stack.callback(executor.shutdown, cancel_futures=True)
            with interrupts_blocked():
                results = executor.map(_run_in_worker, range(number))
        return list(tqdm(results, desc=title, total=number, unit="image", disable=None))


def _process_context(module: str) -> multiprocessing.context.BaseContext:
    """Processes that inherit no threads or locks of this one, and share one import of the module where possible."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    return context


_worker_task: Optional[Callable[[int], Any]] = None


def _start_worker(task: Callable[[int], Any]) -> None:
    global _worker_task
    follow_parent()
    cv2.setNumThreads(1)  # the processes share the cores already
    _worker_task = task


def _run_in_worker(index: int) -> Any:
    assert _worker_task is not None
    return _worker_task(index)
