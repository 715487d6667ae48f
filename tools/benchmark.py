#!/usr/bin/env python
"""Times adaptive networks beside the fastest dense ones, in one process, taking turns.

    python tools/benchmark.py short                                 # what `make bench` runs
    python tools/benchmark.py extractor --sizes 600x800 800x1333    # stem and blocks 1-3, at several FLOP ratios
    python tools/benchmark.py sweep                                 # the same, at FLOP ratios from the least to 1
    python tools/benchmark.py scaling --batch 1 4                   # over image areas and batches
    python tools/benchmark.py block --block 3                       # one block; `unit`: one unit of it
    python tools/benchmark.py training --depth 50                   # a step of fine-tuning with frozen norms
    python tools/benchmark.py memory                                # peak memory, a process for each candidate
    python tools/benchmark.py detector --config-file C MODEL.WEIGHTS W --images photos/    # end to end
    python tools/benchmark.py extractor --config-file C MODEL.WEIGHTS W --images photos/   # masks of a trained network

Rivals are dense and have the same weights: PyTorch in several forms, ONNX Runtime and OpenVINO (pip install
'sact_det[bench]'). The fastest of them, in bold, is THE dense time. "time ratio" is the time / THE dense time of the
same round, "time / FLOPs" that divided by the FLOP ratio: 1 if every FLOP saved saved its time. Without photographs,
positions halt as smooth random fields have it, so that the wanted share of FLOPs remains.
"""

import argparse
import contextlib
import math
from dataclasses import replace
from typing import Any, Callable, Iterator, NamedTuple, Optional, Sequence, Union

import torch

from sact_det.base.command_line import split_overrides
from sact_det.base.errors import InputError, is_out_of_memory, one_line
from sact_det.base.files import writable_file, write_json
from sact_det.base.processes import command_line
from sact_det.benchmark.machine import describe_machine
from sact_det.benchmark.memory import measure_memory
from sact_det.benchmark.networks import PartSettings
from sact_det.benchmark.parts import measure_part
from sact_det.benchmark.report import MemoryTable, Table, machine_line
from sact_det.benchmark.rivals import FOR_CUDA, RIVALS
from sact_det.benchmark.setting import PRECISIONS, Setting
from sact_det.benchmark.training import measure_training
from sact_det.benchmark.unit import measure_unit
from sact_det.network.block import EXECUTIONS
from sact_det.network.resnet_v2 import UNITS_BY_DEPTH, ResNetV2Spec

Tables = Iterator[Union[Table, MemoryTable]]
SWEEP = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("measure", choices=tuple(MEASURES))
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
    parser.add_argument("--config-file", metavar="FILE", help="for detector, and for extractor with trained weights")
    parser.add_argument("--images", nargs="+", metavar="PATH", help="photographs: files, folders, globs")
    parser.add_argument("--max-images", type=int, default=8, metavar="N", help="of the photographs; default: 8")
    parser.add_argument("--quiet", action="store_true", help="no word on progress")
    words, opts = split_overrides(argv)
    args = parser.parse_args(words)
    if opts and args.config_file is None:
        parser.error(f"config overrides need --config-file; got {' '.join(opts)}")
    args.opts = opts
    return args


def image_size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) > 0 and int(width) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no HEIGHTxWIDTH in pixels, such as 600x800")
    return int(height), int(width)


def check_arguments(args: argparse.Namespace) -> None:
    for option in ("threads", "rounds", "base_channels", "max_images"):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise InputError(f"--{option.replace('_', '-')} must be positive; got {value}")
    if args.warmup < 0:
        raise InputError(f"--warmup must not be negative; got {args.warmup}")
    if min(args.batch or [1]) < 1 or min(args.units or [1]) < 1:
        raise InputError("--batch and --units must be positive")
    for ratio in args.ratios or []:
        if not 0 < ratio <= 1:
            raise InputError(f"--ratios must lie in (0, 1]; got {ratio:g}")
    try:
        device = torch.device(args.device)
    except RuntimeError as error:
        raise InputError(f"--device must be cpu, cuda or cuda:N; got {args.device!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device must be cpu, cuda or cuda:N; got {args.device!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {args.device}: there is no such GPU")
    if device.type == "cpu" and args.precision == "tf32":
        raise InputError("--precision tf32 is for GPUs")
    if args.measure == "detector" and args.config_file is None:
        raise InputError("detector needs --config-file")
    if args.measure in ("detector", "extractor"):
        if args.config_file is None and args.images is not None:
            raise InputError("--images needs --config-file: the masks are those of a trained network")
        if args.measure == "extractor" and args.config_file is not None and args.images is None:
            raise InputError("--config-file needs --images: the masks are the network's own")
        if args.images is not None and args.ratios is not None:
            raise InputError("--ratios prescribes masks, --images asks for the network's own: give one of them")
    elif args.config_file is not None or args.images is not None:
        raise InputError(f"--config-file and --images are for detector and extractor, not for {args.measure}")
    if args.measure == "unit" and unit_counts(args)[args.block - 1] < 3:
        raise InputError(f"unit needs a block of at least 3 units; block {args.block} has fewer")


