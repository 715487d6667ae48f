"""Which of several copies of a command this process is, as torchrun tells every copy in its environment."""

from typing import Mapping, NamedTuple, Optional

from sact_det.base.errors import InputError

_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


class Place(NamedTuple):
    """A process among those that share a task.

    Attributes:
        rank: from 0, of all.
        world_size: how many there are, on all machines.
        local_rank: from 0, of those on this machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0


def place_by_torchrun(environment: Mapping[str, str]) -> Optional[Place]:
    """What RANK, WORLD_SIZE and LOCAL_RANK say; None unless all three are set: torchrun has not started this process.

    Raises:
        InputError: they are no such numbers.
    """
    values = [environment.get(name, "").strip() for name in _NAMES]
    if not all(values):
        return None
    said = " ".join(f"{name}={value}" for name, value in zip(_NAMES, values))
    if not all(value.isdecimal() for value in values):
        raise InputError(f"{said}: torchrun sets whole numbers")
    place = Place(*map(int, values))
    if not place.local_rank <= place.rank < place.world_size:
        raise InputError(f"{said}: RANK must be below WORLD_SIZE and not below LOCAL_RANK")
    return place


def restarts(environment: Mapping[str, str]) -> int:
    """How often torchrun has started processes anew because one failed (--max-restarts); 0 without torchrun."""
    count = environment.get("TORCHELASTIC_RESTART_COUNT", "").strip()
    return int(count) if count.isdecimal() else 0
