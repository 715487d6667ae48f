"""metrics.json: lines of JSON that a training writes every 20 steps; read, and cut back where a training goes on."""

import itertools
import logging
from pathlib import Path
from typing import Any, Callable, NamedTuple, Sequence, TypeVar, Union

from sact_det.base.errors import InputError, shown
from sact_det.base.files import write_text
from sact_det.base.text_files import parse_json, read_text

logger = logging.getLogger(__name__)

Point = TypeVar("Point")


class _Line(NamedTuple):
    text: str
    values: dict[str, Any]

    @property
    def step(self) -> int:
        return self.values["iteration"]

    @property
    def is_of_training(self) -> bool:
        """Whether it tells of a step; what an evaluation found has a line of its own where the two do not coincide."""
        return "total_loss" in self.values


def read_course(path: Union[str, Path]) -> list[dict[str, Any]]:
    """What metrics.json says of the steps of a training, in their order; each step once (`without_superseded`).

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    lines = [line.values for line in _read(path) if line.is_of_training]
    return without_superseded(lines, lambda line: line["iteration"])


def without_superseded(points: Sequence[Point], step: Callable[[Point], int]) -> list[Point]:
    """The points that no later one supersedes, so that their steps rise.

    A training that was killed and went on from its last checkpoint, or from the start, ran steps again. What it had
    written of them, and of any later step, is no part of the course that led to its weights.

    Args:
        points: in the order in which they were written.
        step: of a point.
    """
    kept: list[Point] = []
    for point in reversed(points):
        if not kept or step(point) < step(kept[-1]):
            kept.append(point)
    return kept[::-1]


def prepare_metrics(path: Union[str, Path], first_step: int) -> None:
    """Makes metrics.json ready for a training that starts with step `first_step` (from 0) to append to it.

    Lines of that step and later ones are dropped, and the rest of a line that was being written when a run was killed.
    Where a training starts anew, or cannot read what is there, the file is renamed to the first free of
    metrics.1.json, metrics.2.json, ...

    Raises:
        OSError: the folder cannot be written.
    """
    path = Path(path)
    if not path.is_file() or not path.stat().st_size:
        return
    if first_step == 0:
        logger.info("%s is of an earlier run: kept as %s", path, _set_aside(path))
        return
    try:
        lines = _read(path)
    except InputError as error:
        logger.warning("%s: kept as %s", error, _set_aside(path))
        return
    # An evaluation at the end of a training that is now prolonged is noted at the step that would have come next.
    kept = [line for line in lines if line.step < first_step or (line.step == first_step and not line.is_of_training)]
    write_text(path, "".join(f"{line.text}\n" for line in kept))


def _set_aside(path: Path) -> Path:
    names = (path.with_name(f"{path.stem}.{number}{path.suffix}") for number in itertools.count(1))
    return path.rename(next(name for name in names if not name.exists()))


def _read(path: Union[str, Path]) -> list[_Line]:
    text = read_text(path, missing="no such file; expected the OUTPUT_DIR of a finished training")
    *whole, last = text.split("\n")
    lines = [_parsed(path, number, line) for number, line in enumerate(whole, 1) if line.strip()]
    try:
        return lines if not last.strip() else [*lines, _parsed(path, len(whole) + 1, last)]
    except InputError:  # killed while it was being written
        return lines


def _parsed(path: Union[str, Path], number: int, text: str) -> _Line:
    try:
        values = parse_json(text, path)
    except InputError:
        values = None
    step = values.get("iteration") if isinstance(values, dict) else None
    if isinstance(step, bool) or not isinstance(step, int):
        raise InputError(f'{path}: line {number} is no line of metrics with its "iteration": {shown(text, 80)}')
    return _Line(text, values)
