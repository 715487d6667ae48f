"""Stage "exactness": every execution on the device computes what the dense one does on a CPU.

In float32 without TF32 integers must be equal and features agree to 1e-5 of the largest one. In TF32, float16 and
bfloat16 masks are prescribed, so that rounding cannot move a position over the threshold, and features must agree with
float32 as far as the formats allow (sact_det/benchmark/setting.py: TOLERANCES).
"""

import copy
import importlib
import sys
from pathlib import Path
from typing import Callable, Iterator, NamedTuple, Optional
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from sact_det.benchmark.gpu.stage import Machine, Report
from sact_det.benchmark.networks import AdaptivePart, PartSettings
from sact_det.benchmark.random_networks import noise, randomize
from sact_det.benchmark.setting import Setting, relative_difference
from sact_det.execution.perforated import TritonPlan
from sact_det.execution.plan import GraphsPlan
from sact_det.execution.positions.plan import PositionsPlan
from sact_det.network.halting_rule import HALTING_RULES
from sact_det.network.plan import DensePlan, Plan, planned_parts
from sact_det.network.resnet_v2 import ResNetV2Spec
from sact_det.rule.padding import Sizes

PARITY = Path(__file__).parents[3] / "tests" / "parity"
EXACT = 1e-5
PRECISIONS = ("tf32", "fp16", "bf16")
RUNS: dict[str, Callable[[], Plan]] = {
    "dense": DensePlan,
    "positions": PositionsPlan,
    "triton": TritonPlan,
    "graphs": GraphsPlan,
}
CALLS = {"graphs": 3}  # the first runs without a graph, the second makes it, the third uses it again


class Example(NamedTuple):
    """A network and its input: images of `sizes` in a batch as large as the largest, on the CPU."""

    name: str
    part: AdaptivePart
    x: Tensor
    sizes: Optional[Sizes]


def evaluate_by(part: AdaptivePart, run: str) -> None:
    """Has the units behind a block's first evaluated by one of RUNS, whatever "auto" would choose."""
    for module in planned_parts(part):
        module.plan = RUNS[run]()


def examples(tiny: bool) -> Iterator[Example]:
    """Odd sizes, a batch of one, a batch of three images of different size, a map of one position."""
    units, width = ((1, 2, 3), 4) if tiny else ((3, 4, 6), 64)
    spec = ResNetV2Spec(units=units, base_channels=width, halting="sact")
    learnt = (40, 44) if tiny else (224, 288)
    network = randomize(PartSettings(spec).build(), noise(4, *learnt), halting_bias=-1.0)
    sizes = [(21, 27), (17, 20), (1, 9)] if tiny else [(331, 427), (201, 333), (160, 96)]
    batch = noise(3, max(h for h, _ in sizes), max(w for _, w in sizes), seed=1)
    for image, (height, width_) in zip(batch, sizes):
        image[:, height:] = 0
        image[:, :, width_:] = 0
    yield Example("odd sizes", network, noise(1, *sizes[0], seed=2), None)
    yield Example("three images of different size", network, batch, sizes)
    yield Example("one position", network, noise(2, 5, 7, seed=3), None)


class Outcome(NamedTuple):
    """Features, and per block the units of every position and the FLOPs of every image, on the CPU."""

    features: Tensor
    units: list[Tensor]
    flops: list[Tensor]


