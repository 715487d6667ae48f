"""What tools/benchmark.py can measure: for each, its tables and the options it has unless they are given."""

import argparse
import math
from dataclasses import replace
from itertools import product
from typing import Any, Callable, Iterator, NamedTuple, Optional, Sequence

from sact_det.base.errors import InputError
from sact_det.benchmark.machine import describe_machine
from sact_det.benchmark.memory import measure_memory
from sact_det.benchmark.networks import PartSettings
from sact_det.benchmark.parts import measure_part
from sact_det.benchmark.report import AnyTable, machine_line
from sact_det.benchmark.setting import Setting
from sact_det.benchmark.training import measure_training
from sact_det.benchmark.unit import measure_unit
from sact_det.network.resnet_v2 import UNITS_BY_DEPTH, ResNetV2Spec
from sact_det.pictures.style import style_of

BOX_HEAD_BLOCK = 4
DEFAULT_REGIONS = 300  # where masks are prescribed: a random network proposes next to nothing

Tables = Iterator[AnyTable]


def unit_counts(args: argparse.Namespace) -> tuple[int, ...]:
    """Units per block of the network that is asked for."""
    return UNITS_BY_DEPTH[args.depth] if args.units is None else tuple(args.units)


def _part(args: argparse.Namespace, block: int = 0, learns: bool = False) -> PartSettings:
    """A block, or the extractor (0); one that `learns` has the norms of fine-tuning."""
    norms: dict[str, Any] = {"norm": "FrozenBN", "halting_norm": "MovingBN"} if learns else {}
    spec = ResNetV2Spec(units=unit_counts(args), base_channels=args.base_channels, halting="sact", **norms)
    return PartSettings(spec, block, args.seed)


def _title(args: argparse.Namespace, what: str, size: tuple[int, int], batch: int) -> str:
    name = f"ResNet-{args.depth}" if args.units is None else f"ResNet {tuple(args.units)}"
    return f"{what} of {name}, {size[0]}x{size[1]}, batch {batch}, {args.precision}"


def _ratios(args: argparse.Namespace, settings: PartSettings, size: tuple[int, int]) -> list[float]:
    """The FLOP ratios to measure at: what was asked for, or those of the measure's own that the network reaches."""
    if args.ratios is not None:
        return args.ratios
    least = settings.build().least_ratio(settings.input_shape(1, size))
    ratios = [ratio for ratio in MEASURES[args.measure].ratios if ratio > least]
    return [math.ceil(1e3 * least) / 1e3, *ratios] if args.measure == "sweep" else ratios


def _inference(args: argparse.Namespace, setting: Setting, what: str, settings: PartSettings) -> Tables:
    for size, batch in product(args.sizes, args.batch):
        x = setting.random(*settings.input_shape(batch, size))
        title = _title(args, what, size, batch)
        yield measure_part(title, settings.build(), [x], _ratios(args, settings, size), setting)


def _extractor(args: argparse.Namespace, setting: Setting) -> Tables:
    if args.config_file is None:
        return _inference(args, setting, "Extractor", _part(args))
    return _trained_extractor(args, setting)


def _block(args: argparse.Namespace, setting: Setting) -> Tables:
    return _inference(args, setting, f"Block {args.block}", _part(args, args.block))


def _config(args: argparse.Namespace) -> Any:
    from sact_det.tasks import load_config  # late: needs Detectron2

    return load_config(args.config_file, [*args.opts, "MODEL.DEVICE", args.device])


def _trained_extractor(args: argparse.Namespace, setting: Setting) -> Tables:
    cfg = _config(args)
    from sact_det.benchmark.trained import normalised, photographs, trained_extractor

    channels = cfg.INPUT.FORMAT if cfg.MODEL.META_ARCHITECTURE != "SACTClassifier" else "RGB"
    for size in args.sizes:
        images = photographs(args.images, size, channels, args.max_images)
        inputs = [normalised(image, cfg, setting.device) for image in images]
        title = f"Extractor of {args.config_file}, {len(images)} photographs, {size[0]}x{size[1]}, {args.precision}"
        yield measure_part(title, trained_extractor(cfg).cpu(), inputs, [None], setting)


