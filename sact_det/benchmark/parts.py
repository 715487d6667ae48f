"""Inference of a part of a network, as a whole: the extractor, or a block."""

from functools import partial
from typing import Any, Mapping, Optional, Sequence

import torch
from torch import Tensor

from sact_det.benchmark.networks import AdaptivePart, dense_part
from sact_det.benchmark.report import Entry, Table
from sact_det.benchmark.rivals import Rival, build_rivals
from sact_det.benchmark.setting import Setting, relative_difference
from sact_det.benchmark.timing import Candidate
from sact_det.rule.ponder import BlockPonder

Outputs = list[tuple[Tensor, list[BlockPonder]]]  # of a part, one per input


class Disagreement(RuntimeError):
    """Executions of one network gave different results: their times mean nothing."""


def own_name(ratio: Optional[float], execution: str) -> str:
    """What tables call a SACT network at a prescribed FLOP ratio, or with its own masks (None), in an execution."""
    return f"SACT, {execution}" if ratio is None else f"SACT {ratio:g}, {execution}"


def check_features(name: str, difference: float, setting: Setting) -> None:
    """Raises Disagreement if a relative difference of features is above the precision's tolerance."""
    if not difference <= setting.tolerance:
        raise Disagreement(f"{name}: features are off by {difference:.1e} of the largest one")


def measure_part(
    title: str,
    part: AdaptivePart,
    inputs: Sequence[Tensor],
    ratios: Sequence[Optional[float]],
    setting: Setting,
    others: Mapping[float, Sequence[Tensor]] = {},
) -> Table:
    """A part under its executions beside its dense rivals.

    Args:
        title: of the table.
        part: in evaluation mode, on the CPU; it is moved to the device.
        inputs: float32 [N, C, H, W] of one shape, on the device. A run takes all of them, one after the other.
        ratios: FLOP ratios to prescribe masks for, with one input; None: the masks of the part's own branches.
        setting: device, precision, rounds and who takes part.
        others: depths that are prescribed as well, by the FLOP ratio that tables call them by.

    Raises:
        InputError: a FLOP ratio is out of reach.
        Disagreement: an execution computes something else than the masked dense one.
    """
    masks = {**part.masks(inputs[0].shape, ratios, setting.seed), **others}
    with torch.no_grad(), setting.activated():
        rivals, differences, absent = build_rivals(dense_part(part), inputs[0], setting, setting.rivals)
        candidates = [rival_candidate(rival, inputs) for rival in rivals]
        entries = [Entry(rival.name, rival=True, difference=differences[rival.name]) for rival in rivals]
        part.to(setting.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        dense_flops = sum(part.dense_flops(x.shape) for x in inputs)
        for ratio, depths in masks.items():
            part.set_up("dense", depths)
            reference = [part(x) for x in inputs]
            for execution in setting.executions:
                name = own_name(ratio, execution)
                candidate = own_candidate(part, inputs, depths, name, execution, setting)
                candidate.prepare()
                outputs = candidate.run(None)
                difference = _agreement(name, outputs, reference, setting, strict=ratio is not None)
                flops = sum(int(ponder.flops.sum()) for _, ponders in outputs for ponder in ponders)
                flop_ratio = (flops + sum(part.stem_flops(x.shape) for x in inputs)) / dense_flops
                entries.append(Entry(name, False, flop_ratio, difference, ratio, execution))
                candidates.append(candidate)
                del outputs
            del reference
        times = setting.times(candidates, title)
    return Table(title, inputs[0].shape, dense_flops, entries, times, absent, len(inputs))


def rival_candidate(rival: Rival, inputs: Sequence[Tensor]) -> Candidate:
    """A candidate that runs a rival on all inputs, converted beforehand. It returns features, one tensor per input."""
    converted = [rival.convert(x) for x in inputs]
    return Candidate(rival.name, lambda _: [rival.forward(x) for x in converted])


def own_candidate(
    part: AdaptivePart,
    inputs: Sequence[Tensor],
    depths: Optional[Sequence[Tensor]],
    name: str,
    execution: str,
    setting: Setting,
) -> Candidate:
    """The part under an execution, with masks prescribed beforehand; it returns Outputs."""

    def run(_: Any) -> Outputs:
        with setting.autocast():
            return [part(x) for x in inputs]

    return Candidate(name, run, partial(part.set_up, execution, depths))


def _agreement(name: str, outputs: Outputs, reference: Outputs, setting: Setting, strict: bool) -> float:
    """The largest relative difference of features.

    Raises:
        Disagreement: it is above the precision's tolerance, or a position halts elsewhere. In less than float32 a
            network's own masks may differ, and then so do the features: without `strict` that is not judged.
    """
    difference = max(relative_difference(x, expected) for (x, _), (expected, _) in zip(outputs, reference))
    if not strict and setting.precision != "fp32":
        return difference
    for (_, ponders), (_, expected_ponders) in zip(outputs, reference):
        for own, other in zip(ponders, expected_ponders):
            if not torch.equal(own.num_units, other.num_units):
                raise Disagreement(f"{name}: positions halt elsewhere than in the masked dense execution")
    check_features(name, difference, setting)
    return difference
