"""Stage "table": where the kernels are faster than dense execution on this card; "auto" goes by what it writes."""

from dataclasses import asdict
from typing import Any, NamedTuple, Optional

from tabulate import tabulate

from sact_det.benchmark.gpu.stage import Machine, Report
from sact_det.benchmark.networks import PartSettings
from sact_det.benchmark.parts import measure_part
from sact_det.benchmark.report import Table
from sact_det.benchmark.setting import Setting
from sact_det.benchmark.timing import Spread
from sact_det.benchmark.training import measure_training
from sact_det.execution.cuda.measured import Measured, write_table
from sact_det.network.resnet_v2 import ResNetV2Spec

SIZE = (600, 800)
REGIONS = (224, 224)  # pooled to 14x14 at a stride of 16
RATIOS = (0.2, 0.4, 0.6, 0.8, 1.0)
TYPES = {"bf16": "bfloat16", "tf32": "float32", "fp16": "float16", "fp32": "float32"}
SECONDS = 25.0  # that a row may take, most of it for the compiler


class Row(NamedTuple):
    """A block of ResNet-101 in a precision, in training or inference."""

    block: int
    batch: int
    size: tuple[int, int]
    precision: str
    training: bool = False


def rows() -> list[Row]:
    """The rows to measure, those first from which "auto" gains most."""
    inference = [
        Row(block, batch, SIZE, precision)
        for precision in ("bf16", "tf32", "fp16")
        for batch in (1, 8)
        for block in (3, 2, 1)
    ]
    heads = [Row(4, 300, REGIONS, precision) for precision in ("bf16", "tf32", "fp16")]
    training = [Row(block, 1, SIZE, precision, True) for precision in ("bf16", "tf32") for block in (3, 2, 1)]
    return [*inference[:3], heads[0], *inference[3:6], *training[:3], *inference[6:], *heads[1:], *training[3:]]


TINY_ROWS = [Row(2, 1, (64, 80), "fp32"), Row(2, 1, (64, 80), "fp32", True)]


def run(machine: Machine, report: Report) -> None:
    """Measures as many rows as there is time for; on a GPU, writes the table to the cache folder."""
    measured: list[Measured] = []
    for row in TINY_ROWS if machine.tiny else rows():
        name = f"block {row.block}, batch {row.batch}, {row.precision}{', training' * row.training}"
        with report.part(name, 0 if machine.tiny else SECONDS) as enough:
            if enough:
                measured.append(_measure(name, row, machine))
                report.note("rows", [asdict(found) for found in measured])
    cells = [list(asdict(found).values()) for found in measured]
    report.note("tables", [tabulate(cells, list(asdict(measured[0])) if measured else [], tablefmt="pipe")])
    if measured and not machine.tiny:
        report.note("path", str(write_table(machine.device, measured)))


def _measure(name: str, row: Row, machine: Machine) -> Measured:
    norms: dict[str, Any] = {"norm": "FrozenBN", "halting_norm": "MovingBN"} if row.training else {}
    small: dict[str, Any] = {"units": (1, 3), "base_channels": 8} if machine.tiny else {}
    settings = PartSettings(ResNetV2Spec(halting="sact", **norms, **small), row.block)
    setting = Setting(
        device=machine.device,
        precision=row.precision,
        rounds=1 if machine.tiny else 9,
        warmup=1,
        rivals=(),
        executions=("dense", "perforated"),
    )
    shape = settings.input_shape(row.batch, row.size)
    part = settings.build()
    ratios = [ratio for ratio in RATIOS if ratio >= part.least_ratio(shape)]
    if row.training:
        table = measure_training(name, settings, row.size, row.batch, ratios, setting)
    else:
        wanted: list[Optional[float]] = list(ratios)
        table = measure_part(name, part, [setting.random(*shape)], wanted, setting)
    height, width = part.map_sizes((shape[2], shape[3]))[-1]
    return Measured(row.training, TYPES[row.precision], shape[1], row.batch * height * width, share_of(table))


def share_of(table: Table) -> float:
    """The largest FLOP ratio at which "perforated" took less time than "dense" with the same masks; 0: at none."""
    medians = {
        (entry.wanted_ratio, entry.execution): Spread.of(table.times[entry.name]).median for entry in table.entries
    }
    return max(
        (
            entry.flop_ratio
            for entry in table.entries
            if entry.execution == "perforated"
            and medians[entry.wanted_ratio, "perforated"] < medians[entry.wanted_ratio, "dense"]
        ),
        default=0.0,
    )
