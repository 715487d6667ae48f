"""Stage "gradients": a block's training step and RoIAlign in kernels, beside dense execution and torchvision."""

import copy
from typing import Any, Callable, Optional

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from sact_det.benchmark.gpu.stage import Machine, Report
from sact_det.benchmark.random_networks import noise, randomize
from sact_det.benchmark.setting import Setting
from sact_det.detection.pooler import RegionPooler
from sact_det.execution.cuda.roi_align import pool_by_triton
from sact_det.execution.perforated import TritonPlan
from sact_det.network.block import AdaptiveBlock
from sact_det.network.norm import freeze_norms
from sact_det.network.plan import DensePlan, Plan
from sact_det.network.resnet_v2 import ResNetV2Spec
from sact_det.rule.padding import Sizes, valid_mask

EXACT = 1e-4  # of a gradient in float32, relative in the Euclidean norm
POOLED = 1e-5
# In 16 bits: as far from float32 as dense execution may be, within this factor, plus this much.
FACTOR, MORE = 2.0, 5e-3
HALF_STATES = "triton, half states"


def run(machine: Machine, report: Report) -> None:
    """Compares in float32, then in 16 bits under prescribed masks, which rounding cannot change."""
    units, width, size = (3, 4, (14, 12)) if machine.tiny else (6, 64, (75, 100))
    spec = ResNetV2Spec(units=(1, units), base_channels=width, halting="sact")
    block = randomize(spec.build_block(2), noise(4, 24, 24, 4 * width), halting_bias=-1.0)
    freeze_norms(block)
    block.train()
    x = noise(3, *size, 4 * width, seed=1)
    sizes: list[Optional[Sizes]] = [None, [size, (size[0] // 2, size[1]), (size[0], 3)]]
    for own in sizes:
        with report.part(f"a step, {'one size' if own is None else 'padded'}"):
            masked = x if own is None else x * valid_mask(own, size, x.device)  # type: ignore[operator]
            _compare_steps(block, masked, own, machine, report)
    for precision in ("bf16",) if machine.tiny else ("fp16", "bf16", "tf32"):
        with report.part(f"prescribed masks, {precision}"):
            _compare_rounding(block, x, precision, machine, report)
    with report.part("a step twice"):
        first, second = (_step(block.to(machine.device), TritonPlan(), x.to(machine.device), None) for _ in range(2))
        report.check("gradients repeat", all(torch.equal(first[name], second[name]) for name in first), "they do not")
    with report.part("RoIAlign"):
        _compare_regions(machine, report)


def _step(block: AdaptiveBlock, plan: Plan, x: Tensor, sizes: Optional[Sizes]) -> dict[str, Tensor]:
    """Gradients of a step and features, on the CPU, in float32 without TF32."""
    block = copy.deepcopy(block)
    block.plan = plan
    with Setting(device=x.device).activated(), torch.enable_grad():
        leaf = x.clone().requires_grad_()
        features, ponder = block(leaf, sizes)
        (features.square().mean() + 0.1 * ponder.ponder_cost.mean()).backward()
    return _found(block, leaf, features)


def _found(block: AdaptiveBlock, leaf: Tensor, features: Tensor) -> dict[str, Tensor]:
    found = {name: p.grad for name, p in block.named_parameters() if p.grad is not None}
    assert leaf.grad is not None
    return {name: one.detach().float().cpu() for name, one in {**found, "x": leaf.grad, "features": features}.items()}


def _compare_steps(block: AdaptiveBlock, x: Tensor, sizes: Optional[Sizes], machine: Machine, report: Report) -> None:
    expected = _step(block, DensePlan(), x, sizes)
    moved = copy.deepcopy(block).to(machine.device)
    own = _step(moved, TritonPlan(), x.to(machine.device), sizes)
    report.check("the same gradients", own.keys() == expected.keys(), str(own.keys() ^ expected.keys()))
    for name in expected.keys() & own.keys():
        off = _difference(own[name], expected[name])
        report.check("gradients agree with dense ones", off <= EXACT, f"{name}: off by {off:.1e}")


def _compare_rounding(block: AdaptiveBlock, x: Tensor, precision: str, machine: Machine, report: Report) -> None:
    found = {
        "exact": _prescribed(block, DensePlan(), x, Setting()),
        **{
            name: _prescribed(block, plan, x, Setting(device=machine.device, precision=precision))
            for name, plan in (("dense", DensePlan()), ("triton", TritonPlan()), (HALF_STATES, _with_half_states()))
        },
    }
    for name, value in found["exact"].items():
        dense = _difference(found["dense"][name], value)
        for run in ("triton", HALF_STATES):
            ours = _difference(found[run][name], value)
            line = f"{precision}, {run}, {name}: off by {ours:.1e}, dense execution by {dense:.1e}"
            report.check("gradients are rounded as dense ones are", ours <= FACTOR * dense + MORE, line)


def _with_half_states() -> TritonPlan:
    plan = TritonPlan()
    plan.half_states = True
    return plan


def _prescribed(block: AdaptiveBlock, plan: Plan, x: Tensor, setting: Setting) -> dict[str, Tensor]:
    """Gradients and features of a run whose units are evaluated at half of the positions."""
    block = copy.deepcopy(block).to(setting.device)
    with setting.activated(), setting.autocast(), torch.enable_grad():
        leaf = x.to(setting.device, copy=True).requires_grad_()
        run: Any = plan.start(block, leaf, None, None)
        generator = torch.Generator().manual_seed(2)
        size = [-(-side // block.units[0].stride) for side in x.shape[2:]]
        active = (torch.rand(len(x), *size, generator=generator) < 0.5).to(setting.device)
        weight = torch.full(active.shape, 1 / len(block.units), device=setting.device)
        run.add(weight)
        for unit in block.units[1:]:
            run.evaluate(unit, active)
            run.add(weight)
        features = run.result()
    (features.float() - 1).square().sum().backward()
    return _found(block, leaf, features)


def _compare_regions(machine: Machine, report: Report) -> None:
    from detectron2.layers import ROIAlign

    channels, number, bins = (6, 5, 4) if machine.tiny else (1024, 300, 14)
    x = noise(2, 38, 50, channels).to(machine.device)
    generator = torch.Generator().manual_seed(3)
    corners = torch.rand(number, 4, generator=generator) * torch.tensor([800, 600, 150, 150])
    boxes = torch.cat([(torch.arange(number) % 2)[:, None], corners[:, :2], corners[:, :2] + corners[:, 2:]], 1)
    boxes = boxes.to(machine.device)
    for max_pool, step, aligned in ((False, 1, True), (False, 2, False), (True, 1, True)):
        pooler = RegionPooler(ROIAlign((bins, bins), 1 / 16, 0, aligned), max_pool, step)
        off = float((pool_by_triton(pooler, x, boxes) - pooler.compute(x, boxes)).abs().max())
        label = f"max pooling {max_pool}, step {step}"
        report.check("regions are torchvision's", off <= POOLED, f"{label}: {off:.1e}")
        if not machine.tiny:
            taken = {"kernel": _milliseconds(pool_by_triton, pooler, x, boxes)}
            taken["torchvision"] = _milliseconds(pooler.compute, x, boxes)
            report.values.setdefault("regions, milliseconds", {})[label] = taken


def _milliseconds(function: Callable[..., Tensor], *arguments: object) -> float:
    """The median of some calls; the device is waited for."""
    timer = Timer("function(*arguments)", globals={"function": function, "arguments": arguments})
    return 1e3 * timer.blocked_autorange(min_run_time=0.2).median


def _difference(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm().clamp_min(1e-6))
