#!/usr/bin/env python
r"""Trains and evaluates classifiers, or detectors, at several budgets: one for
all of them, one for each, and static ones.

    B=configs/Imagenette/budgets
    python tools/compare_budgets.py --output output/imagenette_budgets \
        --seeds 0 1 2 --budgets 0.4 0.55 0.7 0.85 1 \
        --calibrate-on imagenette1k_train \
        --adaptive "one price, shifted" $B/sact.yaml \
        --adaptive "drawn shift, per image" $B/drawn_shift_per_image.yaml \
        --adaptive "drawn tau, per image" $B/drawn_tau_per_image.yaml \
        --adaptive "drawn shift, per image, 1,000 steps" \
            $B/drawn_shift_per_image_1000.yaml \
        --priced "each for its price" $B/sact.yaml 0.5 0.2 0.1 0.05 0.001 \
        --units "fewer units" $B/plain.yaml 1,1,2,1 2,2,3,1 2,2,3,3 2,3,5,3 \
            3,4,6,3 \
        --sizes "lower resolution" $B/plain.yaml 80 96 104 120 128

Adaptive networks are calibrated (tools/calibrate_budget.py) on images of
--calibrate-on, and evaluated at the budgets on DATASETS.TEST, as static ones
are; with --scales a budget may make images smaller. FLOPs are shares of those
of REFERENCE_UNITS at the config's test size, of a detector the whole one's with
its number of proposals. `--units` starts from the first units of the config's
MODEL.WEIGHTS. A detector's `--sizes` are short sides, and it may have fewer
proposals, too:

    B=configs/BCCD
    python tools/compare_budgets.py --output output/bccd_budgets \
        --budgets 0.55 0.65 0.75 0.85 1 --calibrate-on bccd_train \
        --adaptive "one price, shifted" $B/budgets/sact.yaml \
        --adaptive "drawn shift" $B/budgets/drawn_shift.yaml \
        --proposals "fewer proposals" $B/plain_R_50_C4.yaml 12 20 30 60 \
        --sizes "smaller images" $B/plain_R_50_C4.yaml 136 160 192

OUTPUT receives results.json, table.md and budgets.png, anew after every seed,
and a folder for each training. The same command goes on where it was
interrupted, in the midst of a training, too; more seeds and networks may be
added.
"""

import argparse
import functools
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

import torch

import sact_det.engine  # noqa: F401  (first, because it imports Detectron2 quietly)

# isort: split

from sact_det.base.command_line import check_positive, parse_with_overrides
from sact_det.base.errors import InputError
from sact_det.base.files import writable_folder, write_json, write_text
from sact_det.base.processes import command_line
from sact_det.benchmark.machine import describe_machine
from sact_det.budget.table import check_budget
from sact_det.detection.class_ap import check_classes
from sact_det.engine.console import setup_log
from sact_det.experiments.budget_comparison import compare
from sact_det.experiments.calibration import (
    Settings,
    add_judging,
    add_scales,
    calibration_set,
    check_judging,
    check_scales,
)
from sact_det.experiments.comparison_report import comparison_table, draw_comparison
from sact_det.experiments.contenders import (
    Contender,
    at_budgets,
    at_proposals,
    at_sides,
    is_classifier,
    judged_by,
    with_first_units,
)
from sact_det.experiments.stage import run_stage
from sact_det.pictures.figures import save_figure
from sact_det.pictures.style import add_page_style, style_of
from sact_det.tasks import load_config

logger = logging.getLogger("sact_det.compare_budgets")

