import math

import numpy as np
import pytest
import torch
from literal_algorithms import algorithm_1, algorithm_2
from torch import Tensor

from sact_det.rule.halting import DEFAULT_EPS, HaltingState, halting_step, share_in_tiles, start_halting

# Sums of these meet the threshold 1 - 0.01 exactly, miss it by one float32, or pass it.
PALETTE = np.float32([0.0, 0.33, 0.49, 0.5, 0.98, 0.98999995, 0.99, 1.0])


def run(h: Tensor, exists: Tensor | None = None, eps: float = DEFAULT_EPS) -> tuple[Tensor, HaltingState]:
    """h: scores of all units but the last, [L - 1, *positions] -> p [L, *positions] and the final state."""
    state = start_halting(torch.ones(h.shape[1:], dtype=torch.bool) if exists is None else exists)
    p = []
    for score in (*h, None):
        weight, state = halting_step(state, score, eps)
        p.append(weight)
    return torch.stack(p), state


def random_scores(num_units: int, *shape: int, seed: int) -> Tensor:
    """Half of them from PALETTE, half uniform: [num_units - 1, *shape]."""
    rng = np.random.default_rng(seed)
    shape = (num_units - 1, *shape)
    uniform = rng.random(shape, dtype=np.float32) * rng.random(shape, dtype=np.float32)
    return torch.from_numpy(np.where(rng.random(shape) < 0.5, rng.choice(PALETTE, shape), uniform))


def one_hot_units(num_units: int, height: int, width: int) -> list:
    """Units whose output is 1 in the channel of their own number, so that a block outputs its halting distribution."""
    outputs = torch.eye(num_units)[:, None, :, None, None].expand(-1, 1, -1, height, width)
    return [lambda x, output=output: output for output in outputs]


@pytest.mark.parametrize("num_units", [1, 2, 5, 23])
@pytest.mark.parametrize("eps", [0.01, 0.3])
def test_every_position_follows_algorithm_2(num_units: int, eps: float):
    h = random_scores(num_units, 1, 6, 7, seed=num_units)
    p, state = run(h, eps=eps)
    output, rho, N = algorithm_2(
        torch.zeros(1, 1, 6, 7), one_hot_units(num_units, 6, 7), [lambda x, score=score: score for score in h], eps
    )
    assert torch.equal(p[:, 0], output[0])
    assert torch.equal(state.ponder_cost[0], rho)
    assert torch.equal(state.num_units[0], N)
    assert not state.active.any()


@pytest.mark.parametrize("num_units", [2, 5, 23])
def test_every_image_follows_algorithm_1(num_units: int):
    h = random_scores(num_units, 40, seed=num_units)
    p, state = run(h)
    for n in range(h.shape[1]):
        scores = [lambda x, score=score: score for score in h[:, n]]
        output, rho, N = algorithm_1(torch.zeros(1, 1, 1, 1), one_hot_units(num_units, 1, 1), scores, DEFAULT_EPS)
        assert torch.equal(p[:, n], output.flatten())
        assert state.ponder_cost[n] == rho
        assert state.num_units[n] == N


def test_a_tie_with_the_threshold_halts_in_float32():
    threshold = np.float32(1 - DEFAULT_EPS)
    h = torch.tensor([[threshold, np.nextafter(threshold, np.float32(0))]])
    assert run(h)[1].num_units.tolist() == [1, 2]


@pytest.mark.parametrize(("score", "units", "units_in_exact_arithmetic"), [(0.11, 9, 10), (0.12375, 9, 8)])
def test_scores_add_up_in_float32(score: float, units: int, units_in_exact_arithmetic: int):
    h = torch.tensor(score).expand(11, 1)
    assert run(h)[1].num_units.item() == units
    assert (h.double().cumsum(0) < 1 - DEFAULT_EPS).sum().item() + 1 == units_in_exact_arithmetic


def test_halting_at_the_first_unit_costs_two():
    p, state = run(torch.tensor([[0.995], [0.7], [0.2]]))
    assert p.flatten().tolist() == [1, 0, 0, 0]
    assert (state.num_units.item(), state.remainder.item(), state.ponder_cost.item()) == (1, 1, 2)


def test_without_scores_the_last_unit_takes_everything():
    p, state = run(torch.zeros(3, 1))
    assert p.flatten().tolist() == [0, 0, 0, 1]
    assert (state.num_units.item(), state.remainder.item(), state.ponder_cost.item()) == (4, 1, 5)


def test_figure_3_of_the_paper():
    p, state = run(torch.tensor([[0.1], [0.1], [0.2], [0.8], [0.5]]))
    assert p.flatten().tolist() == pytest.approx([0.1, 0.1, 0.2, 0.6, 0, 0])
    assert state.num_units.item() == 4
    assert state.remainder.item() == pytest.approx(0.6)
    assert state.ponder_cost.item() == pytest.approx(4.6)


