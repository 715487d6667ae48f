from pathlib import Path

import numpy as np
import pytest
import torch

from sact_det.rule.ponder import BlockPonder, PonderRecord, legacy_nearest_index

# Which cell each pixel shows, as TensorFlow 1.0's nearest-neighbour resize has it; keys are "{pixels}_from_{cells}".
LEGACY_NEAREST = np.load(Path(__file__).parents[1] / "fixtures" / "legacy_nearest.npz")


def block(cost: list, sizes: list[tuple[int, int]] | None = None) -> BlockPonder:
    """An outcome with ponder costs [N, h, w] of one or two units."""
    rho = torch.tensor(cost, dtype=torch.float32)
    units = (rho - 0.5).long()
    distribution = torch.stack([units == 1, units == 2], 1).float()
    return BlockPonder(rho, units, 10 * torch.arange(1, len(rho) + 1), distribution, sizes)


@pytest.fixture
def padded() -> PonderRecord:
    """Two images, the first of 2 x 1 cells and the second of 1 x 2, on maps of 2 x 2 cells."""
    sizes = [(2, 1), (1, 2)]
    first = block([[[2, 0], [3, 0]], [[2, 2.5], [0, 0]]], sizes)
    second = block([[[2.5, 0], [2.5, 0]], [[3, 2], [0, 0]]], sizes)
    return PonderRecord({"block1": first, "block2": second}, torch.tensor([100, 200]))


@pytest.mark.parametrize("name", LEGACY_NEAREST.files)
def test_legacy_nearest_index_is_that_of_tensorflow(name: str):
    size_out, size_in = map(int, name.split("_from_"))
    np.testing.assert_array_equal(legacy_nearest_index(size_in, size_out), LEGACY_NEAREST[name])


def test_legacy_nearest_index_is_not_exact_division():
    exact = np.arange(198) * 50 // 198
    assert (legacy_nearest_index(50, 198) != exact).sum() == 1


@pytest.mark.parametrize("size", [1, 7, 600])
def test_legacy_nearest_index_of_the_same_size_is_the_identity(size: int):
    np.testing.assert_array_equal(legacy_nearest_index(size, size), np.arange(size))


def test_map_repeats_cells_and_sums_blocks():
    fine = block([[[2, 3, 2], [4, 5, 2]]])
    coarse = block([[[2.5]]])
    record = PonderRecord({"block1": fine, "block2": coarse}, torch.tensor([0]))
    rows = [[4.5, 4.5, 5.5, 5.5, 4.5, 4.5], [6.5, 6.5, 7.5, 7.5, 4.5, 4.5]]
    assert record.map((4, 6))[0].tolist() == [rows[0], rows[0], rows[1], rows[1]]
    own = PonderRecord({"block1": fine}, torch.tensor([0])).map((2, 3))
    assert own is not fine.ponder_cost and torch.equal(own, fine.ponder_cost)


def test_map_of_act_is_constant():
    record = PonderRecord({"block1": block([[[2.25]], [[3]]]), "block2": block([[[2]], [[2.5]]])}, torch.tensor([0, 0]))
    expected = torch.tensor([4.25, 5.5])[:, None, None].expand(2, 5, 7)
    assert torch.equal(record.map((5, 7)), expected)


def test_map_refuses_images_of_different_size(padded: PonderRecord):
    with pytest.raises(ValueError, match=r"`map`: the images differ in size; use record\.image\(i\)"):
        padded.map((4, 4))


def test_image_crops_the_padding_away(padded: PonderRecord):
    assert padded.image(0).map((2, 2))[0].tolist() == [[4.5, 4.5], [5.5, 5.5]]
    assert padded.image(1).map((1, 2))[0].tolist() == [[5, 4.5]]
    second = padded.image(1).blocks["block1"]
    assert second.ponder_cost.tolist() == [[[2, 2.5]]]
    assert second.num_units.tolist() == [[[1, 2]]]
    assert second.halting_distribution.shape == (1, 2, 1, 2)
    assert second.sizes is None
    assert padded.image(1).flops.tolist() == [200 + 20 + 20]


def test_means_are_over_an_image_s_own_positions(padded: PonderRecord):
    first = padded.blocks["block1"]
    assert first.mean_cost().tolist() == [2.5, 2.25]
    assert first.mean_units().tolist() == [1.5, 1.5]
    assert padded.mean_cost().tolist() == [5, 4.75]
    for i in range(2):
        assert padded.image(i).mean_cost().item() == padded.mean_cost()[i]


def test_flops_sum_blocks_and_what_is_dense(padded: PonderRecord):
    assert padded.flops.tolist() == [100 + 10 + 10, 200 + 20 + 20]
    assert padded.flops.dtype == torch.int64


def test_detached_records_hold_the_same_numbers_without_gradient(padded: PonderRecord):
    first = padded.blocks["block1"]
    first.ponder_cost.requires_grad_()
    assert padded.mean_cost().requires_grad
    detached = padded.on_host()
    assert not detached.mean_cost().requires_grad
    assert torch.equal(detached.mean_cost(), padded.mean_cost())
    assert torch.equal(detached.flops, padded.flops)
    assert detached.blocks["block1"].sizes == first.sizes
