"""Candidates that take turns, so that other load on the machine meets all of them, and what their times say."""

import contextlib
import gc
import time
from dataclasses import dataclass
from typing import Any, Callable, Iterator, Optional, Sequence

import numpy as np
import torch

from sact_det.base.garbage_collection import uncollected


@dataclass(frozen=True)
class Candidate:
    """Something to be timed.

    Attributes:
        name: unlike all others.
        run: what is timed. It is given what `prepare` returns.
        prepare: called before every run, untimed.
    """

    name: str
    run: Callable[[Any], Any]
    prepare: Callable[[], Any] = lambda: None


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of some numbers, in their unit."""

    median: float
    lower: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of at least one value; between two values it is interpolated (numpy's default)."""
        lower, median, upper = np.percentile(values, (25, 50, 75))
        return cls(float(median), float(lower), float(upper))


def synchronize(device: Optional[torch.device]) -> None:
    """Waits until the device has done all it was asked for."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """No collection falls into a timed run; what there is now is collected first."""
    gc.collect()
    with uncollected():
        yield


def interleaved_times(
    candidates: Sequence[Candidate],
    rounds: int,
    warmup: int = 1,
    device: Optional[torch.device] = None,
    tick: Optional[Callable[[], Any]] = None,
) -> dict[str, list[float]]:
    """Wall time of every candidate in every round.

    In a round every candidate runs once; each round starts with another one.

    Args:
        candidates: what to time.
        rounds: at least 1.
        warmup: untimed rounds before.
        device: waited for at both ends of a run; None: the CPU.
        tick: called after every run.

    Returns:
        name -> seconds, one number per round.
    """
    times: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    if len(times) != len(candidates):
        raise ValueError(f"`candidates` must differ in name; got {[candidate.name for candidate in candidates]}")
    with without_garbage_collection():
        for number in range(-warmup, rounds):
            first = number % len(candidates)
            for candidate in (*candidates[first:], *candidates[:first]):
                prepared = candidate.prepare()
                synchronize(device)
                start = time.perf_counter()
                candidate.run(prepared)
                synchronize(device)
                seconds = time.perf_counter() - start
                del prepared
                if number >= 0:
                    times[candidate.name].append(seconds)
                if tick is not None:
                    tick()
    return times


def ratios(times: Sequence[float], base: Sequence[float]) -> Spread:
    """The spread of the quotients within a round: what slows a whole round down cancels out."""
    return Spread.of([own / other for own, other in zip(times, base, strict=True)])
