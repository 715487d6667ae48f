"""What the paths are that a report is made of: runs, evaluations of saliency, sweeps over resolutions, benchmarks."""

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator, Sequence

from sact_det.base.errors import InputError
from sact_det.base.text_files import read_json
from sact_det.experiments.results_file import check_run
from sact_det.experiments.runs import read_run

logger = logging.getLogger(__name__)

_SEED = re.compile(r"seed_\d+")
_KINDS = {"tables": "benchmarks", "pairs": "sweeps", "scored_images": "saliency"}  # by a key of their json
_EXPECTED = (
    "expected the OUTPUT_DIR of a finished training, the folder of tools/evaluate_saliency.py or "
    "tools/sweep_resolutions.py, a json of tools/benchmark.py, or a folder that holds such"
)


@dataclass
class Row:
    """A network and its trainings, which differ in nothing but the seed: `runs` are read_run's, with their folder."""

    name: str
    runs: list[dict[str, Any]]

    @property
    def folder(self) -> Path:
        """Of the first training."""
        return Path(self.runs[0]["folder"])

    @property
    def dataset(self) -> str:
        """That it was evaluated on."""
        return self.runs[0]["dataset"]

    @property
    def results(self) -> dict[str, Any]:
        """Of the first training, by evaluator."""
        return self.runs[0]["results"]


@dataclass
class Inputs:
    """What was found.

    Attributes:
        rows: trainings.
        saliency, sweeps: folders.
        benchmarks: json files.
    """

    rows: list[Row] = field(default_factory=list)
    saliency: list[Path] = field(default_factory=list)
    sweeps: list[Path] = field(default_factory=list)
    benchmarks: list[Path] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.rows or self.saliency or self.sweeps or self.benchmarks)


def find_inputs(paths: Sequence[str]) -> Inputs:
    """Looks what each path is; of a folder that is nothing itself, at what lies in it, two folders deep.

    Trainings in folders seed_0, seed_1, ... beside each other are one row under the name of the folder that holds them.

    Raises:
        InputError: a path is nothing that a report can be made of, or a training that is named itself is not finished.
    """
    found = Inputs()
    runs: dict[Path, list[dict[str, Any]]] = {}
    for path in map(Path, paths):
        before = len(runs) + sum(map(len, (found.saliency, found.sweeps, found.benchmarks)))
        for one in [path] if _kind(path) else _within(path, 2):
            kind = _kind(one)
            if kind != "run":
                getattr(found, kind).append(one)
                continue
            try:
                run = {"folder": str(one), **read_run(one)}
                check_run(one, run)
            except InputError as error:
                if one == path:
                    raise
                logger.info("Left out: %s", error)
                continue
            own = runs.setdefault(_network(one), [])
            if run["folder"] not in (other["folder"] for other in own):
                own.append(run)
        if before == len(runs) + sum(map(len, (found.saliency, found.sweeps, found.benchmarks))) and not runs:
            raise InputError(f"{path}: nothing to report; {_EXPECTED}")
    names = [network.name for network in runs]
    for network, own in runs.items():
        alone = names.count(network.name) == 1
        name = network.name if alone else f"{network.parent.name}/{network.name}"
        found.rows.append(Row(name, sorted(own, key=lambda run: run["seed"])))
    names_alone = _without_common_beginning([row.name for row in found.rows])
    for row, name in zip(found.rows, names_alone):
        row.name = name
    return found


def _without_common_beginning(names: Sequence[str]) -> list[str]:
    """Names without the words, ended by "_", with which all of them begin."""
    words = [name.split("_") for name in names]
    common = 0
    while len(words) > 1 and all(len(own) > common + 1 and own[common] == words[0][common] for own in words):
        common += 1
    return ["_".join(own[common:]) for own in words]


def _network(folder: Path) -> Path:
    """The folder that a training's network is called by."""
    folder = folder.resolve()
    return folder.parent if _SEED.fullmatch(folder.name) else folder


def _kind(path: Path) -> str:
    """ "run", an attribute of Inputs, or "" for none of them. Raises InputError if there is nothing."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; {_EXPECTED}")
    if path.is_dir() and (path / "config.yaml").is_file():
        return "run"
    file = path / "results.json" if path.is_dir() else path
    if file.suffix != ".json" or not file.is_file():
        return ""
    content = read_json(file)
    kind = next((kind for key, kind in _KINDS.items() if isinstance(content, dict) and key in content), "")
    return kind if path.is_dir() == (kind in ("saliency", "sweeps")) else ""


def _within(path: Path, depth: int) -> Iterator[Path]:
    if not path.is_dir():
        raise InputError(f"{path}: nothing to report; {_EXPECTED}")
    for child in sorted(path.iterdir()):
        try:
            kind = _kind(child)
        except InputError as error:  # of a file that nobody named
            logger.info("Left out: %s", error)
            continue
        if kind:
            yield child
        elif child.is_dir() and depth > 1:
            yield from _within(child, depth - 1)