def unit_counts(args: argparse.Namespace) -> tuple[int, ...]:
    return UNITS_BY_DEPTH[args.depth] if args.units is None else tuple(args.units)


def spec_of(args: argparse.Namespace, **kwargs: Any) -> ResNetV2Spec:
    return ResNetV2Spec(units=unit_counts(args), base_channels=args.base_channels, halting="sact", **kwargs)


def resnet_name(args: argparse.Namespace) -> str:
    return f"ResNet-{args.depth}" if args.units is None else f"ResNet {tuple(args.units)}"


def describe(args: argparse.Namespace, what: str, size: tuple[int, int], batch: int) -> str:
    return f"{what} of {resnet_name(args)}, {size[0]}x{size[1]}, batch {batch}, {args.precision}"


def reachable(args: argparse.Namespace, settings: PartSettings, size: tuple[int, int]) -> list[float]:
    """The FLOP ratios to measure at: what was asked for, or those of the measure's own that the network reaches."""
    if args.ratios is not None:
        return args.ratios
    least = settings.build().least_ratio(settings.input_shape(1, size))
    ratios = [ratio for ratio in MEASURES[args.measure].ratios if ratio > least]
    return [math.ceil(1e3 * least) / 1e3, *ratios] if args.measure == "sweep" else ratios


def measure_extractor(args: argparse.Namespace, setting: Setting) -> Tables:
    if args.config_file is not None:
        yield from measure_trained(args, setting)
        return
    settings = PartSettings(spec_of(args), seed=args.seed)
    for size in args.sizes:
        for batch in args.batch:
            x = setting.random(*settings.input_shape(batch, size))
            title, ratios = describe(args, "Extractor", size, batch), reachable(args, settings, size)
            yield measure_part(title, settings.build(), [x], ratios, setting)


def load_config(args: argparse.Namespace) -> Any:
    from sact_det.tasks import load_config  # late: needs Detectron2

    return load_config(args.config_file, [*args.opts, "MODEL.DEVICE", args.device])


def measure_trained(args: argparse.Namespace, setting: Setting) -> Tables:
    cfg = load_config(args)
    from sact_det.benchmark.trained import normalised, photographs, trained_extractor

    channels = cfg.INPUT.FORMAT if cfg.MODEL.META_ARCHITECTURE == "SACTGeneralizedRCNN" else "RGB"
    for size in args.sizes:
        images = photographs(args.images, size, channels, args.max_images)
        inputs = [normalised(image, cfg, setting.device) for image in images]
        title = f"Extractor of {args.config_file}, {len(images)} photographs, {size[0]}x{size[1]}, {args.precision}"
        yield measure_part(title, trained_extractor(cfg).cpu(), inputs, [None], setting)


def measure_detectors(args: argparse.Namespace, setting: Setting) -> Tables:
    cfg = load_config(args)
    from sact_det.benchmark.detector import measure_detector
    from sact_det.benchmark.trained import load_detector, photographs

    if args.images is not None and not cfg.MODEL.WEIGHTS:
        raise InputError("MODEL.WEIGHTS is empty: masks of a trained network need its weights")
    for size in args.sizes:
        if args.images is None:
            images = [128 + 40 * setting.random(1, 3, *size)[0]]
            ratios: Sequence[Optional[float]] = MEASURES["detector"].ratios if args.ratios is None else args.ratios
        else:
            images, ratios = photographs(args.images, size, cfg.INPUT.FORMAT, args.max_images), [None]
        title = f"Detector of {args.config_file}, {len(images)} images, {size[0]}x{size[1]}, {args.precision}"
        yield measure_detector(title, load_detector(cfg), images, ratios, setting)


