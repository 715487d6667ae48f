"""Inference of one residual unit, with its halting branch."""

from typing import Any, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sact_det.benchmark.masks import smooth_fields
from sact_det.benchmark.networks import AdaptivePart, DensePart, PartSettings
from sact_det.benchmark.parts import check_features, rival_candidate
from sact_det.benchmark.report import Entry, Table
from sact_det.benchmark.rivals import build_rivals
from sact_det.benchmark.setting import Setting, relative_difference
from sact_det.benchmark.timing import Candidate
from sact_det.network.run import Run
from sact_det.network.unit import HaltingBranch, ResidualUnit
from sact_det.rule.flops import active_positions


def measure_unit(
    title: str, settings: PartSettings, size: tuple[int, int], batch: int, shares: Sequence[float], setting: Setting
) -> Table:
    """Times the second unit of a block: its residual, its halting score, its share in the output.

    What comes before, the first unit and the change to another execution, is not timed.

    Args:
        title: of the table.
        settings: of the block, which needs three units.
        size: of the images, in pixels.
        batch: N.
        shares: of the positions that are active.
        setting: device, precision, rounds and who takes part.

    Raises:
        Disagreement: an execution computes something else than the masked dense one.
    """
    with torch.no_grad(), setting.activated():
        part = settings.build()
        x = setting.random(*settings.input_shape(batch, size))
        first, unit = part.blocks[0].units[0], part.blocks[0].units[1]
        features = first(x.cpu()).to(setting.device)
        rivals, differences, absent = build_rivals(DensePart([unit]), features, setting, setting.rivals)
        candidates = [rival_candidate(rival, [features]) for rival in rivals]
        entries = [Entry(rival.name, rival=True, difference=differences[rival.name]) for rival in rivals]
        part.to(setting.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        positions = torch.full((batch,), features[0, 0].numel(), device=setting.device)
        dense_flops = int(unit.flops(positions, positions).sum())
        for share in shares:
            active = coherent_mask(part, x, share, setting.seed)
            evaluated, dilated = active_positions(active, torch.ones_like(active))
            flops = unit.flops(positions, positions, evaluated, dilated)
            flops = flops + _branch(unit).flops(evaluated, evaluated > 0)
            reference = _evaluated(part, x, active, "dense", Setting(device=setting.device))
            for execution in setting.executions:
                name = f"{share:g} active, {execution}"
                difference = relative_difference(_evaluated(part, x, active, execution, setting), reference)
                check_features(name, difference, setting)
                candidates.append(_candidate(part, x, active, name, execution, setting))
                entries.append(Entry(name, False, int(flops.sum()) / dense_flops, difference, share, execution))
        times = setting.times(candidates, title)
    return Table(title, features.shape, dense_flops, entries, times, absent)


def coherent_mask(part: AdaptivePart, x: Tensor, share: float, seed: int) -> Tensor:
    """bool [N, h, w] on the output map of a part's one block, for its input x: where a smooth field is largest."""
    size = part.map_sizes((x.shape[2], x.shape[3]))[-1]
    fields = smooth_fields(len(x), (x.shape[2] * part.stride, x.shape[3] * part.stride), seed)
    values = F.interpolate(fields, size, mode="bilinear", align_corners=False)[:, 0]
    order = values.flatten(1).argsort(1, descending=True)
    mask = torch.zeros_like(values, dtype=torch.bool).flatten(1)
    mask.scatter_(1, order[:, : round(share * mask.shape[1])], True)
    return mask.view_as(values).to(x.device)


def _branch(unit: ResidualUnit) -> HaltingBranch:
    assert unit.halting is not None
    return unit.halting


def _start(part: AdaptivePart, x: Tensor, active: Tensor, execution: str, setting: Setting) -> Run:
    """The run up to the unit: all but the active positions halt behind the first one."""
    block = part.blocks[0]
    part.set_execution(execution)
    with setting.autocast():
        plan = block.plan
        run = plan.start(block, x, None, None)
        run.scores(_branch(block.units[0]))
        run.add(torch.where(active, 0.25, 1.0))
        return plan.proceed(block, run, 1, active)


def _evaluate(part: AdaptivePart, run: Run, active: Tensor, setting: Setting) -> None:
    unit = part.blocks[0].units[1]
    with setting.autocast():
        run.evaluate(unit, active)
        run.scores(_branch(unit))
        run.add(0.75 * active)


def _evaluated(part: AdaptivePart, x: Tensor, active: Tensor, execution: str, setting: Setting) -> Tensor:
    """The block's output [N, D, h, w] if it ended behind this unit."""
    run = _start(part, x, active, execution, setting)
    _evaluate(part, run, active, setting)
    return run.result()


def _candidate(part: AdaptivePart, x: Tensor, active: Tensor, name: str, execution: str, setting: Setting) -> Candidate:
    def prepare() -> Any:
        return _start(part, x, active, execution, setting)

    return Candidate(name, lambda run: _evaluate(part, run, active, setting), prepare)
