#!/usr/bin/env python
r"""Times adaptive networks beside the fastest dense ones, in one process,
taking turns.

    python tools/benchmark.py short                  # what `make bench` runs
    python tools/benchmark.py extractor              # stem and blocks 1-3
    python tools/benchmark.py sweep                  # at many FLOP ratios
    python tools/benchmark.py scaling --batch 1 4    # image areas and batches
    python tools/benchmark.py block --block 3        # one block; `unit`: a unit
    python tools/benchmark.py regions --regions 300  # RoIAlign and block 4
    python tools/benchmark.py rpn                    # the RPN's 3x3 convolution
    python tools/benchmark.py training --depth 50    # a step, norms frozen
    python tools/benchmark.py memory                 # peak memory

A trained detector end to end, and its extractor under its own masks:

    python tools/benchmark.py detector --config-file C MODEL.WEIGHTS W \
        --images photos/
    python tools/benchmark.py extractor --config-file C MODEL.WEIGHTS W \
        --images photos/

A trained classifier, at calibrated budgets, and the plain one at --scales:

    python tools/benchmark.py classifier --config-file C MODEL.WEIGHTS W \
        --images photos/ --budgets 0.5 1 --batch 1 8

AP beside seconds:

    python tools/benchmark.py detector --config-file C MODEL.WEIGHTS W \
        --dataset NAME --plain PC PW

With --dataset, trained static detectors (--plain) are measured with fewer
regions (--proposals) and smaller images (--scales), each in the programs that
are fastest for it; the first of them is what times and FLOPs are shares of.
The detector of --config-file may take part at several calibrated --budgets.
Of --max-images images, --batch are computed at a time, those of like shape.
Overrides of INPUT, DATASETS, DATALOADER and TEST are for all detectors, others
for that of --config-file. A run that ends early goes on from its --json file:
what has been evaluated there is not evaluated again.

Rivals are dense and have the same weights: PyTorch in several forms, ONNX
Runtime and OpenVINO (pip install 'sact_det[bench]'). The fastest of them, in
bold, is THE dense time. "time ratio" is the time / THE dense time of the same
round, "time / FLOPs" that divided by the FLOP ratio: 1 if every FLOP saved
saved its time. Without photographs, positions halt as smooth random fields
have it, so that the wanted share of FLOPs remains.
"""

import argparse
import contextlib
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

import torch

from sact_det.base.command_line import add_budget, check_positive, split_overrides, with_budget
from sact_det.base.errors import InputError, is_out_of_memory, one_line
from sact_det.base.files import writable_file, write_json
from sact_det.base.processes import command_line
from sact_det.benchmark.machine import describe_machine
from sact_det.benchmark.measures import MEASURES, measure_of, unit_counts
from sact_det.benchmark.report import machine_line
from sact_det.benchmark.rivals import FOR_CUDA, RIVALS
from sact_det.benchmark.setting import PRECISIONS, Setting, device_of
from sact_det.budget.table import check_budget
from sact_det.execution import EXECUTIONS
from sact_det.network.resnet_v2 import UNITS_BY_DEPTH
from sact_det.pictures.style import add_page_style, style_of

NEEDED = {"detector": ["--config-file"], "classifier": ["--config-file", "--images"]}  # options of measures


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("measure", choices=tuple(MEASURES), metavar="MEASURE", help=", ".join(MEASURES))
    parser.add_argument("--json", metavar="FILE", help="writes all numbers there, table by table")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N; default: cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="default: fp32")
    parser.add_argument("--threads", type=int, metavar="N", help="default: PyTorch's choice")
    parser.add_argument("--depth", type=int, choices=tuple(UNITS_BY_DEPTH), default=101, help="default: 101")
    parser.add_argument("--units", type=int, nargs=4, metavar="N", help="instead of --depth: units per block")
    parser.add_argument("--base-channels", type=int, default=64, metavar="N", help="default: 64")
    parser.add_argument("--block", type=int, choices=(1, 2, 3, 4), default=3, help="for block and unit; default: 3")
    parser.add_argument("--sizes", nargs="+", type=image_size, metavar="HxW", help="height x width of the images")
    parser.add_argument("--batch", nargs="+", type=int, metavar="N", help="images at a time; default: 1")
    parser.add_argument("--ratios", nargs="+", type=float, metavar="R", help="FLOP ratios; for unit: active shares")
    parser.add_argument("--executions", nargs="+", choices=EXECUTIONS, metavar="E", help=", ".join(EXECUTIONS))
    parser.add_argument(
        "--rivals", nargs="+", choices=(*RIVALS, "none"), metavar="R", help=f"none, or of {', '.join(RIVALS)}"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="default: 7")
    parser.add_argument("--warmup", type=int, default=1, metavar="N", help="untimed rounds before; default: 1")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of weights, inputs and masks; default: 0")
    parser.add_argument("--config-file", metavar="FILE", help="of a trained detector, classifier or extractor")
    parser.add_argument("--images", nargs="+", metavar="PATH", help="photographs: files, folders, globs")
    parser.add_argument(
        "--regions",
        type=int,
        metavar="N",
        help="of detector and regions: the same N boxes for every candidate; default: 300, but with --images each "
        "one's own proposals",
    )
    parser.add_argument(
        "--map-products",
        action="store_true",
        help="of regions: block 4's first products made on the map, too (MODEL.SACT.BOX_HEAD_MAP_PRODUCTS)",
    )
    parser.add_argument("--max-images", type=int, default=8, metavar="N", help="of the photographs; default: 8")
    add_dataset_options(parser)
    add_budget(parser)
    parser.add_argument("--quiet", action="store_true", help="no word on progress")
    words, opts = split_overrides(argv)
    args = parser.parse_args(words)
    if opts and args.config_file is None:
        parser.error(f"config overrides need --config-file; got {' '.join(opts)}")
    if args.budget is not None and args.config_file is None:
        parser.error("--budget needs --config-file")
    args.opts = opts
    args.opts = with_budget(args)
    return args


