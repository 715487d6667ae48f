"""What must not wait for a GPU reads no value: counted on the CPU, where Triton's interpreter stands for one."""

import pytest
import torch
from small_networks import images, randomize

from sact_det import build_classifier
from sact_det.base.transfer import to_device
from sact_det.benchmark.gpu.waits import HostReads
from sact_det.execution.perforated import TritonPlan
from sact_det.execution.plan import PLANS

pytest.importorskip("triton", reason="Triton is not installed: there is none for this platform")


@pytest.mark.parametrize(
    "action",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: (x > 0).nonzero(),
        lambda x: x[x > 0],
        lambda x: torch.tensor([1, 2]),
        lambda x: x.tolist(),
        lambda x: x.numpy(),
    ],
)
def test_what_reads_a_value_is_counted(action):
    with HostReads() as reads:
        action(torch.ones(2, 3))
    assert sum(reads.counts.values()) >= 1


def test_small_tensors_are_made_without_a_wait():
    with HostReads() as reads:
        made = to_device([(1, 2), (3, 4)], torch.device("cpu"))
    assert not reads.counts and made.dtype == torch.int64 and made.tolist() == [[1, 2], [3, 4]]


@torch.no_grad()
@pytest.mark.skipif(torch.cuda.is_available(), reason="make gpu counts them on a GPU")
@pytest.mark.parametrize("halting", ["sact", "none"])
def test_inference_under_the_kernels_reads_nothing(halting, monkeypatch):
    model = build_classifier(units=(1, 3, 3), base_channels=4, num_classes=5, halting=halting)
    model = randomize(model, images(2, 40, 40), halting_bias=-1.0)
    monkeypatch.setitem(PLANS, "perforated", TritonPlan)
    model.set_execution("perforated")
    x = images(2, 40, 40, seed=1)
    model(x)
    with HostReads() as reads:
        model(x)
    assert not reads.counts


@torch.no_grad()
@pytest.mark.skipif(torch.cuda.is_available(), reason="make gpu counts them on a GPU")
@pytest.mark.parametrize("halting, per_unit", [("sact", 7), ("none", 3)])
def test_a_unit_takes_seven_launches_and_no_operation_of_pytorch(halting, per_unit, monkeypatch):
    """Two more units in a block show what one takes. Nothing is launched: what kernels compute decides over nothing."""
    from triton.runtime.interpreter import GridExecutor

    launches = []
    monkeypatch.setattr(GridExecutor, "__call__", lambda self, *args, **kwargs: launches.append(self))
    monkeypatch.setitem(PLANS, "perforated", TritonPlan)
    taken = {}
    for units in (3, 5):
        model = build_classifier(units=(1, units), base_channels=4, num_classes=5, halting=halting).eval()
        model.set_execution("perforated")
        model(images(2, 40, 40))
        launches.clear()
        with HostReads() as reads:
            model(images(2, 40, 40))
        taken[units] = (len(launches), reads.operations)
    (few_launches, few_operations), (launches_, operations) = taken[3], taken[5]
    assert launches_ - few_launches == 2 * per_unit
    assert operations == few_operations, taken
