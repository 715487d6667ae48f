"""PyTorch's default type and device change no bit of what networks compute."""

import copy
from typing import Optional

import pytest
import torch
from small_networks import images, randomize
from torch import Tensor, nn

from sact_det.execution import EXECUTIONS, set_execution
from sact_det.execution.cpu import library
from sact_det.network.norm import freeze_norms
from sact_det.network.resnet_v2 import ResNetV2Spec, Stem

CHANNELS = 16

pytestmark = [
    pytest.mark.skipif(library.why_unavailable() is not None, reason=str(library.why_unavailable())),
    pytest.mark.usefixtures("threads"),
]

DEFAULTS = {
    "float64": (torch.set_default_dtype, torch.float64, torch.float32),
    "bfloat16": (torch.set_default_dtype, torch.bfloat16, torch.float32),
    "float16": (torch.set_default_dtype, torch.float16, torch.float32),
    "meta": (torch.set_default_device, "meta", None),
}


@pytest.fixture(params=DEFAULTS)
def default(request):
    """Sets PyTorch's default to another and back, as a context."""
    change, value, before = DEFAULTS[request.param]

    class Default:
        def __enter__(self) -> None:
            change(value)

        def __exit__(self, *_: object) -> None:
            change(before)

    return Default()


def outcome(model: nn.Module, x: Tensor, sizes: Optional[list], training: bool) -> list[Tensor]:
    """Whatever a block computes, and its gradients."""
    model.zero_grad()
    features, ponder = model(x, sizes)
    found = [features, ponder.ponder_cost, ponder.num_units, ponder.flops, ponder.halting_distribution]
    found += [ponder.mean_cost(), ponder.mean_units()]
    if training:
        (features.square().sum() + ponder.ponder_cost.sum()).backward()
        found += [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return [tensor.detach() for tensor in (*found, *model.buffers())]


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("halting, tile", [("none", 1), ("act", 1), ("sact", 1), ("sact", 2)])
@pytest.mark.parametrize("training", [False, True])
def test_the_default_type_and_device_change_no_bit(default, execution: str, halting: str, tile: int, training: bool):
    spec = ResNetV2Spec((1, 3), 4, halting, "FrozenBN", "MovingBN", tile=tile)
    x = images(2, 12, 9, CHANNELS)
    block = spec.build_block(2)
    randomize(block, x, halting_bias=-1.0)
    set_execution(block, execution)
    for sizes in (None, [(12, 9), (5, 7)]):
        one, other = (copy.deepcopy(block).train(training) for _ in range(2))
        with torch.set_grad_enabled(training):
            expected = outcome(one, x, sizes, training)
            with default:
                actual = outcome(other, x, sizes, training)
        assert [t.dtype for t in actual] == [t.dtype for t in expected]
        assert all(torch.equal(a, e) for a, e in zip(actual, expected))


@torch.no_grad()
@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("norm", ["BN", "MovingBN", "SyncBN"])
def test_neither_do_they_in_a_stem_or_where_norms_are_frozen(default, execution: str, norm: str):
    stem, x = Stem(8).eval(), images(2, 31, 40)
    set_execution(stem, execution)
    block = ResNetV2Spec((1, 3), 4, "sact", norm, norm).build_block(2)
    frozen, twin = (copy.deepcopy(block) for _ in range(2))
    freeze_norms(frozen)
    expected = stem(x), stem(x, [(31, 40), (20, 9)])
    with default:
        actual = stem(x), stem(x, [(31, 40), (20, 9)])
        freeze_norms(twin)
    assert all(torch.equal(a, e) for a, e in zip(actual, expected))
    for name, value in frozen.state_dict().items():
        assert value.dtype == twin.state_dict()[name].dtype and torch.equal(value, twin.state_dict()[name])
