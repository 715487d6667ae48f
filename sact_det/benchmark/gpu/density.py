"""Stage "density": from which share of active positions on cuDNN is faster in a unit, everywhere, than its kernels."""

import time
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Callable, NamedTuple

import torch
from tabulate import tabulate

from sact_det.benchmark.gpu.stage import Machine, Report
from sact_det.benchmark.gpu.table import REGIONS, SIZE, TYPES
from sact_det.benchmark.networks import PartSettings
from sact_det.benchmark.setting import Setting, relative_difference
from sact_det.execution.cuda.measured import NOWHERE, MeasuredUnit, write_table
from sact_det.execution.cuda.packed import pack_unit
from sact_det.execution.cuda.unit import launch_dense_unit, launch_unit, new_workspace
from sact_det.network.resnet_v2 import BottleneckUnit, ResNetV2Spec

SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
SECONDS = 8.0  # that a unit may take, most of it for the compiler
# Residuals of the measured units are this small: they are added thousands of times.
RESIDUAL = 1e-3
Launch = Callable[[], None]


class Row(NamedTuple):
    """Units of a block of ResNet-101, in a precision."""

    block: int
    batch: int
    size: tuple[int, int]
    precision: str


def rows() -> list[Row]:
    """The units to measure, those of most of the time first."""
    images = [
        Row(block, batch, SIZE, precision)
        for precision in ("fp16", "tf32", "bf16")
        for batch in (8, 1)
        for block in (3, 2, 1)
    ]
    return [*images[:6], *(Row(4, 300, REGIONS, precision) for precision in ("fp16", "tf32", "bf16")), *images[6:]]


TINY_ROWS = [Row(2, 1, (40, 24), "fp32"), Row(2, 2, (16, 24), "bf16")]


def run(machine: Machine, report: Report) -> None:
    """Measures as many units as there is time for; on a GPU, writes the table to the cache folder."""
    measured: list[MeasuredUnit] = []
    for row in TINY_ROWS if machine.tiny else rows():
        name = f"block {row.block}, batch {row.batch}, {row.precision}"
        with report.part(name, 0 if machine.tiny else SECONDS) as enough:
            if not enough:
                continue
            measured.append(_measure(name, row, machine, report))
            report.note("rows", [asdict(found) for found in measured])
            if not machine.tiny:
                report.note("path", str(write_table(machine.device, measured)))
    milliseconds = report.values.get("milliseconds", {})
    cells = [[name, share, *times.values()] for name, shares in milliseconds.items() for share, times in shares.items()]
    report.note("tables", [tabulate(cells, ["unit", "active", "kernels, ms", "cuDNN, ms"], tablefmt="pipe")])


@torch.no_grad()
def _measure(name: str, row: Row, machine: Machine, report: Report) -> MeasuredUnit:
    from sact_det.execution.cuda.position_lists import PositionLists  # late: Triton may be missing

    small: dict[str, Any] = {"units": (1, 2), "base_channels": 8} if machine.tiny else {}
    settings = PartSettings(ResNetV2Spec(halting="sact", **small), row.block)
    setting, part = Setting(device=machine.device, precision=row.precision), settings.build()
    shape = settings.input_shape(row.batch, row.size)
    height, width = part.map_sizes((shape[2], shape[3]))[-1]
    dtype, unit = setting.half or torch.float32, part.blocks[0].units[1]
    assert isinstance(unit, BottleneckUnit)
    packed = pack_unit(unit.to(machine.device), dtype)
    timed = replace(packed, conv3=packed.conv3 * RESIDUAL, bias3=packed.bias3 * RESIDUAL)
    channels, size = unit.conv1.in_channels, row.batch * height * width
    begin = setting.random(1, 1, size, channels).view(size, channels).to(dtype)
    chance = torch.rand(row.batch, height, width, generator=torch.Generator().manual_seed(1)).to(machine.device)
    lists = PositionLists(None, (row.batch, height, width), machine.device)
    inner, middle = (begin.new_empty(size, unit.conv1.out_channels) for _ in range(2))
    workspace, found = new_workspace(machine.device), {}
    with setting.activated():
        for share in SHARES[::3] if machine.tiny else SHARES:
            lists.fill(chance < share)
            states = {way: begin.clone() for way in ("kernels", "dense")}
            launch_unit(packed, lists, states["kernels"], inner, middle, None, workspace)
            launch_dense_unit(packed, lists, states["dense"], None)
            difference = relative_difference(*states.values())
            report.check("both ways agree", difference <= setting.tolerance, f"{name}: off by {difference:.1e}")
            launches: dict[str, Launch] = {
                "kernels": partial(launch_unit, timed, lists, states["kernels"], inner, middle, None, workspace),
                "dense": partial(launch_dense_unit, timed, lists, states["dense"], None),
            }
            found[share] = {way: _milliseconds(launch, machine) for way, launch in launches.items()}
    report.values.setdefault("milliseconds", {})[name] = found
    return MeasuredUnit(TYPES.get(row.precision, "bfloat16"), channels, size, share_of(found))


def _milliseconds(launch: Launch, machine: Machine) -> float:
    """The median of some calls in a CUDA graph; on a CPU of one."""
    if not machine.tiny:
        from triton.testing import do_bench_cudagraph

        return float(do_bench_cudagraph(launch, rep=10, return_mode="median"))
    start = time.perf_counter()
    launch()
    return 1e3 * (time.perf_counter() - start)


def share_of(found: dict[float, dict[str, float]]) -> float:
    """The least share from which "dense" takes less time than "kernels", there and at all larger ones; or NOWHERE."""
    least = NOWHERE
    for share, times in sorted(found.items(), reverse=True):
        if times["dense"] >= times["kernels"]:
            break
        least = share
    return least