def add_dataset_options(parser: argparse.ArgumentParser) -> None:
    options = parser.add_argument_group("detectors on a data set")
    options.add_argument("--dataset", metavar="NAME", help="of DATASETS.COCO_FORMAT, or of Detectron2")
    detector: dict[str, Any] = {"nargs": "+", "action": "append", "default": [], "metavar": ("CONFIG WEIGHTS", "LABEL")}
    options.add_argument("--plain", **detector, help="a trained plain detector; any number of them, at least one")
    options.add_argument("--adaptive", **detector, help="a detector beside that of --config-file; any number of them")
    options.add_argument("--label", metavar="LABEL", help="of that of --config-file; default: the config's name")
    options.add_argument(
        "--budgets",
        nargs="+",
        type=float,
        default=[],
        metavar="SHARE",
        help="that of --config-file spends, one by one; of classifier, too",
    )
    options.add_argument(
        "--proposals",
        nargs="+",
        type=int,
        default=[300, 150, 100, 50],
        metavar="K",
        help="regions of the plain ones, beside their configs' own number; default: 300 150 100 50",
    )
    options.add_argument(
        "--scales",
        nargs="+",
        type=float,
        default=[1.0, 0.75, 0.5],
        metavar="S",
        help="sizes of the plain ones' images, as shares of their sides in the config; default: 1 0.75 0.5",
    )
    options.add_argument("--ap-images", type=int, metavar="N", help="for AP, evenly spread; default: all")
    options.add_argument("--classes", nargs="+", default=[], metavar="CLASS", help="whose mean AP counts; default: all")
    options.add_argument("--plot", metavar="FILE", help="AP against seconds, a picture whose name ends with --format")
    add_page_style(parser)


def image_size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) > 0 and int(width) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no HEIGHTxWIDTH in pixels, such as 600x800")
    return int(height), int(width)


def check_arguments(args: argparse.Namespace) -> None:
    check_positive(args, "--threads", "--rounds", "--base-channels", "--max-images", "--batch", "--units")
    if args.warmup < 0:
        raise InputError(f"--warmup must not be negative; got {args.warmup}")
    for ratio in args.ratios or []:
        if not 0 < ratio <= 1:
            raise InputError(f"--ratios must lie in (0, 1]; got {ratio:g}")
    for scale in args.scales:
        if not 0 < scale <= 1:
            raise InputError(f"--scales must lie in (0, 1]; got {scale:g}")
    if device_of(args.device).type == "cpu" and args.precision == "tf32":
        raise InputError("--precision tf32 is for GPUs")
    least = {"detector": 0, "regions": 1}.get(args.measure)
    if args.regions is not None and (least is None or args.regions < least):
        known = f"{args.regions} for {args.measure}"
        raise InputError(f"--regions is for detector, 0 or more boxes, and regions, 1 or more; got {known}")
    if args.map_products and args.measure != "regions":
        raise InputError(f"--map-products is for regions, not for {args.measure}")
    for option in NEEDED.get(args.measure, ()):
        if getattr(args, option.removeprefix("--").replace("-", "_")) is None:
            raise InputError(f"{args.measure} needs {option}")
    if args.measure in ("detector", "extractor"):
        if args.config_file is None and args.images is not None:
            raise InputError("--images needs --config-file: the masks are those of a trained network")
        if args.measure == "extractor" and args.config_file is not None and args.images is None:
            raise InputError("--config-file needs --images: the masks are the network's own")
    elif args.measure not in NEEDED and (args.config_file is not None or args.images is not None):
        raise InputError(f"--config-file and --images are for trained networks, not for {args.measure}")
    if args.images is not None and args.ratios is not None:
        raise InputError("--ratios prescribes masks, --images asks for the network's own: give one of them")
    check_budgets(args)
    check_dataset(args)
    if args.measure == "unit" and unit_counts(args)[args.block - 1] < 3:
        raise InputError(f"unit needs a block of at least 3 units; block {args.block} has fewer")


