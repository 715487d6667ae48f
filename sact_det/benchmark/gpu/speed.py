"""Stage "speed": extractor, box head and a training step beside the fastest dense ways to run them."""

from dataclasses import replace
from typing import Any, NamedTuple, Optional

import torch
from tabulate import tabulate

from sact_det.benchmark.gpu.stage import Machine, Report
from sact_det.benchmark.networks import AdaptivePart, PartSettings
from sact_det.benchmark.parts import measure_part
from sact_det.benchmark.setting import Setting
from sact_det.benchmark.training import measure_training
from sact_det.network.resnet_v2 import ResNetV2Spec

RATIOS = (0.3, 0.5, 0.8, 1.0)
RIVALS = ("channels-last", "compile", "compile-graphs", "tensorrt")
REGION = 14  # the side of a pooled region


class Case(NamedTuple):
    """A part of ResNet-101 in a precision; `least`: seconds that it may take, compilation included."""

    name: str
    block: int
    batch: int
    size: tuple[int, int]
    precision: str
    least: float


# In order of worth. The box head's input is a batch of regions at a stride of 16.
CASES = (
    Case("extractor, batch 1", 0, 1, (600, 800), "bf16", 60),
    Case("extractor, batch 8", 0, 8, (600, 800), "bf16", 60),
    Case("box head, 300 regions", 4, 300, (16 * REGION, 16 * REGION), "bf16", 30),
    Case("extractor, batch 1", 0, 1, (600, 800), "tf32", 60),
    Case("extractor, batch 8", 0, 8, (600, 800), "tf32", 60),
    Case("extractor, batch 1", 0, 1, (600, 800), "fp16", 60),
    Case("box head, 1000 regions", 4, 1000, (16 * REGION, 16 * REGION), "bf16", 40),
    Case("extractor, batch 8", 0, 8, (600, 800), "fp16", 60),
)
TINY_CASE = Case("extractor, batch 1", 0, 1, (48, 40), "fp32", 0)


def run(machine: Machine, report: Report) -> None:
    """Tables as tools/benchmark.py makes them, launches and peak memory; then a training step."""
    report.note("tables", [])
    report.note("measured", [])
    for case in (TINY_CASE,) if machine.tiny else CASES:
        with report.part(f"{case.name}, {case.precision}", case.least) as enough:
            if enough:
                _measure(case, machine, report)
        if case is CASES[0] or machine.tiny:
            with report.part("launches and memory"):
                _count_launches(case, machine, report)
            with report.part("a training step", 45 * (not machine.tiny)) as enough:
                if enough:
                    _measure_training(machine, report)


def _spec(machine: Machine, **norms: Any) -> ResNetV2Spec:
    if machine.tiny:
        return ResNetV2Spec(units=(2, 3, 8, 2), base_channels=8, halting="sact", **norms)
    return ResNetV2Spec(halting="sact", **norms)


def _setting(machine: Machine, precision: str) -> Setting:
    return Setting(
        device=machine.device,
        precision=precision,
        rounds=1 if machine.tiny else 15,
        warmup=1 if machine.tiny else 3,
        rivals=RIVALS[:1] if machine.tiny else RIVALS,
        executions=("dense", "perforated", "graphs"),
    )


def _measure(case: Case, machine: Machine, report: Report) -> None:
    settings, setting = PartSettings(_spec(machine), case.block), _setting(machine, case.precision)
    x = setting.random(*settings.input_shape(case.batch, case.size))
    part = settings.build()
    ratios: list[Optional[float]] = [ratio for ratio in RATIOS if ratio >= part.least_ratio(x.shape)]
    table = measure_part(f"{case.name}, {case.precision}", part, [x], ratios, setting)
    report.values["measured"].append(table.values())
    report.values["tables"].append(f"\n{table.markdown()}\n")


def _measure_training(machine: Machine, report: Report) -> None:
    norms = {"norm": "FrozenBN", "halting_norm": "MovingBN"}
    size, precision = ((48, 40), "fp32") if machine.tiny else ((600, 800), "bf16")
    settings, setting = PartSettings(_spec(machine, **norms)), _setting(machine, precision)
    ratios = [0.8, 1.0] if machine.tiny else list(RATIOS)
    alone = replace(setting, rivals=(), executions=("perforated",))
    for title, own, half in (("float32 states", setting, False), ("half states", alone, True)):
        name = f"Training step, {precision}, {title}"
        table = measure_training(name, settings, size, 1, ratios, own, half)
        report.values["measured"].append(table.values())
        report.values["tables"].append(f"\n{table.markdown()}\n")


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