def measure_block(args: argparse.Namespace, setting: Setting) -> Tables:
    settings = PartSettings(spec_of(args), args.block, args.seed)
    for size in args.sizes:
        for batch in args.batch:
            x = setting.random(*settings.input_shape(batch, size))
            title, ratios = describe(args, f"Block {args.block}", size, batch), reachable(args, settings, size)
            yield measure_part(title, settings.build(), [x], ratios, setting)


def measure_units(args: argparse.Namespace, setting: Setting) -> Tables:
    settings = PartSettings(spec_of(args), args.block, args.seed)
    for size in args.sizes:
        for batch in args.batch:
            title = describe(args, f"Unit 2 of block {args.block}", size, batch)
            shares = MEASURES["unit"].ratios if args.ratios is None else args.ratios
            yield measure_unit(title, settings, size, batch, shares, setting)


def measure_steps(args: argparse.Namespace, setting: Setting) -> Tables:
    settings = PartSettings(spec_of(args, norm="FrozenBN", halting_norm="MovingBN"), seed=args.seed)
    for size in args.sizes:
        for batch in args.batch:
            title = describe(args, "Training step, extractor", size, batch)
            yield measure_training(title, settings, size, batch, reachable(args, settings, size), setting)


def measure_peaks(args: argparse.Namespace, setting: Setting) -> Tables:
    frozen = {"norm": "FrozenBN", "halting_norm": "MovingBN"}
    for size in args.sizes:
        for batch in args.batch:
            for what, training, norms in (("Inference", False, {}), ("Training step", True, frozen)):
                settings = PartSettings(spec_of(args, **norms), seed=args.seed)
                title = describe(args, f"Peak memory, {what.lower()}, extractor", size, batch)
                ratios = reachable(args, settings, size)
                yield measure_memory(title, settings, size, batch, ratios, setting, training)


def measure_short(args: argparse.Namespace, setting: Setting) -> Tables:
    yield from measure_extractor(args, setting)
    args = argparse.Namespace(**{**vars(args), "depth": 50, "sizes": [(256, 320)], "ratios": [0.5]})
    rivals = [name for name in setting.rivals if name != "compile"]  # compiling the backward pass takes too long here
    yield from measure_steps(args, replace(setting, rivals=rivals))


class Measure(NamedTuple):
    """A subcommand and what its options are unless given; rivals default to all, executions to all."""

    run: Callable[[argparse.Namespace, Setting], Tables]
    sizes: Sequence[tuple[int, int]] = ((600, 800),)
    batch: Sequence[int] = (1,)
    ratios: Sequence[float] = (0.3, 0.5, 0.8, 1.0)
    executions: Sequence[str] = EXECUTIONS
    rounds: int = 7


MEASURES = {
    "short": Measure(measure_short, executions=("perforated", "auto"), rounds=5),
    "extractor": Measure(measure_extractor, sizes=((600, 800), (800, 1333))),
    "sweep": Measure(measure_extractor, ratios=SWEEP, executions=("perforated", "auto")),
    "scaling": Measure(
        measure_extractor, sizes=((300, 400), (424, 566), (600, 800), (848, 1131)), batch=(1, 2, 4), ratios=(0.5,)
    ),
    "block": Measure(measure_block),
    "unit": Measure(measure_units, ratios=(0.1, 0.3, 0.5, 0.8, 1.0)),
    "training": Measure(measure_steps, sizes=((600, 800),), ratios=(0.3, 0.5, 0.8, 1.0), rounds=5),
    "memory": Measure(measure_peaks, ratios=(0.5, 1.0)),
    "detector": Measure(measure_detectors),
}


def fill_in(args: argparse.Namespace) -> None:
    """Options that were not given, but for FLOP ratios, take the measure's defaults."""
    measure = MEASURES[args.measure]
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


def run(args: argparse.Namespace) -> None:
    check_arguments(args)
    if args.json is not None:
        writable_file(args.json)
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
        tables = []
        try:
            for table in MEASURES[args.measure].run(args, setting):
                print(f"\n{table.markdown()}", flush=True)
                tables.append(table.values())
                if args.json is not None:  # whatever happens to the next table
                    write_json(args.json, {"arguments": vars(args), "machine": machine, "tables": tables})
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            sizes = " ".join(f"{height}x{width}" for height, width in args.sizes)
            batches = " ".join(map(str, args.batch))
            raise InputError(
                f"out of memory: lower --sizes {sizes} or --batch {batches} ({one_line(error)})"
            ) from error


def main(argv: Optional[Sequence[str]] = None) -> None:
    with command_line():
        run(parse_arguments(argv))


if __name__ == "__main__":
    main()
