"""Candidates change executions between timed runs; packing is not part of a run."""

import pytest
import torch
from small_networks import images
from test_masks import build

from sact_det.benchmark.executions import Executions
from sact_det.execution.cpu import library
from sact_det.execution.packing import WeightCache
from sact_det.network.plan import planned_parts

needs_kernels = pytest.mark.skipif(library.why_unavailable() is not None, reason=str(library.why_unavailable()))


def execution(part):
    return {(type(planned.plan).__name__, getattr(planned.plan, "auto", None)) for planned in planned_parts(part)}


@needs_kernels
@torch.no_grad()
def test_weights_are_packed_once_however_often_executions_change(monkeypatch):
    packed, keep = [], WeightCache.keep
    monkeypatch.setattr(WeightCache, "keep", lambda *arguments: packed.append(arguments[1:]) or keep(*arguments))
    part, x = build(), images(1, 48, 64)
    features = {}
    for name in ("dense", "perforated", "auto", "dense", "perforated", "auto"):
        before = len(packed)
        part.set_execution(name)
        features.setdefault(name, []).append(part(x)[0])
        assert (len(packed) > before) == (name == "perforated" and len(features[name]) == 1)
    for first, second in features.values():
        assert torch.equal(first, second)


def test_every_part_has_the_execution_that_was_chosen():
    part = build()
    executions = Executions(part)
    for name, expected in (("dense", ("DensePlan", None)), ("auto", ("PerforatedPlan", True))) * 2:
        executions.choose(name)
        assert execution(part) == {expected}
    executions.choose("perforated")
    assert execution(part) == {("PerforatedPlan", False)}
