"""A plain part of a network in whatever runs it fastest, which is found out by its inputs."""

from typing import Any, Callable, Hashable, Mapping, Sequence

import torch
from torch import Tensor, nn

from sact_det.benchmark.rivals import RIVALS, Maker, Rival, build_rivals
from sact_det.benchmark.setting import Setting
from sact_det.benchmark.timing import Candidate, Spread, interleaved_times

_TRIALS = 5


def power_of_two(shape: torch.Size) -> Hashable:
    """The same for shapes [N, C, H, W] whose N are between the same powers of two; H and W do not count."""
    return shape[0].bit_length(), shape[1]


class FastestProgram(nn.Module):
    """A plain part as the fastest of some rivals.

    Programs are built for the shape of an input when it is met first, since most serve one shape only.

    Args:
        what: the part is called in remarks.
        part: the plain network.
        setting: device and precision.
        names: keys of `makers` that compete.
        makers: what builds them.
        alike: shapes for which it gives the same are run by the same rival, which is the fastest at the first of them.

    Attributes:
        remarks: what ran inputs of a shape, and in what time, a line for each time it was asked.
        absent: name -> why a rival did not compete.
        ran: the rival that ran last; "nothing" before.
    """

    def __init__(
        self,
        what: str,
        part: nn.Module,
        setting: Setting,
        names: Sequence[str],
        makers: Mapping[str, Maker] = RIVALS,
        alike: Callable[[torch.Size], Hashable] = lambda shape: shape,
    ):
        super().__init__()
        self.part = part
        self._what, self._setting, self._names, self._makers, self._alike = what, setting, names, makers, alike
        self._choices: dict[Hashable, str] = {}
        self._programs: dict[torch.Size, Rival] = {}
        self._met: set[torch.Size] = set()
        self.remarks: list[str] = []
        self.absent: dict[str, str] = {}
        self.ran = "nothing"

    def forward(self, x: Tensor) -> Any:
        """x: [N, C, H, W], N > 0 -> what the part gives, float32, on its device.

        Raises:
            RuntimeError: no rival can run.
        """
        self._met.add(x.shape)
        if x.shape not in self._programs:
            self._programs[x.shape] = self._build(x)
        rival = self._programs[x.shape]
        self.ran = rival.name
        return rival(x)

    def forget(self) -> None:
        """Lets go of programs for shapes that have not been met since it was called last."""
        self._programs = {shape: rival for shape, rival in self._programs.items() if shape in self._met}
        self._met = set()

    def _build(self, x: Tensor) -> Rival:
        kind = self._alike(x.shape)
        if kind not in self._choices:
            rival = self._fastest(x)
            self._choices[kind] = rival.name
            return rival
        name = self._choices[kind]
        for rival in self._programs.values():
            if rival.name == name and rival.any_shape:
                return rival
        return self._built(x, [name])[0]

    def _fastest(self, x: Tensor) -> Rival:
        rivals = self._built(x, self._names)
        candidates = [Candidate(rival.name, rival, lambda: x) for rival in rivals]
        times = interleaved_times(candidates, _TRIALS, device=x.device)
        medians = {name: Spread.of(seconds).median for name, seconds in times.items()}
        rivals.sort(key=lambda rival: medians[rival.name])
        in_order = ", ".join(f"{rival.name} ({1e3 * medians[rival.name]:.1f} ms)" for rival in rivals)
        self.remarks.append(f"Rivals' {self._what} at {'x'.join(map(str, x.shape))}, fastest first: {in_order}")
        return rivals[0]

    def _built(self, x: Tensor, names: Sequence[str]) -> list[Rival]:
        rivals, _, absent = build_rivals(self.part, x, self._setting, names, self._makers)
        self.absent |= absent
        if not rivals:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in absent.items())
            raise RuntimeError(f"nothing runs {self._what} at {'x'.join(map(str, x.shape))} ({reasons})")
        return rivals