def _dataset(args: argparse.Namespace, setting: Setting) -> Tables:
    from sact_det.benchmark.contestants import contestants
    from sact_det.benchmark.dataset import measure_dataset
    from sact_det.benchmark.dataset_table import known_evaluations

    known = {} if args.json is None else known_evaluations(args.json)
    (batch,) = args.batch
    title = f"Detectors on {args.dataset}, {args.precision}" + ("" if batch == 1 else f", batches of {batch}")
    taking_part = contestants(args)
    own = (args.dataset, setting, args.max_images, args.ap_images, known, args.classes, batch)
    for table in measure_dataset(title, taking_part, *own):
        yield table
    if args.plot is not None:
        table.draw(args.plot, machine_line(describe_machine(setting.device)), style_of(args))


def _detector(args: argparse.Namespace, setting: Setting) -> Tables:
    cfg = _config(args)
    from sact_det.benchmark.detector import measure_detector
    from sact_det.benchmark.trained import photographs
    from sact_det.detection.config_kinds import check_detector, is_retinanet
    from sact_det.detection.predictor import load_detector

    check_detector(cfg)
    if args.regions is not None and is_retinanet(cfg):
        raise InputError(f"--regions {args.regions}: {args.config_file} has no box head")
    if args.images is not None and not cfg.MODEL.WEIGHTS:
        raise InputError("MODEL.WEIGHTS is empty: masks of a trained network need its weights")
    for size in args.sizes:
        if args.images is None:
            images = [128 + 40 * setting.random(1, 3, *size)[0]]
            ratios: Sequence[Optional[float]] = MEASURES["detector"].ratios if args.ratios is None else args.ratios
        else:
            images, ratios = photographs(args.images, size, cfg.INPUT.FORMAT, args.max_images), [None]
        title = f"Detector of {args.config_file}, {len(images)} images, {size[0]}x{size[1]}, {args.precision}"
        regions = DEFAULT_REGIONS if args.regions is None and args.images is None else args.regions
        yield measure_detector(title, load_detector(cfg, fresh=True), images, ratios, setting, regions)


def _classifier(args: argparse.Namespace, setting: Setting) -> Tables:
    cfg = _config(args)
    from sact_det.benchmark.classifier import in_batches, measure_classifier
    from sact_det.benchmark.trained import photographs
    from sact_det.classification.predictor import load_classifier

    if not cfg.MODEL.WEIGHTS:
        raise InputError("MODEL.WEIGHTS is empty: masks of a trained network need its weights")
    model, side = load_classifier(cfg), cfg.INPUT.CLASSIFICATION.SIZE_TEST
    budgets = args.budgets or [cfg.MODEL.SACT.BUDGET or None]
    for size, batch in product(args.sizes or [(side, side)], args.batch):
        batches = in_batches(photographs(args.images, size, "RGB", args.max_images), batch)
        what = f"{len(batches) * batch} photographs, {size[0]}x{size[1]}, {batch} at a time, {args.precision}"
        title = f"Classifier of {args.config_file}, {what}"
        yield measure_classifier(title, model, batches, budgets, args.scales, setting)


def _regions(args: argparse.Namespace, setting: Setting) -> Tables:
    from sact_det.benchmark.box_head import measure_box_head  # late: needs Detectron2

    settings, number = _part(args, BOX_HEAD_BLOCK), DEFAULT_REGIONS if args.regions is None else args.regions
    for size in args.sizes:
        what = f"RoIAlign of {number} regions and block {BOX_HEAD_BLOCK}"
        ratios = MEASURES["regions"].ratios if args.ratios is None else args.ratios
        title = _title(args, what, size, 1)
        yield measure_box_head(title, settings, size, number, ratios, setting, args.map_products)


