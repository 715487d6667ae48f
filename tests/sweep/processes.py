"""Processes that could not be started, or would wait for each other for ever."""

import socket

from sweep.harness import CLASSIFIER, DETECTOR, SALIENCY, Case, Place

_listeners: list[socket.socket] = []


def _taken_port(place: Place) -> str:
    """The word for an address whose port another program listens at."""
    listener = socket.create_server(("", 0))
    _listeners.append(listener)
    return f"tcp://127.0.0.1:{listener.getsockname()[1]}"


TWO_MACHINES = ("--num-machines", "2")
CENTER = (*SALIENCY, "--center-only")
TWO_PROCESSES = ("--num-processes", "2")

CASES = [
    *(
        Case("train_net", rf"--num-gpus must be 1 or more, .*; got {number} ", "--num-gpus", number, *task)
        for task in (DETECTOR, CLASSIFIER)
        for number in ("0", "-1", "-8")
    ),
    *(
        Case("train_net", rf"--num-machines must be 1 or more; got {number}$", "--num-machines", number, *DETECTOR)
        for number in ("0", "-2")
    ),
    *(
        Case(
            "train_net",
            rf"--machine-rank must lie in 0 to 1 .*; got {rank}$",
            *TWO_MACHINES,
            "--machine-rank",
            rank,
            *task,
        )
        for task in (DETECTOR, CLASSIFIER)
        for rank in ("-1", "2", "5")
    ),
    Case("train_net", r"--machine-rank must lie in 0 to 0 .*; got 1$", "--machine-rank", "1", *DETECTOR),
    *(
        Case("train_net", r"--dist-url must be tcp://HOST:PORT, .*; got", *TWO_PROCESSES, "--dist-url", url, *DETECTOR)
        for url in (
            *(
                "foo",
                "",
                "127.0.0.1",
                "127.0.0.1:29500",
                "tcp://",
                "tcp://127.0.0.1",
                "tcp://:29500",
                "tcp://127.0.0.1:0",
            ),
            *("tcp://127.0.0.1:x", "tcp://127.0.0.1:99999", "http://127.0.0.1:80", "file://nowhere"),
            *("file:///nowhere/store", "env:", "Auto", "tcp://[::1"),
        )
    ),
    Case("train_net", r"--dist-url must be tcp://HOST:PORT, .*; got 'foo'", "--dist-url", "foo", *CLASSIFIER),
    Case("train_net", r"env://: MASTER_ADDR and MASTER_PORT not", *TWO_PROCESSES, "--dist-url", "env://", *DETECTOR),
    Case("train_net", r"--dist-url auto: 2 machines need", *TWO_MACHINES, "--dist-url", "auto", *DETECTOR),
    Case("train_net", r"port \d+ of this machine cannot", *TWO_PROCESSES, "--dist-url", _taken_port, *DETECTOR),
    *(
        Case(
            "train_net",
            rf"SOLVER\.IMS_PER_BATCH must be a positive multiple of the number of processes, {number}; got 4",
            *("--num-processes", number, "--dist-url", "auto", *task, "SOLVER.IMS_PER_BATCH", "4"),
        )
        for task in (DETECTOR, CLASSIFIER)
        for number in ("3", "1000000")
    ),
    *(
        Case(
            "evaluate_saliency", rf"{option} must be positive; got {number}", *SALIENCY, "--center-only", option, number
        )
        for option in ("--processes", "--num-gpus", "--num-processes")
        for number in ("0", "-1")
    ),
]
