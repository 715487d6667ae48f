"""What a block asks of plans and runs, and what it gets where something is missing."""

import copy

import pytest
import torch
from small_networks import images, randomize
from torch import Tensor, nn

from sact_det import build_classifier
from sact_det.benchmark.masks import PrescribedRun
from sact_det.execution import set_execution
from sact_det.execution.perforated import PerforatedPlan
from sact_det.network.block import AdaptiveBlock
from sact_det.network.plan import DensePlan, ExportPlan, Plan, planned_parts
from sact_det.network.resnet_v2 import ResNetV2Spec
from sact_det.network.run import Run
from sact_det.network.unit import HaltingBranch, ResidualUnit
from sact_det.rule.process import HaltingProcess, TensorHalting


@pytest.mark.parametrize(
    "complete, base",
    [(PrescribedRun, Run), (TensorHalting, HaltingProcess), (DensePlan, Plan)],
    ids=["run", "process", "plan"],
)
def test_what_leaves_out_a_member_cannot_be_made(complete, base):
    members = base.__abstractmethods__
    assert members
    for missing in members:
        rest = {name: vars(complete)[name] for name in members - {missing}}
        with pytest.raises(TypeError, match=f"abstract method '?{missing}"):
            type("Incomplete", (base,), rest)()


@pytest.mark.parametrize("base", [HaltingBranch, ResidualUnit])
def test_branches_and_units_are_no_stubs(base):
    with pytest.raises(TypeError, match="abstract"):
        base()


def test_every_part_has_a_plan_of_its_own_and_copies_have_theirs():
    model = build_classifier(units=(1, 2), base_channels=4)
    model.set_execution("auto")
    twin = copy.deepcopy(model)
    plans = [part.plan for part in (*planned_parts(model), *planned_parts(twin))]
    assert len(set(map(id, plans))) == len(plans) == 6 and all(type(plan) is PerforatedPlan for plan in plans)
    assert model.state_dict().keys() == build_classifier(units=(1, 2), base_channels=4).state_dict().keys()


class Counted(nn.Module):
    """A unit that counts how often it is evaluated."""

    def __init__(self, unit: ResidualUnit):
        super().__init__()
        self.unit, self.halting, self.stride, self.flops = unit, unit.halting, unit.stride, unit.flops
        self.calls = 0

    def forward(self, *args: Tensor) -> Tensor:
        self.calls += 1
        return self.unit(*args)


@torch.no_grad()
@pytest.mark.parametrize("execution, evaluated", [("dense", [1, 0, 0]), ("export", [1, 1, 1])])
def test_export_runs_every_unit_where_dense_ends_with_the_last_position(execution, evaluated):
    block = ResNetV2Spec(units=(3,), base_channels=4).build_block(1)
    x = images(2, 6, 6, 64)
    block = randomize(block, x, halting_bias=200.0)  # every position halts behind the first unit
    counted = AdaptiveBlock([Counted(unit) for unit in block.units], "sact").eval()
    set_execution(counted, execution)
    features, ponder = counted(x)
    assert [unit.calls for unit in counted.units] == evaluated
    torch.testing.assert_close(features, block(x)[0])
    assert torch.equal(ponder.flops, block(x)[1].flops)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:`torch.jit.trace` is deprecated")
def test_a_part_is_recorded_by_a_plan_that_never_stops_early():
    block = ResNetV2Spec(units=(2,), base_channels=4).build_block(1).eval().requires_grad_(False)
    plans = []

    def features(x: Tensor) -> Tensor:
        plans.append(type(block.present_plan))
        return block(x)[0]

    torch.jit.trace(features, images(1, 6, 6, 64), check_trace=False)
    assert plans == [ExportPlan] and type(block.present_plan) is DensePlan
