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
from sact_det.benchmark.quality import evaluate, evaluation_key, register_few, timed_images
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
) -> Iterator[DatasetTable]:
    """Whole detectors: AP once for each, on all images, then seconds image by image, all contestants taking turns.

    Reading and resizing of images are not timed. A static one runs in the programs that are fastest for it at the first
    image, its extractor and its box head each either in this package's own kernels or in the fastest of the rivals.

    Args:
        title: of the table.
        contestants: static ones first, the one to compare with before all.
        dataset: a registered one.
        setting: device, precision, rounds and which rivals static ones may run in.
        max_images: so many images, evenly spread, are timed.
        ap_images: AP is on so many images, evenly spread; None: on all.
        known: earlier evaluations (quality.py) by their key, which are not repeated.
        classes: whose mean AP stands beside the seconds; (): all.

    Yields:
        The same table whenever there is more in it, at last finished.

    Raises:
        InputError: the data set, its classes or weights cannot be used.
    """
    check_classes(classes, dataset)
    known = dict(known or {})
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), setting.activated():
        few = dataset if ap_images is None else register_few(dataset, ap_images, folder)
        table = DatasetTable(title, contestants, classes=classes)
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
        images = {runner.contestant.name: timed_images(runner.contestant.cfg, few, max_images) for runner in runners}
        for number in range(len(images[table.base])):
            own = {name: items[number] for name, items in images.items()}
            _time(f"image {number + 1} of {len(images[table.base])}", runners, plain, own, table, setting)
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
    images: Mapping[str, tuple[Any, Tensor]],
    table: DatasetTable,
    setting: Setting,
) -> None:
    """Adds an image, (id, [3, H, W]) for every contestant, to the table."""
    laps: dict[str, list[Mapping[str, float]]] = {runner.contestant.name: [] for runner in runners}

    def candidate(runner: _Runner) -> Candidate:
        contestant, (_, image) = runner.contestant, images[runner.contestant.name]
        programs = Programs()
        if contestant.static:
            programs = plain[contestant.detector].fastest(image, contestant.proposals)
        prepare = partial(runner.prepare, programs)
        prepare()
        runner.timed.run([image], setting, postprocess=True)  # what serves one shape is built
        own = plain[contestant.detector].names(programs) if contestant.static else contestant.execution
        table.programs[contestant.name] = own
        own_laps = laps[contestant.name]
        return Candidate(
            contestant.name, lambda _: own_laps.append(runner.timed.run([image], setting, postprocess=True)), prepare
        )

    times = setting.times([candidate(runner) for runner in runners], title)
    for detector in plain.values():
        detector.forget()
    table.images.append(images[table.base][0])
    for name, seconds in times.items():
        table.seconds.setdefault(name, []).append(seconds)
        table.parts.setdefault(name, []).append(laps[name][-setting.rounds :])


def _remarks(table: DatasetTable, plain: Mapping[str, PlainDetector]) -> list[str]:
    evaluated, timed = len(table.quality[table.base]["images"]), len(table.images)
    rounds = len(table.seconds[table.base][0])
    absent = {f"{name}: {reason}" for detector in plain.values() for name, reason in detector.absent.items()}
    return [
        f"AP, FLOPs and regions are of {evaluated} images, seconds medians of {rounds} rounds over {timed} of them, "
        "each at its own test size; programs that serve one size are built for each",
        *([f"{table.judged_by} is the mean of {', '.join(table.classes)}"] if table.classes else []),
        "Time and FLOPs are shares of the first row's; time / FLOPs is on the timed images",
        "Programs of static detectors are those of extractor + box head that were fastest at the first image; auto is "
        "this package's own kernels",
        *(f"{name}: {remark}" for name, detector in plain.items() for remark in detector.remarks),
        *sorted(absent),
    ]
