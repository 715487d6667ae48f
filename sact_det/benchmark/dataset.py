"""AP beside seconds on a registered data set: adaptive detectors beside static ones."""

import tempfile
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Iterator, Mapping, Optional, Sequence

import torch
from torch import Tensor

from sact_det.benchmark.contestants import Contestant
from sact_det.benchmark.dataset_table import DatasetTable
from sact_det.benchmark.detector import TimedDetector
from sact_det.benchmark.quality import evaluate, evaluation_key, register_few, timed_batches
from sact_det.benchmark.setting import Setting
from sact_det.benchmark.static_rivals import PlainDetector, Programs
from sact_det.benchmark.timing import Candidate
from sact_det.detection.class_ap import check_classes
from sact_det.detection.predictor import load_detector
from sact_det.execution import set_execution


@dataclass(frozen=True)
class _Runner:
    """A contestant that can run: `prepare` makes the detector, which others may share, this contestant's."""

    contestant: Contestant
    timed: TimedDetector
    prepare: Callable[[Programs], None]


def measure_dataset(
    title: str,
    contestants: Sequence[Contestant],
    dataset: str,
    setting: Setting,
    max_images: int,
    ap_images: Optional[int] = None,
    known: Optional[Mapping[str, dict[str, Any]]] = None,
    classes: Sequence[str] = (),
    batch: int = 1,
) -> Iterator[DatasetTable]:
    """Whole detectors: AP once for each, on all images, then seconds batch by batch, all contestants taking turns.

    Reading and resizing of images are not timed. A static one runs in the programs that are fastest for it at the first
    batch, its extractor and its box head each either in this package's own kernels or in the fastest of the rivals.

    Args:
        title: of the table.
        contestants: static ones first, the one to compare with before all.
        dataset: a registered one.
        setting: device, precision, rounds and which rivals static ones may run in.
        max_images: so many images, evenly spread, are timed.
        ap_images: AP is on so many images, evenly spread; None: on all.
        known: earlier evaluations (quality.py) by their key, which are not repeated.
        classes: whose mean AP stands beside the seconds; (): all.
        batch: so many images are computed at a time where seconds are measured.

    Yields:
        The same table whenever there is more in it, at last finished.

    Raises:
        InputError: the data set, its classes or weights cannot be used.
    """
    check_classes(classes, dataset)
    known = dict(known or {})
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), setting.activated():
        few = dataset if ap_images is None else register_few(dataset, ap_images, folder)
        table = DatasetTable(title, contestants, classes=classes, batch=batch)
        plain: dict[str, PlainDetector] = {}
        adaptive: dict[str, TimedDetector] = {}
        runners = [_runner(contestant, plain, adaptive, setting) for contestant in contestants]
        for contestant in contestants:
            table.keys[contestant.name] = key = evaluation_key(contestant.cfg, few, setting.precision)
            if key in known:  # at once, so that it stays known if this run ends early, too
                table.quality[contestant.name] = known[key]
        for number, runner in enumerate(runners, 1):
            contestant = runner.contestant
            key = table.keys[contestant.name]
            if key not in known:
                setting.note(f"[{number} of {len(runners)}] AP of {contestant.name}")
                runner.prepare(Programs())
                known[key] = evaluate(contestant.cfg, runner.timed.model, few, setting)
            table.quality[contestant.name] = known[key]
            yield table
        batches = {one.contestant.name: timed_batches(one.contestant.cfg, few, max_images, batch) for one in runners}
        what, total = "image" if batch == 1 else "batch", len(batches[table.base])
        for number in range(total):
            own = {name: items[number] for name, items in batches.items()}
            _time(f"{what} {number + 1} of {total}", runners, plain, own, table, setting)
            yield table
        table.remarks = _remarks(table, plain)
        table.finished = True
        yield table


def _runner(
    contestant: Contestant, plain: dict[str, PlainDetector], adaptive: dict[str, TimedDetector], setting: Setting
) -> _Runner:
    """Static contestants of the same weights share a detector, kept in `plain`, an adaptive one at all its budgets."""
    if not contestant.static:
        if contestant.detector not in adaptive:
            setting.note(f"Loading {contestant.detector}")
            model = load_detector(contestant.cfg)
            set_execution(model, contestant.execution)
            adaptive[contestant.detector] = TimedDetector(model, setting.device)
        timed = adaptive[contestant.detector]
        return _Runner(contestant, timed, lambda _: timed.model.set_budget(contestant.budget))
    if contestant.detector not in plain:
        setting.note(f"Loading {contestant.detector}")
        plain[contestant.detector] = PlainDetector(contestant.cfg, setting)
    detector = plain[contestant.detector]
    return _Runner(contestant, detector.timed, partial(detector.install, proposals=contestant.proposals))


def _time(
    title: str,
    runners: Sequence[_Runner],
    plain: Mapping[str, PlainDetector],
    batches: Mapping[str, Sequence[tuple[Any, Tensor]]],
    table: DatasetTable,
    setting: Setting,
) -> None:
    """Adds a batch, images as (id, [3, H, W]) for every contestant, to the table."""
    laps: dict[str, list[Mapping[str, float]]] = {runner.contestant.name: [] for runner in runners}

    def candidate(runner: _Runner) -> Candidate:
        contestant = runner.contestant
        images = [image for _, image in batches[contestant.name]]
        run = partial(runner.timed.run, images, setting, postprocess=True, batch=len(images))
        programs = Programs()
        if contestant.static:
            programs = plain[contestant.detector].fastest(images, contestant.proposals)
        prepare = partial(runner.prepare, programs)
        prepare()
        run()  # what serves one shape is built
        own = plain[contestant.detector].names(programs) if contestant.static else contestant.execution
        table.programs[contestant.name] = own
        own_laps = laps[contestant.name]
        return Candidate(contestant.name, lambda _: own_laps.append(run()), prepare)

    times = setting.times([candidate(runner) for runner in runners], title)
    for detector in plain.values():
        detector.forget()
    table.images += [number for number, _ in batches[table.base]]
    for name, seconds in times.items():
        each = len(batches[name])
        table.seconds.setdefault(name, []).append([own / each for own in seconds])
        table.parts.setdefault(name, []).append(
            [{part: own / each for part, own in lap.items()} for lap in laps[name][-setting.rounds :]]
        )


def _remarks(table: DatasetTable, plain: Mapping[str, PlainDetector]) -> list[str]:
    evaluated, timed = len(table.quality[table.base]["images"]), len(table.images)
    rounds = len(table.seconds[table.base][0])
    together = "" if table.batch == 1 else f", {table.batch} alike at a time"
    absent = {f"{name}: {reason}" for detector in plain.values() for name, reason in detector.absent.items()}
    return [
        f"AP, FLOPs and regions are of {evaluated} images, seconds medians of {rounds} rounds over {timed} of them"
        f"{together}, each at its own test size; programs that serve one size are built for each",
        *([f"{table.judged_by} is the mean of {', '.join(table.classes)}"] if table.classes else []),
        "Time and FLOPs are shares of the first row's; time / FLOPs is on the timed images",
        "Programs of static detectors are those of extractor + box head that were fastest at the first of them; auto "
        "is this package's own kernels",
        *(f"{name}: {remark}" for name, detector in plain.items() for remark in detector.remarks),
        *sorted(absent),
    ]
