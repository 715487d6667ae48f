"""AP beside seconds as a table in markdown, as plain values and as points of a figure."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any, Mapping, Optional, Sequence, Union

from tabulate import tabulate

from sact_det.base.errors import InputError
from sact_det.base.text_files import read_json
from sact_det.benchmark.contestants import Contestant
from sact_det.benchmark.pareto import Point, beaten_by, draw_pareto
from sact_det.benchmark.timing import Spread, ratios
from sact_det.detection.class_ap import KEY, mean_over_classes
from sact_det.pictures.figures import save_figure
from sact_det.pictures.style import ON_SCREEN, Style


@dataclass
class DatasetTable:
    """What is known so far of the contestants.

    Attributes:
        title: what is measured.
        contestants: in the order of their rows; the first is what times and FLOPs are compared with.
        remarks: whatever else must be known, a line each.
        classes: whose mean AP stands beside the seconds; (): all.
        quality: name -> as of `evaluate` (quality.py).
        keys: name -> what tells that evaluation from others.
        batch: so many images are timed at a time.
        images: ids of those that are timed so far.
        seconds: name -> for every timed batch, seconds an image in every round.
        parts: name -> for every timed batch, seconds an image of extractor, proposals and box head in every round.
        programs: name -> what computes extractor and box head.
        finished: whether every contestant has been timed on every image.
    """

    title: str
    contestants: Sequence[Contestant]
    remarks: Sequence[str] = ()
    classes: Sequence[str] = ()
    batch: int = 1
    quality: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    images: list[Any] = field(default_factory=list)
    seconds: dict[str, list[list[float]]] = field(default_factory=dict)
    parts: dict[str, list[list[Mapping[str, float]]]] = field(default_factory=dict)
    programs: dict[str, str] = field(default_factory=dict)
    finished: bool = False

    @property
    def base(self) -> str:
        """The contestant that the others are compared with."""
        return self.contestants[0].name

    @property
    def judged_by(self) -> str:
        """The heading of what stands beside the seconds."""
        return f"AP of {len(self.classes)} classes" if self.classes else "AP"

    def values(self) -> dict[str, Any]:
        """Everything, derived numbers included, as plain values."""
        known = self.base in self.quality
        rows = [self._row(contestant) for contestant in self.contestants if known and contestant.name in self.quality]
        return {
            "title": self.title,
            "finished": self.finished,
            "dense": self.base,
            "timed_images": self.images,
            "batch": self.batch,
            "remarks": list(self.remarks),
            "rows": rows,
        }

    def points(self) -> list[Point]:
        """Those that have been timed; beside a static one stands its most regions, or size, beside others a budget."""
        return [
            Point(
                contestant.name,
                contestant.detector,
                contestant.line,
                contestant.static,
                self._ap(contestant.name),
                self._time(contestant.name).median,
                contestant.mark,
            )
            for contestant in self.contestants
            if self.seconds.get(contestant.name)
        ]

    def markdown(self) -> str:
        """The table with its title above and the remarks below."""
        headers = [
            "",
            *([self.judged_by] if self.classes else []),
            "AP",
            "AP50",
            "s/image",
            "time",
            "FLOPs, %",
            "time / FLOPs",
            "regions",
            "programs",
            "parts, ms",
            "",
        ]
        cells = [
            [
                f"**{row['name']}**" if row["name"] == self.base else row["name"],
                *([_number(row[KEY], 2)] if self.classes else []),
                _number(row["AP"], 2),
                _number(row["AP50"], 2),
                _number(row["s"] and row["s"]["median"], 4),
                _number(row["time_ratio"] and row["time_ratio"]["median"], 3),
                _number(row["flops_percent"], 1),
                _number(row["time_over_flops"], 3),
                _number(row["regions"], 1),
                row["programs"] or "",
                ", ".join(f"{name} {1e3 * seconds:.1f}" for name, seconds in part_medians(row["parts"]).items()),
                "" if row["beaten_by"] is None else f"beaten by {row['beaten_by']}",
            ]
            for row in self.values()["rows"]
        ]
        align = ("left", *["right"] * (len(headers) - 4), "left", "left", "left")
        body = tabulate(cells, headers, tablefmt="pipe", colalign=align, disable_numparse=True)
        return "\n\n".join([f"### {self.title}", body, *(f"{remark}." for remark in self.remarks)])

    def draw(self, path: Union[str, Path], machine: str, style: Style = ON_SCREEN) -> None:
        """Draws AP against seconds; `machine` is where it was measured. Raises OSError."""
        evaluated = len(self.quality[self.base]["images"])
        together = "" if self.batch == 1 else f", {self.batch} at a time"
        judged = f"AP of {', '.join(self.classes)}" if self.classes else "AP"
        caption = (
            f"{judged} on {evaluated} images, seconds on {len(self.images)}{together}; beside static ones: most "
            "regions, or size, beside others their budget; hollow: a static one has at least its AP in at most its "
            f"time. {machine}"
        )
        save_figure(lambda: draw_pareto(self.points(), self.title, caption), Path(path), style)

    def _row(self, contestant: Contestant) -> dict[str, Any]:
        name, quality = contestant.name, self.quality[contestant.name]
        timed = bool(self.seconds.get(name))
        ratio = ratios(self._rounds(name), self._rounds(self.base)) if timed else None
        flop_ratio = self._gflops(name, self.images) / self._gflops(self.base, self.images) if timed else None
        points = self.points()
        better = next((beaten_by(point, points) for point in points if point.name == name), None)
        images = quality["images"]
        return {
            "name": name,
            "line": contestant.line,
            "static": contestant.static,
            "execution": contestant.execution,
            "weights": contestant.cfg.MODEL.WEIGHTS,
            "proposals": contestant.proposals,
            "scale": contestant.scale,
            "budget": contestant.budget,
            **({KEY: self._ap(name)} if self.classes else {}),
            "AP": quality["bbox"]["AP"],
            "AP50": quality["bbox"]["AP50"],
            "s": _plain(self._time(name)) if timed else None,
            "time_ratio": None if ratio is None else _plain(ratio),
            "flops_percent": 100 * self._gflops(name) / self._gflops(self.base),
            "gflops": self._gflops(name),
            "timed_flop_ratio": flop_ratio,
            "time_over_flops": None if ratio is None or flop_ratio is None else ratio.median / flop_ratio,
            "regions": mean(row["regions"] for row in images),
            "programs": self.programs.get(name),
            "beaten_by": None if better is None else better.name,
            "seconds": self.seconds.get(name, []),
            "parts": self.parts.get(name, []),
            "key": self.keys[name],
            "quality": quality,
        }

    def _ap(self, name: str) -> float:
        boxes = self.quality[name]["bbox"]
        return mean_over_classes(boxes, self.classes) if self.classes else _or_nan(boxes["AP"])

    def _rounds(self, name: str) -> list[float]:
        """Seconds an image in every round, on average over the timed batches, which are equally large."""
        return [mean(seconds) for seconds in zip(*self.seconds[name])]

    def _time(self, name: str) -> Spread:
        return Spread.of(self._rounds(name))

    def _gflops(self, name: str, ids: Optional[Sequence[Any]] = None) -> float:
        """Of the whole detector, on average over the images of these ids, or over all."""
        rows = self.quality[name]["images"]
        return mean(row["gflops"] for row in rows if ids is None or row["image_id"] in ids)


def part_medians(parts: Sequence[Sequence[Mapping[str, float]]]) -> dict[str, float]:
    """Seconds an image of each part of a detector: the median over rounds of the mean over images.

    Args:
        parts: for every timed batch seconds an image by part, a mapping a round.
    """
    rounds = list(zip(*parts))
    return {
        name: median(mean(laps[name] for laps in one) for one in rounds) for name in (rounds[0][0] if rounds else ())
    }


def known_evaluations(path: Union[str, Path]) -> dict[str, dict[str, Any]]:
    """The evaluations in a json that the benchmark wrote, by their key; none where there is no such file."""
    if not Path(path).exists():
        return {}
    try:
        tables = read_json(path)["tables"]
        return {row["key"]: row["quality"] for table in tables for row in table["rows"] if "quality" in row}
    except (InputError, KeyError, TypeError):
        return {}  # of something else, which will be replaced


def _plain(spread: Spread) -> dict[str, float]:
    return {"median": spread.median, "lower": spread.lower, "upper": spread.upper}


def _or_nan(value: Optional[float]) -> float:
    """A json has no NaN."""
    return math.nan if value is None else value


def _number(value: Optional[float], digits: int) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.{digits}f}"