@torch.no_grad()
def outcome(part: AdaptivePart, x: Tensor, sizes: Optional[Sizes], setting: Setting) -> Outcome:
    """What a part, where it is, computes and spends at x."""
    with setting.autocast():
        assert part.stem is not None
        y, own = part.stem(x, sizes), None if sizes is None else [(-(-h // 4), -(-w // 4)) for h, w in sizes]
        ponders = []
        for block in part.blocks:
            y, ponder = block(y, own)
            own = ponder.sizes
            ponders.append(ponder)
    return Outcome(y.float().cpu(), [p.num_units.cpu() for p in ponders], [p.flops.cpu() for p in ponders])


def run(machine: Machine, report: Report) -> None:
    """Compares RUNS on the device with the dense run on the CPU, in float32 and below."""
    for example in examples(machine.tiny):
        with report.part(example.name):
            _compare_exactly(example, machine, report)
        with report.part(f"{example.name}, prescribed masks"):
            _compare_masks(example, machine, report)
    with report.part("the original program"):
        _compare_with_the_original(machine, report)
    if not machine.tiny:
        with report.part("another name of the device"):
            _compare_exactly(next(examples(True)), Machine(torch.device("cuda:0"), machine.output), report)


def _compare_exactly(example: Example, machine: Machine, report: Report) -> None:
    name, part, x, sizes = example
    evaluate_by(part, "dense")
    expected = outcome(part, x, sizes, Setting())
    report.check("halts at different units", any(len(u[u > 0].unique()) > 1 for u in expected.units), name)
    moved, setting = copy.deepcopy(part).to(machine.device), Setting(device=machine.device)
    for kind in RUNS:
        evaluate_by(moved, kind)
        with setting.activated():
            for _ in range(CALLS.get(kind, 1)):
                own = outcome(moved, x.to(machine.device), sizes, setting)
        _judge(f"{name}, {kind}", own, expected, EXACT, report)


def _judge(name: str, own: Outcome, expected: Outcome, tolerance: float, report: Report) -> None:
    for index, (units, flops) in enumerate(zip(own.units, own.flops)):
        differ = int((units != expected.units[index]).sum())
        report.check("units are equal", differ == 0, f"{name}: {differ} positions of block {index + 1} differ")
        report.check("FLOPs are equal", torch.equal(flops, expected.flops[index]), f"{name}: block {index + 1}")
    difference = relative_difference(own.features, expected.features)
    report.check(f"features agree to {tolerance:g}", difference <= tolerance, f"{name}: off by {difference:.1e}")
    report.values.setdefault("differences", {})[name] = difference


def masks(part: AdaptivePart, x: Tensor) -> dict[str, list[Tensor]]:
    """Depths of every position of every block: all at full depth, none beyond the first unit, one, and at random."""
    generator = torch.Generator().manual_seed(4)
    sizes = part.map_sizes((x.shape[2], x.shape[3]))[1:]
    full = [torch.full((len(x), *size), len(block.units)) for size, block in zip(sizes, part.blocks)]
    one = [torch.ones_like(depths) for depths in full]
    for depths, deepest in zip(one, full):
        depths[0, depths.shape[1] // 2, -1] = deepest[0, 0, 0]
    chance = [torch.randint(1, int(depths.max()) + 1, depths.shape, generator=generator) for depths in full]
    none = [torch.ones_like(depths) for depths in full]
    return {"random": chance, "one active": one, "none active": none, "all active": full}


def _compare_masks(example: Example, machine: Machine, report: Report) -> None:
    name, part, x, sizes = example
    if sizes is not None:
        return  # depths are prescribed for whole maps
    moved = copy.deepcopy(part).to(machine.device)
    precisions = ("fp32", "bf16") if machine.tiny else ("fp32", *PRECISIONS)
    try:
        for pattern, depths in masks(part, x).items():
            if machine.tiny and pattern.endswith("active") and name != "one position":
                continue  # Triton's interpreter is slow
            part.prescribe(depths)
            evaluate_by(part, "dense")
            expected = outcome(part, x, None, Setting())
            moved.prescribe(depths)
            for precision in precisions:
                setting = Setting(device=machine.device, precision=precision)
                tolerance = EXACT if precision == "fp32" else setting.tolerance
                for kind in RUNS:
                    evaluate_by(moved, kind)
                    with setting.activated():
                        for _ in range(CALLS.get(kind, 1)):
                            own = outcome(moved, x.to(machine.device), None, setting)
                    _judge(f"{name}, {pattern}, {precision}, {kind}", own, expected, tolerance, report)
    finally:
        part.prescribe(None)  # the next examples have the same network


def _compare_with_the_original(machine: Machine, report: Report) -> None:
    """The original program's networks and outputs, as the tests read them, where the repository is there."""
    if not (PARITY / "oracle.py").is_file():
        report.skip(f"the original program: {PARITY} is not there")
        return
    with mock.patch.object(sys, "path", [str(PARITY), *sys.path]):
        oracle = importlib.import_module("oracle")
    for name in oracle.CASES:
        case = oracle.original_network(name)
        model, setting = case.model.to(machine.device), Setting(device=machine.device)
        for execution in ("dense", "perforated"):
            model.set_execution(execution)
            with torch.no_grad(), setting.activated():
                output = model(case.images.to(machine.device))
            label = f"{name}, {execution}"
            for own, original in case.block_names:
                block = output.ponder.blocks[own]
                flops = case.expected[f"{original}/flops"]
                report.check("FLOPs are the original's", np.array_equal(block.flops.cpu(), flops), f"{label}, {own}")
                if HALTING_RULES[case.halting].adaptive:  # the original keeps no record of a plain network
                    units = case.expected[f"{original}/num_units"]
                    equal = np.array_equal(block.num_units.cpu().numpy().squeeze(), units.squeeze())
                    report.check("units are the original's", equal, f"{label}, {own}")
            logits = torch.from_numpy(case.expected["logits"]).reshape(output.logits.shape)
            difference = relative_difference(output.logits.cpu(), logits)
            report.check("logits are the original's", difference <= EXACT, f"{label}: off by {difference:.1e}")
