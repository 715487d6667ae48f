"""Who takes part in a training, on which machine, and who is silent when a collective fails."""

import socket
import threading
import time
from typing import Optional, Sequence

import torch.distributed as dist
from detectron2.utils import comm

PERIOD = 1.0  # seconds between two signs of life
SILENCE = 5.0  # seconds without any, behind which a process counts as ended

_others: Optional["Peers"] = None


class Peers:
    """Signs of life of the processes of a group, in the store through which they have met.

    Every process counts there in a thread, so that one that waits for others shows that it is alive. They are read
    only when something has failed. Nobody is ended because of them.

    Args:
        store: of the group, whose first process keeps it.
        rank: of this process.
        hosts: names of the machines, one for each rank.
    """

    def __init__(self, store: dist.Store, rank: int, hosts: Sequence[str]):
        self._store, self._hosts = store, hosts
        self._left = threading.Event()
        self._beat(rank, 0)
        threading.Thread(target=self._go_on, args=(rank,), name="peers", daemon=True).start()

    def _beat(self, rank: int, count: int) -> None:
        self._store.set(f"alive_{rank}", str(count))

    def _go_on(self, rank: int) -> None:
        count = 0
        while not self._left.wait(PERIOD):
            count += 1
            try:
                self._beat(rank, count)
            except RuntimeError:  # the store is gone, and the training with it
                return

    def leave(self) -> None:
        """Gives no further sign of life."""
        self._left.set()

    def silent(self) -> list[str]:
        """Those that give no sign of life for SILENCE seconds, as "rank 3 on HOST", by rank.

        Without the store, which ends with the process that keeps it, that is the first one.
        """
        try:
            before = self._counts()
            time.sleep(SILENCE)
            ended = [rank for rank, (old, new) in enumerate(zip(before, self._counts())) if old == new]
        except RuntimeError:
            ended = [0]
        return [f"rank {rank} on {self._hosts[rank]}" for rank in ended]

    def _counts(self) -> list[bytes]:
        return [self._store.get(f"alive_{rank}") for rank in range(len(self._hosts))]


def join(store: dist.Store, rank: int) -> None:
    """Begins to show that this process is alive. All processes of a group call it, behind the making of the group."""
    global _others
    _others = Peers(store, rank, comm.all_gather(socket.gethostname()))
    comm.synchronize()  # all of them have begun


def leave() -> None:
    """Gives no further sign of life."""
    global _others
    if _others is not None:
        _others.leave()
        _others = None


def silent() -> list[str]:
    """As of `Peers.silent`; none where this process has not joined others."""
    return [] if _others is None else _others.silent()
