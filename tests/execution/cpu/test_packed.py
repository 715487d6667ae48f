"""What is packed of a block's weights is made anew where they have changed, and only there."""

import itertools

import pytest
import torch
from small_networks import images, randomize

from sact_det.execution import set_execution
from sact_det.execution.cpu import library
from sact_det.execution.cpu.packed import PackedBlock, pack_block
from sact_det.network.block import AdaptiveBlock
from sact_det.network.norm import BatchNorm2d
from sact_det.network.resnet_v2 import ResNetV2Spec

UNITS = 3

pytestmark = [
    pytest.mark.skipif(library.why_unavailable() is not None, reason=str(library.why_unavailable())),
    pytest.mark.usefixtures("threads"),
]


@pytest.fixture(params=["whole", "the products of its first unit are given"])
def block(request):
    """With norms that learn, as block 4 of a detector has."""
    spec = ResNetV2Spec(units=(UNITS, UNITS), base_channels=4, halting="sact", norm="BN")
    made = spec.build_block(2)
    made = randomize(made, features(made), halting_bias=-1.0).eval()
    made.reads_products = request.param != "whole"
    return made


def features(block: AdaptiveBlock) -> torch.Tensor:
    return images(2, 12, 14, block.units[0].conv1.in_channels)


def panels(packed: PackedBlock, block: AdaptiveBlock) -> list[dict[str, int]]:
    return [{name: panel.data_ptr() for name, panel in packed.matrices[unit].panels.items()} for unit in block.units]


@torch.no_grad()
def test_new_statistics_leave_the_matrices_as_they_were(block):
    first = pack_block(block, torch.float32)
    for norm in (part for part in block.modules() if isinstance(part, BatchNorm2d)):
        norm.substitute(norm.running_mean + 0.1, norm.running_var * 1.5)
    second = pack_block(block, torch.float32, first)
    assert panels(second, block) == panels(first, block)
    fresh = pack_block(block, torch.float32)
    for unit in block.units:
        vectors = (packed.units[unit].tensors[:7] for packed in (first, second, fresh))
        for before, after, expected in zip(*vectors):
            assert torch.equal(after, expected) and (len(after) == 0 or after is not before)


@torch.no_grad()
@pytest.mark.parametrize("name", ["conv1", "conv2", "conv3", "shortcut"])
def test_a_changed_convolution_is_packed_again_and_no_other_unit(block, name):
    number = 0 if name == "shortcut" else 1
    first = pack_block(block, torch.float32)
    getattr(block.units[number], name).weight.mul_(2)
    second = pack_block(block, torch.float32, first)
    changed = [before != after for before, after in zip(panels(first, block), panels(second, block))]
    assert changed == [own == number for own in range(UNITS)]
    fresh = pack_block(block, torch.float32)
    for own, expected in ((second.matrices[unit].panels, fresh.matrices[unit].panels) for unit in block.units):
        assert own.keys() == expected.keys() and all(torch.equal(own[key], expected[key]) for key in own)


@torch.no_grad()
def test_other_statistics_in_the_memory_of_earlier_ones_are_noticed():
    block = ResNetV2Spec(units=(UNITS, UNITS), base_channels=4, halting="sact", norm="BN").build_block(2)
    x = features(block)
    block = randomize(block, x, halting_bias=-1.0).eval()
    norm = block.units[1].norm1
    mean, var = norm.running_mean.numpy().copy(), norm.running_var.numpy().copy()
    set_execution(block, "perforated")
    found = []
    for factor in (1, 4):
        mean *= factor  # which PyTorch does not see
        norm.substitute(torch.from_numpy(mean), torch.from_numpy(var))
        found.append(block(x)[0])
    assert not torch.allclose(*found)
    set_execution(block, "dense")
    torch.testing.assert_close(found[1], block(x)[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_statistics_may_be_set_in_inference_mode_and_out_of_it():
    block = ResNetV2Spec(units=(UNITS, UNITS), base_channels=4, halting="sact", norm="BN").build_block(2)
    x = features(block)
    block = randomize(block, x, halting_bias=-1.0).eval()
    norm = block.units[1].norm1
    set_execution(block, "perforated")
    found = []
    for factor, mode in ((1.0, True), (4.0, False), (2.0, True), (3.0, False)):
        with torch.inference_mode(mode):
            norm.substitute(norm.running_mean * factor, norm.running_var.clone())
            found.append(block(x)[0].clone())
    assert all(not torch.allclose(a, b) for a, b in itertools.pairwise(found))