def _rpn(args: argparse.Namespace, setting: Setting) -> Tables:
    from sact_det.benchmark.rpn import measure_rpn  # late: needs Detectron2

    after = _part(args, BOX_HEAD_BLOCK)  # block 4 reads the map that the RPN reads
    for size, batch in product(args.sizes, args.batch):
        shape = after.input_shape(batch, size)
        for width in (shape[1], shape[1] // 4):
            what = f"Convolution of the RPN, {shape[1]} to {width} channels, on block 3"
            yield measure_rpn(_title(args, what, size, batch), tuple(shape), width, setting)


def _unit(args: argparse.Namespace, setting: Setting) -> Tables:
    shares = MEASURES["unit"].ratios if args.ratios is None else args.ratios
    for size, batch in product(args.sizes, args.batch):
        title = _title(args, f"Unit 2 of block {args.block}", size, batch)
        yield measure_unit(title, _part(args, args.block), size, batch, shares, setting)


def _training(args: argparse.Namespace, setting: Setting) -> Tables:
    settings = _part(args, learns=True)
    for size, batch in product(args.sizes, args.batch):
        title = _title(args, "Training step, extractor", size, batch)
        yield measure_training(title, settings, size, batch, _ratios(args, settings, size), setting)


def _memory(args: argparse.Namespace, setting: Setting) -> Tables:
    for size, batch in product(args.sizes, args.batch):
        for what, learns in (("inference", False), ("training step", True)):
            settings = _part(args, learns=learns)
            title = _title(args, f"Peak memory, {what}, extractor", size, batch)
            yield measure_memory(title, settings, size, batch, _ratios(args, settings, size), setting, training=learns)


def measure_of(args: argparse.Namespace) -> "Measure":
    """The measure that a command line asks for."""
    return DATASET if args.dataset is not None else MEASURES[args.measure]


def _short(args: argparse.Namespace, setting: Setting) -> Tables:
    yield from _extractor(args, setting)
    args = argparse.Namespace(**{**vars(args), "depth": 50, "sizes": [(256, 320)], "ratios": [0.5]})
    rivals = [name for name in setting.rivals if name != "compile"]  # compiling the backward pass takes too long here
    yield from _training(args, replace(setting, rivals=rivals))


class Measure(NamedTuple):
    """A measure of tools/benchmark.py, and what its options are unless given.

    Attributes:
        run: yields its tables, one after the other, from the parsed arguments.
        sizes: (height, width) of the images, in pixels; (): the config says it.
        batch: images at a time.
        ratios: FLOP ratios; of "unit", active shares.
        executions: as of sact_det.execution.set_execution.
        rounds: timed ones.
    """

    run: Callable[[argparse.Namespace, Setting], Tables]
    sizes: Sequence[tuple[int, int]] = ((600, 800),)
    batch: Sequence[int] = (1,)
    ratios: Sequence[float] = (0.3, 0.5, 0.8, 1.0)
    executions: Sequence[str] = ("dense", "perforated", "auto")
    rounds: int = 7


MEASURES = {
    "short": Measure(_short, executions=("perforated", "auto"), rounds=5),
    "extractor": Measure(_extractor, sizes=((600, 800), (800, 1333))),
    "sweep": Measure(
        _extractor, ratios=(0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0), executions=("perforated", "auto")
    ),
    "scaling": Measure(
        _extractor, sizes=((300, 400), (424, 566), (600, 800), (848, 1131)), batch=(1, 2, 4), ratios=(0.5,)
    ),
    "block": Measure(_block),
    "unit": Measure(_unit, ratios=(0.1, 0.3, 0.5, 0.8, 1.0)),
    "training": Measure(_training, rounds=5),
    "memory": Measure(_memory, ratios=(0.5, 1.0)),
    "detector": Measure(_detector),
    "classifier": Measure(_classifier, sizes=(), executions=("auto",)),
    "regions": Measure(_regions, sizes=((600, 1000),), ratios=(0.5, 0.75, 1.0), executions=("auto",)),
    "rpn": Measure(_rpn, sizes=((600, 1000), (192, 256)), executions=("auto",)),
}
DATASET = Measure(_dataset, executions=("auto",))  # of "detector", with --dataset
