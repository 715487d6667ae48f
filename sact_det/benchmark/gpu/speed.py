"""Stage "speed": extractor, box head and a training step beside the fastest dense ways to run them."""

import itertools
from dataclasses import replace
from typing import Any, NamedTuple, Optional, Sequence, Union

import torch
from tabulate import tabulate

from sact_det.benchmark.gpu.stage import Machine, Report
from sact_det.benchmark.networks import AdaptivePart, PartSettings
from sact_det.benchmark.parts import measure_part
from sact_det.benchmark.report import Table
from sact_det.benchmark.setting import Setting
from sact_det.benchmark.training import measure_training
from sact_det.network.resnet_v2 import ResNetV2Spec

RATIOS = (0.3, 0.5, 0.8, 1.0)
RIVALS = ("channels-last", "cuda-graph", "compile-graphs")
SLOW_RIVALS = ("max-autotune", "tensorrt")  # which compile for minutes
EXECUTIONS = ("dense", "perforated", "graphs")
REGION = 14  # the side of a pooled region
HALVES = "half of the regions"


class Case(NamedTuple):
    """A part of ResNet-101 in a precision; `least`: seconds that it may take, compilation included."""

    name: str
    block: int
    batch: int
    size: tuple[int, int]
    precision: str
    least: float


class Goal(NamedTuple):
    """The time to be reached at a FLOP ratio, or with half of the regions halted, in times the fastest rival's."""

    ratio: Union[float, str]
    most: float


# In order of worth. The box head's input is a batch of regions at a stride of 16.
REGIONS = (16 * REGION, 16 * REGION)
GOALS = {
    Case("extractor, batch 8", 0, 8, (600, 800), "fp16", 60): Goal(0.5, 0.62),
    Case("extractor, batch 1", 0, 1, (600, 800), "fp16", 40): Goal(0.5, 0.8),
    Case("box head, 300 regions", 4, 300, REGIONS, "fp16", 30): Goal(HALVES, 0.6),
}
OTHERS = (
    Case("extractor, batch 1", 0, 1, (600, 800), "tf32", 60),
    Case("extractor, batch 8", 0, 8, (600, 800), "tf32", 40),
    Case("extractor, batch 8", 0, 8, (600, 800), "bf16", 60),
    Case("extractor, batch 1", 0, 1, (600, 800), "bf16", 40),
    Case("box head, 1000 regions", 4, 1000, REGIONS, "bf16", 40),
)
TRAINING_GOAL = 1.2  # times the FLOP ratio
TINY_CASE = Case("extractor, batch 1", 0, 1, (48, 40), "fp32", 0)


def run(machine: Machine, report: Report) -> None:
    """What has goals: tables as tools/benchmark.py makes them, each written when it is there."""
    report.note("tables", [])
    report.note("measured", [])
    cases = [TINY_CASE] if machine.tiny else list(GOALS)
    for case in cases:
        _measure(case, machine, report)
    with report.part("a training step", 45 * (not machine.tiny)) as enough:
        if enough:
            _measure_training(machine, report)
    with report.part("launches and memory"):
        _count_launches(cases[0], machine, report)


def run_others(machine: Machine, report: Report) -> None:
    """Stage "rivals": the same beside what compiles for minutes; then other precisions."""
    report.note("tables", [])
    report.note("measured", [])
    cases = [TINY_CASE] if machine.tiny else list(GOALS)[:2]
    for rival, case in itertools.product(SLOW_RIVALS, cases):
        own = case._replace(name=f"{case.name}, {rival}", least=1.5 * case.least)
        _measure(own, machine, report, ("cuda-graph", rival))
    with report.part("a training step beside compile", 120 * (not machine.tiny)) as enough:
        if enough:
            _measure_training(machine, report, ("channels-last", "compile"), (0.5,))
    for case in () if machine.tiny else OTHERS:
        _measure(case, machine, report)


def _spec(machine: Machine, **norms: Any) -> ResNetV2Spec:
    if machine.tiny:
        return ResNetV2Spec(units=(2, 3, 8, 2), base_channels=8, halting="sact", **norms)
    return ResNetV2Spec(halting="sact", **norms)


def _setting(machine: Machine, precision: str, rivals: Sequence[str] = RIVALS) -> Setting:
    return Setting(
        device=machine.device,
        precision=precision,
        rounds=1 if machine.tiny else 15,
        warmup=1 if machine.tiny else 3,
        rivals=RIVALS[:1] if machine.tiny else rivals,
        executions=EXECUTIONS if rivals is RIVALS else EXECUTIONS[2:],
    )