TRAIN = Path(__file__).with_name("train_net.py")


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument("--budgets", nargs="+", type=float, required=True, metavar="SHARE", help="in (0, 1], rising")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0], metavar="N", help="one after the other; default: 0"
    )
    parser.add_argument(
        "--calibrate-on", required=True, metavar="NAME", help="a data set of the configs, not the test's"
    )
    parser.add_argument("--max-images", type=int, default=100, metavar="N", help="of a calibration; default: 100")
    add_judging(parser)
    parser.add_argument(
        "--candidates", type=int, default=0, metavar="N", help="shifts of single blocks tried a budget; default: 0"
    )
    add_scales(parser)
    parser.add_argument(
        "--trained-statistics", action="store_true", help="of norms at all budgets, as of tools/calibrate_budget.py"
    )
    parser.add_argument("--title", metavar="TEXT", help="of the figure (default: the folder's name)")
    for option, what, values in (
        ("--adaptive", "one network for all budgets", None),
        ("--priced", "a network for every budget, and its price TAU", "TAU"),
        ("--units", "plain networks with so many units", "UNITS"),
        ("--sizes", "a plain network on images of other sides", "SIDE"),
        ("--proposals", "a plain detector with other numbers of proposals", "N"),
    ):
        metavar = ("NAME", "CONFIG") if values is None else ("NAME", f"CONFIG {values}")
        number = 2 if values is None else "+"
        parser.add_argument(option, nargs=number, action="append", default=[], metavar=metavar, help=what)
    add_page_style(parser)
    return parse_with_overrides(parser, argv, "all networks")


def check_arguments(args: argparse.Namespace) -> None:
    for budget in args.budgets:
        check_budget("--budgets", budget)
    if sorted(set(args.budgets)) != args.budgets:
        raise InputError(f"--budgets must rise; got {' '.join(f'{budget:g}' for budget in args.budgets)}")
    check_scales(args.scales)
    check_positive(args, "--max-images")
    check_judging(args)
    for key in ("OUTPUT_DIR", "SEED"):
        if key in args.opts[::2]:
            raise InputError(f"{key} is each training's own: --output and --seeds say it")
    for option in ("--priced", "--units", "--sizes", "--proposals"):
        for own in getattr(args, option[2:]):
            if len(own) < 3:
                raise InputError(f"{option} {' '.join(own)}: expected a name, a config and values")
    for own in args.priced:
        if len(own) != 2 + len(args.budgets):
            raise InputError(f"--priced {own[0]}: expected {len(args.budgets)} prices, one for each budget")
    if not (args.adaptive or args.priced or args.units or args.sizes or args.proposals):
        options = "--adaptive, --priced, --units, --sizes, --proposals"
        raise InputError(f"there is nothing to compare: name a network ({options})")


def contenders_of(args: argparse.Namespace, seed: int) -> list[Contender]:
    """In the order of the options, those of a seed; weights of fewer units are made."""
    output = Path(args.output)

    def contender(name: str, config: str, setting: str = "", *more: str, **where: Any) -> Contender:
        folder = output / re.sub(r"[^\w.+-]+", "_", f"{name} {setting}".strip()) / f"seed_{seed}"
        overrides = (*args.opts, *more, "SEED", str(seed), "OUTPUT_DIR", str(folder))
        return Contender(name, config, overrides, seed, setting, **where)

    found = [contender(name, config, ways=at_budgets(args.budgets)) for name, config in args.adaptive]
    for name, config, *prices in args.priced:
        for budget, tau in zip(args.budgets, prices):
            found.append(contender(name, config, f"tau {tau}", *_priced(config, tau), ways=at_budgets([budget])))
    for name, config, *all_units in args.units:
        for units in all_units:
            try:
                numbers = tuple(map(int, units.split(",")))
            except ValueError:
                raise InputError(f"--units {units}: expected units per block, such as 3,4,6,3") from None
            found.append(contender(name, config, f"units {units}", "MODEL.SACT.UNITS", str(numbers)))
            cfg, start = found[-1].load(), found[-1].folder.parent / "first_units.pth"  # of all seeds
            if not start.exists():
                start.parent.mkdir(parents=True, exist_ok=True)
                with_first_units(cfg.MODEL.WEIGHTS, numbers, start)
            found[-1] = replace(found[-1], overrides=(*found[-1].overrides, "MODEL.WEIGHTS", str(start)))
    for option, ways_of, what in (("--sizes", at_sides, "a side in pixels"), ("--proposals", at_proposals, "a number")):
        for name, config, *texts in getattr(args, option[2:]):
            values, one = [_whole(option, text, what) for text in texts], contender(name, config)
            found.append(replace(one, ways=ways_of(one.load(), values)))
    folders = [one.folder for one in found]
    if len(set(folders)) < len(folders):
        raise InputError("the names of networks must differ in more than blanks and punctuation")
    for one in found:  # what is wrong is said before hours of work
        cfg = one.load()
        if args.classes and is_classifier(cfg):
            raise InputError(f"--classes: {one.config} is no detector's")
        for name in cfg.DATASETS.TEST:
            check_classes(args.classes, name)
        for way in one.ways:
            one.load(*way.overrides)
        if judged_by(cfg) != judged_by(found[0].load()):
            raise InputError(f"{one.config}: another task or test set than {found[0].config} has")
        if one.budgets:
            calibration_set(cfg, args.calibrate_on)
    return found


