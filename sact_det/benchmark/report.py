"""Measured times as tables in markdown and as plain values."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Mapping, Optional, Protocol, Sequence

from tabulate import tabulate

from sact_det.benchmark.timing import Spread, ratios


class AnyTable(Protocol):
    """What a measure yields."""

    @property
    def title(self) -> str:
        """What ran; no other table of the measure is called so."""

    @property
    def finished(self) -> bool:
        """Whether no more of it will come."""

    def values(self) -> dict[str, Any]:
        """Everything, derived numbers included, as plain values."""

    def markdown(self) -> str:
        """The table with its title above."""


@dataclass(frozen=True)
class Entry:
    """A candidate's place in a table.

    Attributes:
        name: of the candidate.
        rival: whether it is dense; the fastest of these sets THE dense time.
        flop_ratio: FLOPs / those of the plain network, as the network itself counts them.
        difference: of its output from what it must equal, relative to the largest output; None if not comparable.
        wanted_ratio: FLOP ratio that the masks were made for, None for masks of the network's own.
        execution: of the network, None for a rival.
        parts: times of stretches of a run, by name, in seconds, one number per round.
        detector_ratio: FLOPs of the whole detector / those of the dense ones; None where a part is measured.
        regions: that the box head looked at, on average over images.
    """

    name: str
    rival: bool
    flop_ratio: float = 1.0
    difference: Optional[float] = None
    wanted_ratio: Optional[float] = None
    execution: Optional[str] = None
    parts: Mapping[str, Sequence[float]] = field(default_factory=dict)
    detector_ratio: Optional[float] = None
    regions: Optional[float] = None

    @property
    def whole_ratio(self) -> float:
        """FLOP ratio of all that was timed."""
        return self.flop_ratio if self.detector_ratio is None else self.detector_ratio


def with_parts(entry: Entry, laps: Sequence[Mapping[str, float]]) -> Entry:
    """An entry with the times of stretches of its runs; laps: name -> seconds, one mapping per round."""
    return replace(entry, parts={name: [lap[name] for lap in laps] for name in laps[0]})


@dataclass(frozen=True)
class Table:
    """Candidates that took turns.

    Attributes:
        title: what ran.
        input_shape: of every input.
        dense_flops: of the plain network in a run.
        entries: the candidates.
        times: name -> seconds, one number per round.
        absent: name -> why a rival did not take part.
        inputs: how many a run takes, one after the other.
        remarks: whatever else must be known, a line each.
    """

    finished: ClassVar[bool] = True

    title: str
    input_shape: Sequence[int]
    dense_flops: int
    entries: Sequence[Entry]
    times: Mapping[str, Sequence[float]]
    absent: Mapping[str, str] = field(default_factory=dict)
    inputs: int = 1
    remarks: Sequence[str] = ()

    @property
    def dense(self) -> Optional[str]:
        """The rival whose time is THE dense time; None without rivals."""
        rivals = [entry.name for entry in self.entries if entry.rival]
        return min(rivals, key=lambda name: Spread.of(self.times[name]).median, default=None)

    def values(self) -> dict[str, Any]:
        """Everything, derived numbers included, as plain values; times in milliseconds."""
        return {
            "title": self.title,
            "input_shape": list(self.input_shape),
            "inputs": self.inputs,
            "dense_gflop": self.dense_flops / 1e9,
            "dense": self.dense,
            "absent": dict(self.absent),
            "remarks": list(self.remarks),
            "rows": [self._row(entry) for entry in self.entries],
        }

    def _row(self, entry: Entry) -> dict[str, Any]:
        times, base = self.times[entry.name], self.dense
        ratio = None if base is None else ratios(times, self.times[base])
        return {
            "name": entry.name,
            "rival": entry.rival,
            "execution": entry.execution,
            "wanted_flop_ratio": entry.wanted_ratio,
            "flop_ratio": entry.flop_ratio,
            "difference": entry.difference,
            "times_ms": [1e3 * seconds for seconds in times],
            "ms": _spread(Spread.of(times), 1e3),
            "time_ratio": None if ratio is None else _spread(ratio),
            "time_over_flops": None if ratio is None else ratio.median / entry.whole_ratio,
            "detector_flop_ratio": entry.detector_ratio,
            "regions": entry.regions,
            "parts_ms": {name: _spread(Spread.of(values), 1e3) for name, values in entry.parts.items()},
        }

    def markdown(self) -> str:
        """The table with its title above, who was absent and the remarks below."""
        rows = self.values()["rows"]
        parts = list(dict.fromkeys(name for entry in self.entries for name in entry.parts))
        whole = any(entry.detector_ratio is not None for entry in self.entries)
        headers = [
            "",
            "FLOP ratio",
            *(("whole detector", "regions") if whole else ()),
            "ms",
            "quartiles",
            "time ratio",
            "time / FLOPs",
            *(f"{name}, ms" for name in parts),
        ]
        cells = [
            [
                _emphasised(row["name"], row["name"] == self.dense),
                f"{row['flop_ratio']:.3f}",
                *((f"{row['detector_flop_ratio']:.3f}", f"{row['regions']:.0f}") if whole else ()),
                f"{row['ms']['median']:.1f}",
                f"{row['ms']['lower']:.1f}-{row['ms']['upper']:.1f}",
                "" if row["time_ratio"] is None else f"{row['time_ratio']['median']:.3f}",
                "" if row["time_over_flops"] is None else f"{row['time_over_flops']:.3f}",
                *(f"{row['parts_ms'][name]['median']:.1f}" if name in row["parts_ms"] else "" for name in parts),
            ]
            for row in rows
        ]
        align = ("left", *["right"] * (len(headers) - 1))
        body = tabulate(cells, headers, tablefmt="pipe", colalign=align, disable_numparse=True)
        shape = ("" if self.inputs == 1 else f"{self.inputs} of ") + "x".join(map(str, self.input_shape))
        rounds = len(next(iter(self.times.values())))
        head = f"{self.title}: input {shape}, {self.dense_flops / 1e9:.2f} GFLOP dense, {rounds} rounds"
        absent = [f"{name}: {reason}." for name, reason in self.absent.items()]
        return "\n\n".join([f"### {head}", body, *absent, *(f"{remark}." for remark in self.remarks)])


@dataclass(frozen=True)
class MemoryTable:
    """Peak memory, each candidate in a process of its own.

    Attributes:
        title: what ran.
        input_shape: of the run.
        peaks: name -> bytes: "empty" without any network, "before" with weights and input, "peak" of the run; on a CPU
            of the resident set, on a GPU of PyTorch's allocations. What counts is what comes on top of "empty".
        rivals: the names of dense candidates.
        absent: name -> why it did not take part.
    """

    finished: ClassVar[bool] = True

    title: str
    input_shape: Sequence[int]
    peaks: Mapping[str, Mapping[str, int]]
    rivals: Sequence[str]
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def dense(self) -> Optional[str]:
        """The name of the rival with the lowest peak; None without rivals."""
        return min(self.rivals, key=self._taken, default=None)

    def _taken(self, name: str) -> int:
        return self.peaks[name]["peak"] - self.peaks[name]["empty"]

    def values(self) -> dict[str, Any]:
        """Everything as plain values, in bytes."""
        return {
            "title": self.title,
            "input_shape": list(self.input_shape),
            "dense": self.dense,
            "absent": dict(self.absent),
            "rows": [{"name": name, "rival": name in self.rivals, **peak} for name, peak in self.peaks.items()],
        }

    def markdown(self) -> str:
        """As Table.markdown; no ratio to a network so small that memory at hand was enough."""
        dense = 0 if self.dense is None else self._taken(self.dense)
        cells = [
            [
                _emphasised(name, name == self.dense),
                f"{(peak['before'] - peak['empty']) / 2**20:.0f}",
                f"{self._taken(name) / 2**20:.0f}",
                f"{self._taken(name) / dense:.3f}" if dense > 0 else "",
            ]
            for name, peak in self.peaks.items()
        ]
        headers = ["", "before the run, MiB", "peak, MiB", "peak ratio"]
        align = ("left", "right", "right", "right")
        body = tabulate(cells, headers, tablefmt="pipe", colalign=align, disable_numparse=True)
        head = f"### {self.title}: input {'x'.join(map(str, self.input_shape))}"
        return "\n\n".join([head, body, *(f"{name}: {reason}." for name, reason in self.absent.items())])


def machine_line(machine: Mapping[str, Any]) -> str:
    """What the reader of a table must know of the machine, as one line."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items() if number is not None)
    where = machine["gpu"] or f"{machine['processor']} ({machine['instructions']})"
    load = "" if machine["load"] is None else f", load {machine['load']:.1f} at the start"
    return f"{where}, {machine['threads']} threads of {machine['cpus']} processors{load}; {versions}; {machine['date']}"


def _spread(spread: Spread, factor: float = 1.0) -> dict[str, float]:
    return {name: factor * getattr(spread, name) for name in ("median", "lower", "upper")}


def _emphasised(name: str, yes: bool) -> str:
    return f"**{name}**" if yes else name
