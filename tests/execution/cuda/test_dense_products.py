"""Units whose convolutions to fewer channels PyTorch evaluates everywhere, as the kernels at active positions do."""

import copy

import pytest
import torch
from perforated_blocks import block_of, inputs

pytest.importorskip("triton", reason="Triton is not installed: there is none for this platform")

from sact_det.execution.cuda import run as run_module
from sact_det.execution.cuda.measured import NOWHERE
from sact_det.execution.packing import WeightCache
from sact_det.execution.perforated import TritonPlan

pytestmark = pytest.mark.usefixtures("no_overflow_checks", "rounding_of_cards")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIZES = [(7, 10), (10, 3), (1, 1)]


@torch.no_grad()
@pytest.mark.parametrize(
    "halting, sizes, dtype, tolerance",
    [
        ("none", None, torch.float32, 1e-5),
        ("none", SIZES, torch.float32, 1e-5),
        ("sact", SIZES, torch.float32, 1e-5),
        ("sact", None, torch.bfloat16, 3e-2),
        ("none", SIZES, torch.float16, 5e-3),
    ],
)
def test_a_block_gives_the_same_either_way(monkeypatch, halting, sizes, dtype, tolerance):
    block = block_of("imagenet", halting).to(DEVICE)
    x = inputs(3, 10, 10, 16).to(DEVICE)
    for image, (height, width) in zip(x, sizes or []):
        image[:, height:] = 0
        image[:, :, width:] = 0
    found, launched = {}, []
    launch = run_module.launch_dense_unit
    monkeypatch.setattr(run_module, "launch_dense_unit", lambda *arguments: (launched.append(1), launch(*arguments)))
    monkeypatch.setattr(run_module, "known_share", lambda block: 1.0)
    for share in (NOWHERE, 1.0):
        monkeypatch.setattr(run_module, "dense_from", lambda *_, share=share: share)
        own = copy.deepcopy(block)
        own.plan = TritonPlan()
        with torch.autocast(DEVICE.type, dtype, enabled=dtype != torch.float32):
            found[share] = own(x, sizes)
        assert len(launched) == (0 if share == NOWHERE else len(block.units) - 1)
    (features, ponder), (other, other_ponder) = found.values()
    if dtype == torch.float32:
        assert torch.equal(ponder.num_units, other_ponder.num_units)
        assert halting == "none" or len(ponder.num_units.unique()) > 1  # whatever is active, the result is right
    else:
        assert (ponder.num_units != other_ponder.num_units).float().mean() < 0.1
    same = (ponder.num_units == other_ponder.num_units)[:, None]
    difference = ((features - other).abs() * same).max() / features.abs().max()
    assert difference < tolerance, float(difference)


@torch.no_grad()
def test_the_choice_is_by_the_tables_share():
    block = block_of("imagenet", "none").to(DEVICE)
    for share, dense in ((1.0, True), (1.01, False)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run_module, "dense_from", lambda *_, share=share: share)
            run = run_module.TritonRun(block, WeightCache(), inputs(1, 4, 4, 16).to(DEVICE), None, None)
        assert run._dense is dense