@pytest.mark.parametrize("seed", range(3))
def test_halting_distribution_is_one_and_the_remainder_lies_between_zero_and_one(seed: int):
    p, state = run(random_scores(8, 2, 30, 30, seed=seed))
    assert p.min() >= 0
    torch.testing.assert_close(p.sum(0), torch.ones(2, 30, 30), atol=1e-6, rtol=0)
    assert state.remainder.min() >= 0
    assert state.remainder.max() <= 1
    torch.testing.assert_close(state.ponder_cost, state.num_units + state.remainder)


def test_gradient_of_the_ponder_cost_is_minus_one_before_the_last_evaluated_unit():
    h = random_scores(6, 2, 9, 9, seed=0).requires_grad_()
    _, state = run(h)
    state.ponder_cost.sum().backward()
    unit = torch.arange(1, 6)[:, None, None, None]
    assert torch.equal(h.grad, -(unit < state.num_units).float())


def test_number_of_units_carries_no_gradient():
    _, state = run(random_scores(6, 9, seed=0).requires_grad_())
    assert state.num_units.dtype == torch.int64
    assert state.ponder_cost.requires_grad
    assert not (state.num_units.requires_grad or state.cumulative.requires_grad)


def test_gradients_equal_finite_differences_away_from_the_threshold():
    h = torch.tensor([[0.2, 0.9, 0.995], [0.3, 0.3, 0.1], [0.1, 0.2, 0.3]], dtype=torch.float64, requires_grad=True)
    states = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def output_and_cost(h: Tensor) -> tuple[Tensor, Tensor]:
        p, state = run(h)
        return (p * states).sum(0), state.ponder_cost

    assert torch.autograd.gradcheck(output_and_cost, h)


def test_positions_that_do_not_exist_stay_at_zero():
    exists = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.6
    h = random_scores(5, 2, 8, 8, seed=1)
    p, state = run(h, exists)
    for values in (p.amax(0), state.ponder_cost, state.num_units, state.cumulative):
        assert not values[~exists].any()
    p_everywhere, state_everywhere = run(h)
    assert torch.equal(p[:, exists], p_everywhere[:, exists])
    assert torch.equal(state.ponder_cost[exists], state_everywhere.ponder_cost[exists])


def test_tiles_by_hand_with_smaller_ones_at_the_borders():
    h = torch.arange(1.0, 13).view(1, 3, 4)
    expected = torch.tensor([[3.5, 3.5, 5.5, 5.5], [3.5, 3.5, 5.5, 5.5], [9.5, 9.5, 11.5, 11.5]])
    assert torch.equal(share_in_tiles(h, 2)[0], expected)
    assert torch.equal(share_in_tiles(h, 5)[0], torch.full((3, 4), 6.5))
    assert share_in_tiles(h, 1) is h


@pytest.mark.parametrize("tile", [2, 3, 4])
def test_tiles_hold_the_mean_of_their_own_positions_without_padding(tile: int):
    sizes = [(7, 9), (4, 3), (5, 8), (1, 1)]
    h = torch.rand(len(sizes), 7, 9, generator=torch.Generator().manual_seed(tile))
    valid = torch.zeros_like(h, dtype=torch.bool)
    for mask, (height, width) in zip(valid, sizes):
        mask[:height, :width] = True
    shared = share_in_tiles(h, tile, valid)
    for image, scores, (height, width) in zip(shared, h, sizes):
        for top in range(0, height, tile):
            for left in range(0, width, tile):
                own = np.s_[top : min(top + tile, height), left : min(left + tile, width)]
                torch.testing.assert_close(image[own], scores[own].mean().expand_as(image[own]))
                assert image[own].unique().numel() == 1


def test_all_positions_of_a_tile_halt_together():
    h = torch.stack([share_in_tiles(score, 4) for score in random_scores(6, 2, 10, 13, seed=0)])
    _, state = run(h)
    for top in range(0, 10, 4):
        for left in range(0, 13, 4):
            units = state.num_units[:, top : top + 4, left : left + 4].flatten(1)
            assert torch.equal(units.amin(1), units.amax(1))


def test_tile_must_be_positive():
    with pytest.raises(ValueError, match="`tile` must be at least 1; got 0"):
        share_in_tiles(torch.zeros(1, 2, 2), 0)


def test_negative_bias_starts_with_about_21_units():
    """Section 4: the bias -3 "corresponds to initially using 1 / sigma(b) = 21 units"."""
    score = torch.tensor(-3.0).sigmoid()
    _, state = run(score.expand(29, 1))
    assert state.num_units.item() == math.ceil(0.99 / score.item()) == 21
