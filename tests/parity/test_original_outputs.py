"""The original program's checkpoints give the original program's numbers."""

import numpy as np
import pytest
import torch
from oracle import CASES, Case, original_network

from sact_det.network.classifier import ClassifierOutput
from sact_det.rule.ponder import BlockPonder, PonderRecord

RTOL = 1e-5  # of the largest value of a tensor; 2e-6 is what float32 leaves


@pytest.fixture(params=CASES, scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    return original_network(request.param)


@pytest.fixture(params=["dense", "perforated", "auto"], scope="module")
def output(case: Case, request: pytest.FixtureRequest) -> ClassifierOutput:
    case.model.set_execution(request.param)
    with torch.no_grad():
        return case.model(case.images)


def assert_equal_to_float_tolerance(actual: torch.Tensor, expected: np.ndarray):
    expected = expected.reshape(actual.shape)
    assert np.abs(actual.numpy() - expected).max() <= RTOL * np.abs(expected).max()


def test_flops_are_the_same_integers(case: Case, output: ClassifierOutput):
    assert output.ponder.flops.tolist() == case.expected["flops"].tolist()
    for ours, theirs in case.block_names:
        assert output.ponder.blocks[ours].flops.tolist() == case.expected[f"{theirs}/flops"].tolist()


def test_units_are_the_same_integers_everywhere(case: Case, output: ClassifierOutput):
    for (ours, theirs), units in zip(case.block_names, case.model.spec.units):
        actual = output.ponder.blocks[ours].num_units.numpy()
        if case.halting == "none":  # the original keeps no record of a plain network
            assert (actual == units).all()
        else:
            expected = case.expected[f"{theirs}/num_units"]
            assert len(np.unique(expected)) > 1 or (theirs == "block2" and case.halting == "act")
            np.testing.assert_array_equal(actual.squeeze(), expected)


def test_ponder_cost_and_halting_distribution_are_the_same(case: Case, output: ClassifierOutput):
    if case.halting == "none":
        assert not any("ponder_cost" in name for name in case.expected)
        return
    for ours, theirs in case.block_names:
        block = output.ponder.blocks[ours]
        assert_equal_to_float_tolerance(block.ponder_cost, case.expected[f"{theirs}/ponder_cost"])
        distribution = case.expected[f"{theirs}/halting_distribution"]
        np.testing.assert_allclose(
            block.halting_distribution.numpy().squeeze(), np.moveaxis(distribution, -1, 1), atol=1e-5
        )


@pytest.mark.parametrize("execution", ["dense", "perforated", "auto"])
def test_features_of_every_block_are_the_same(case: Case, execution: str):
    case.model.set_execution(execution)
    with torch.no_grad():
        x = case.model.stem(case.images)
        for ours, theirs in case.block_names:
            x, _ = case.model.get_submodule(ours)(x)
            assert_equal_to_float_tolerance(x.permute(0, 2, 3, 1), case.expected[theirs])


def test_logits_are_the_same(case: Case, output: ClassifierOutput):
    assert_equal_to_float_tolerance(output.logits, case.expected["logits"])


@pytest.mark.parametrize("name", ["sact_small_even", "cifar_sact"])
def test_ponder_map_is_exactly_the_originals_given_its_ponder_costs(name: str):
    case = original_network(name)
    blocks = {}
    for ours, theirs in case.block_names:
        cost = torch.from_numpy(case.expected[f"{theirs}/ponder_cost"])
        units = torch.from_numpy(case.expected[f"{theirs}/num_units"]).long()
        blocks[ours] = BlockPonder(cost, units, torch.zeros(len(cost), dtype=torch.long), cost[:, None])
    record = PonderRecord(blocks, torch.zeros(len(cost), dtype=torch.long))
    expected = case.expected["ponder_cost_map"]
    np.testing.assert_array_equal(record.map(expected.shape[1:]).numpy(), expected)


def test_an_image_gets_the_same_numbers_alone():
    case = original_network("sact_small_even")
    with torch.no_grad():
        alone = case.model(case.images[1:])
    assert alone.ponder.flops.tolist() == case.expected["flops"][1:].tolist()
    np.testing.assert_allclose(alone.logits.numpy(), case.expected["logits"][1:], rtol=1e-4, atol=1e-5)