def check_budgets(args: argparse.Namespace) -> None:
    if args.budgets and args.dataset is None and args.measure != "classifier":
        raise InputError("--budgets needs --dataset, or classifier")
    for budget in args.budgets:
        check_budget("--budgets", budget)
    shown = [f"{budget:g}" for budget in args.budgets]
    if len(set(shown)) < len(shown):
        raise InputError(f"--budgets must differ; got {' '.join(shown)}")
    if args.budgets and args.budget is not None:
        raise InputError("--budgets and --budget: give one of them")


def check_dataset(args: argparse.Namespace) -> None:
    if args.dataset is None:
        for option in ("--plain", "--adaptive", "--label", "--ap-images", "--classes", "--plot"):
            if getattr(args, option.removeprefix("--").replace("-", "_")):
                raise InputError(f"{option} needs --dataset")
        return
    if args.measure != "detector":
        raise InputError(f"--dataset is for detector, not for {args.measure}")
    for option in ("--images", "--ratios", "--regions", "--sizes"):
        if getattr(args, option.removeprefix("--")) is not None:
            raise InputError(f"{option} and --dataset: give one of them")
    if args.batch is not None and len(args.batch) > 1:
        raise InputError(f"--batch takes one number with --dataset; got {' '.join(map(str, args.batch))}")
    if not args.plain:
        raise InputError("--dataset needs --plain CONFIG WEIGHTS: a trained static detector to compare with")
    for option, words in [("--plain", own) for own in args.plain] + [("--adaptive", own) for own in args.adaptive]:
        if not 2 <= len(words) <= 3:
            raise InputError(f"{option} takes CONFIG WEIGHTS [LABEL]; got {' '.join(words)}")
    check_positive(args, "--proposals", "--ap-images")
    form = style_of(args).format
    if args.plot is not None and Path(args.plot).suffix.lower() != f".{form}":
        raise InputError(f"--plot {args.plot}: must end with .{form}, the --format")


def fill_in(args: argparse.Namespace) -> None:
    """Options that were not given, but for FLOP ratios, take the measure's defaults."""
    measure = measure_of(args)
    for option in ("sizes", "batch", "executions", "rounds"):
        if getattr(args, option) is None:
            setattr(args, option, getattr(measure, option))
    on_cuda = args.device.startswith("cuda")
    rivals = [name for name in RIVALS if on_cuda or name not in FOR_CUDA] if args.rivals is None else args.rivals
    args.rivals = [name for name in dict.fromkeys(rivals) if name != "none"]


@contextlib.contextmanager
def threads(number: Optional[int]) -> Iterator[None]:
    """PyTorch, and with it everybody else here, works on so many."""
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    check_arguments(args)
    for path in (args.json, args.plot):
        if path is not None:
            writable_file(path)
    fill_in(args)
    setting = Setting(
        device=torch.device(args.device),
        precision=args.precision,
        rounds=args.rounds,
        warmup=args.warmup,
        seed=args.seed,
        rivals=args.rivals,
        executions=args.executions,
        progress=not args.quiet,
    )
    with threads(args.threads):
        machine = describe_machine(setting.device)
        print(machine_line(machine), flush=True)
        tables: list[dict[str, Any]] = []
        finished = True
        try:
            for table in measure_of(args).run(args, setting):
                if table.finished:
                    print(f"\n{table.markdown()}", flush=True)
                tables[len(tables) if finished else -1 :] = [table.values()]  # one that was unfinished is replaced
                finished = table.finished
                if args.json is not None:  # whatever happens to the next table
                    write_json(args.json, {"arguments": vars(args), "machine": machine, "tables": tables})
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            sizes = " ".join(["--sizes", *(f"{height}x{width}" for height, width in args.sizes)])
            asked = sizes if args.dataset is None else "INPUT.MIN_SIZE_TEST"
            batches = " ".join(map(str, args.batch))
            raise InputError(f"out of memory: lower {asked} or --batch {batches} ({one_line(error)})") from error


if __name__ == "__main__":
    main()