def _measure(
    case: Case,
    machine: Machine,
    report: Report,
    rivals: Sequence[str] = RIVALS,
) -> None:
    title = f"{case.name}, {case.precision}"
    with report.part(title, case.least) as enough:
        if not enough:
            return
        settings, setting = PartSettings(_spec(machine), case.block), _setting(machine, case.precision, rivals)
        x = setting.random(*settings.input_shape(case.batch, case.size))
        part = settings.build()
        wanted = RATIOS if rivals is RIVALS else RATIOS[1:2]
        ratios: list[Optional[float]] = [ratio for ratio in wanted if ratio >= part.least_ratio(x.shape)]
        goal, halves = GOALS.get(case), {}
        if goal is not None and goal.ratio == HALVES:
            depths = half_halted(part, x.shape)
            halves[round(part.flops(x.shape, depths) / part.dense_flops(x.shape), 3)] = depths
        table = measure_part(title, part, [x], ratios, setting, halves)
        _enter(table, report)
        if goal is not None:
            (ratio,) = halves or (goal.ratio,)
            _judge(table, f"{title}, {goal.ratio}", ratio, goal.most, report)


def half_halted(part: AdaptivePart, shape: Sequence[int]) -> list[torch.Tensor]:
    """Depths, as AdaptivePart.prescribe takes them, where every other region of a batch halts behind the first unit."""
    depths = []
    for block, size in zip(part.blocks, part.map_sizes((shape[2], shape[3]))[1:]):
        depths.append(torch.full((shape[0], *size), len(block.units)))
        depths[-1][1::2] = 1
    return depths


def _enter(table: Table, report: Report) -> None:
    report.values["measured"].append(table.values())
    report.values["tables"].append(f"\n{table.markdown()}\n")


def _judge(table: Table, name: str, wanted: object, most: float, report: Report) -> None:
    """Enters among the facts how a goal is reached: no fault where it is not."""
    rows = [row for row in table.values()["rows"] if row["wanted_flop_ratio"] == wanted and row["time_ratio"]]
    if rows:
        best = min(rows, key=lambda row: row["time_ratio"]["median"])
        line = f"{best['time_ratio']['median']:.3f} of {table.dense} by {best['execution']}; the goal is {most:.3g}"
        report.values.setdefault("facts", {})[name] = line


def _measure_training(
    machine: Machine, report: Report, rivals: Sequence[str] = RIVALS[:1], wanted: Sequence[float] = RATIOS
) -> None:
    norms = {"norm": "FrozenBN", "halting_norm": "MovingBN"}
    size, precision = ((48, 40), "fp32") if machine.tiny else ((600, 800), "bf16")
    settings = PartSettings(_spec(machine, **norms))
    setting = replace(_setting(machine, precision, rivals), executions=("dense", "perforated"))
    alone = replace(setting, rivals=RIVALS[:1], executions=("perforated",))
    ratios = [0.8, 1.0] if machine.tiny else list(wanted)
    for title, own, half in (("float32 states", setting, False), ("half states", alone, True)):
        name = f"Training step, {precision}, {title}" + f", {rivals[-1]}" * (len(rivals) > 1)
        table = measure_training(name, settings, size, 1, ratios, own, half)
        _enter(table, report)
        for ratio in ratios:
            _judge(table, f"{name}, {ratio:g}", ratio, TRAINING_GOAL * ratio, report)


def _count_launches(case: Case, machine: Machine, report: Report) -> None:
    """Launches of an inference, in all and per unit, the host's time for them, and peak memory, by execution."""
    settings, setting = PartSettings(_spec(machine), case.block), _setting(machine, case.precision)
    x = setting.random(*settings.input_shape(case.batch, case.size))
    part = settings.build().to(machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    part.prescribe(part.depths_for_ratio(x.shape, 0.8, 0)[0])
    rows = []
    for execution in setting.executions:
        part.set_execution(execution)
        rows.append([execution, *_launches(part, x, setting)])
    headers = ["execution", "operations", "launches", "launches a unit", "peak MiB"]
    report.note("launches", [dict(zip(headers, row)) for row in rows])
    report.values["tables"].append(f"\n{case.name}, {case.precision}\n\n{tabulate(rows, headers, tablefmt='pipe')}\n")


def _launches(part: AdaptivePart, x: torch.Tensor, setting: Setting) -> tuple[int, Optional[int], Optional[float], Any]:
    from torch.profiler import ProfilerActivity, profile

    units = sum(len(block.units) for block in part.blocks)
    on_gpu = setting.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with torch.no_grad(), setting.activated(), setting.autocast():
        part(x)
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(setting.device)
        with profile(activities=activities) as profiler:
            part(x)
    events = profiler.key_averages()
    operations = sum(event.count for event in events if event.key.startswith("aten::"))
    if not on_gpu:
        return operations, None, None, None
    launched = ("cudaLaunchKernel", "cuLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernelEx")
    launches = sum(event.count for event in events if event.key in launched)
    peak = torch.cuda.max_memory_allocated(setting.device) / 2**20
    return operations, launches, round(launches / units, 1), round(peak)