def _priced(config: str, tau: str) -> tuple[str, ...]:
    """Overrides of the price; a detector's block 4, where it has one, is scaled alike."""
    try:
        price = float(tau)
    except ValueError:
        raise InputError(f"--priced {tau}: expected a price") from None
    sact = load_config(config, data=False).MODEL.SACT
    scaled = (
        ("MODEL.SACT.TAU_BOX_HEAD", repr(sact.TAU_BOX_HEAD * price / sact.TAU))
        if sact.TAU_BOX_HEAD and sact.TAU
        else ()
    )
    return ("MODEL.SACT.TAU", tau, *scaled)


def _whole(option: str, text: str, what: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{option} {text}: expected {what}")
    return int(text)


def training_overrides(contender: Contender) -> list[str]:
    """Of its config in a training, which is evaluated later."""
    return [*contender.overrides, "DATASETS.TEST", "()", "SOLVER.CHECKPOINTS_KEPT", "1"]


def train(contender: Contender) -> None:
    """Trains in a process of its own, from the last checkpoint on; one line with a bar shows it."""
    words = [str(TRAIN), "--config-file", contender.config, "--resume", *training_overrides(contender)]
    what = f"trains {contender.name} {contender.setting}".strip() + f", seed {contender.seed}"
    run_stage(what, words, Path(contender.folder) / "terminal.txt", contender.load().SOLVER.MAX_ITER)


def run(args: argparse.Namespace, trainer: Callable[[Contender], None] = train) -> None:
    check_arguments(args)
    style = style_of(args)
    output = writable_folder(args.output)
    first = [contenders_of(args, seed)[0] for seed in args.seeds]
    machine = describe_machine(torch.device(first[0].load().MODEL.DEVICE))
    own = not args.trained_statistics
    settings = Settings(
        *(args.calibrate_on, args.max_images, args.budgets, args.candidates),
        statistics=own,
        scales=args.scales,
        judged_images=args.judged_images,
        classes=args.classes,
    )
    points = []
    for seed in args.seeds:
        points += compare(contenders_of(args, seed), trainer, settings, args.classes)
        table = comparison_table(points)
        title = args.title or f"{output.name}: {points[0]['metric']} at several budgets"
        about = {"title": title, "machine": machine, "settings": settings._asdict(), "seeds": args.seeds}
        write_json(output / "results.json", {**about, "points": points})
        write_text(output / "table.md", table + "\n")
        save_figure(functools.partial(draw_comparison, points, title), output / f"budgets.{style.format}", style)
        logger.info("In %s, seeds up to %d:\n%s", output, seed, table)


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    run(parse_arguments(argv))


if __name__ == "__main__":
    logging.captureWarnings(True)
    setup_log()
    main()
