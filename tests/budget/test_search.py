"""The search for shifts, on networks whose shares are known functions of them."""

import math

import numpy as np
import pytest

from sact_det.base.errors import InputError
from sact_det.budget.search import BudgetSearch, Measured, Reached
from sact_det.budget.shifts import AT_ONCE, FAR, NEVER

BLOCKS = ("block1", "block2", "block3")
CENTERS, WEIGHTS, FLOOR = (-3.0, 0.5, 6.0), (0.2, 0.3, 0.203), 0.3


class Known:
    """A network whose blocks have shares that fall with their shifts, and whose quality is best at `favourite`."""

    def __init__(self, steep=1.0, favourite=None):
        self.steep, self.favourite, self.asked = steep, favourite, []

    def __call__(self, shifts):
        values = [shifts[block] for block in BLOCKS]
        assert tuple(values) not in self.asked, "asked twice"
        self.asked.append(tuple(values))
        open_shares = [1 / (1 + math.exp(min(self.steep * (v - c), 700))) for v, c in zip(values, CENTERS)]
        quality = 0.0
        if self.favourite is not None:
            centered = np.subtract(values, np.mean(values))
            quality = -float(np.abs(centered - self.favourite).sum())
        return Measured(FLOOR + float(np.dot(WEIGHTS, open_shares)), 0.01, quality)


def test_every_budget_is_reached_within_the_tolerance_in_few_steps():
    network = Known()
    search = BudgetSearch(BLOCKS, network)
    assert network.asked == [(NEVER,) * 3, (AT_ONCE,) * 3]
    guess = 0.0
    for budget in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4):
        found = search.reach(budget, (0.0,) * 3, guess)
        assert abs(found.measured.flops - budget) <= search.tolerance
        assert set(search.shifts(found).values()) == {found.common}
        guess = found.common
    assert len(network.asked) < 2 + 7 * 4


def test_offsets_shift_the_bracket_with_them():
    search = BudgetSearch(BLOCKS, Known())
    found = search.reach(0.6, (20.0, -30.0, 10.0))
    assert abs(found.measured.flops - 0.6) <= search.tolerance
    assert list(search.shifts(found).values()) == [found.common + offset for offset in (20.0, -30.0, 10.0)]


@pytest.mark.parametrize("steep, far", [(1.0, FAR), (0.04, 2 * FAR), (0.02, 4 * FAR), (0.001, -NEVER)])
def test_the_bracket_is_as_wide_as_the_logits_are(steep, far):
    network = Known(steep=steep)
    search = BudgetSearch(BLOCKS, network)
    assert search.untouched() == (-far, (0.0,) * 3, search.most)
    assert set(search.open_shifts().values()) == {-far}
    for budget in (0.95, 0.7, 0.4):
        assert abs(search.reach(budget, (0.0,) * 3).measured.flops - budget) <= search.tolerance or steep == 0.001


def test_where_the_share_jumps_over_a_budget_the_nearest_is_taken():
    network = Known(steep=1e6)
    found = BudgetSearch(BLOCKS, network).reach(0.75, (0.0,) * 3)
    shares = {FLOOR + sum(WEIGHTS[i:]) for i in range(4)}
    assert found.measured.flops == pytest.approx(min(shares, key=lambda share: abs(share - 0.75)))
    assert len(network.asked) < 22


def test_where_never_to_halt_is_less_than_all_of_it_that_is_the_nearest():
    search = BudgetSearch(BLOCKS, lambda shifts: Known()(shifts)._replace(flops=0.9 * Known()(shifts).flops))
    search.check(1.0)
    assert search.reach(1.0, (0.0,) * 3).measured == search.most


@pytest.mark.parametrize(
    ("budget", "said"), [(0.2, r"first units of all blocks.* take 0\.3000"), (1.1, "cannot be spent")]
)
def test_what_cannot_be_had_is_refused_with_what_can(budget, said):
    with pytest.raises(InputError, match=said):
        BudgetSearch(BLOCKS, Known()).check(budget)
    BudgetSearch(BLOCKS, Known()).check(0.3)


def best_of(network, candidates, seed=0, before=None):
    search = BudgetSearch(BLOCKS, network)
    before = before or Reached(0.0, (0.0,) * 3, search.most)
    steps = []
    found = search.best(0.7, before, candidates, np.random.default_rng(seed), lambda: steps.append(1))
    assert len(steps) == candidates + 1 and abs(found.measured.flops - 0.7) <= 2 * search.tolerance
    return found


def test_single_blocks_are_shifted_only_for_a_better_quality():
    assert best_of(Known(), 4).offsets == (0.0,) * 3  # no better than the common shift
    favourite = (4.0, -6.0, 2.0)
    common, few, many = (best_of(Known(favourite=favourite), number).measured.quality for number in (0, 4, 40))
    assert common < few <= many
    assert best_of(Known(favourite=favourite), 4) == best_of(Known(favourite=favourite), 4)
    assert best_of(Known(favourite=favourite), 4, seed=1) != best_of(Known(favourite=favourite), 4)


def test_only_what_spends_a_budget_is_judged_on_more_images():
    favourite = (4.0, -6.0, 2.0)
    few, judges = Known(favourite=(-4.0, 6.0, -2.0)), Known(favourite=favourite)  # few images would have it wrong
    search = BudgetSearch(BLOCKS, few, judge=lambda shifts: judges(shifts)._replace(flops=0.71))
    before = Reached(0.0, favourite, search.most)
    found = search.best(0.7, before, 3, np.random.default_rng(0), lambda: None)
    assert found.offsets == favourite and found.measured.flops == 0.71
    assert 2 <= len(judges.asked) <= 4 < len(few.asked)
    assert search.whole() == judges_of_whole(search, judges)
    assert search.judged(found._replace(common=9.0)).measured.quality == pytest.approx(0, abs=0.01)


def judges_of_whole(search, judges):
    assert judges.asked.pop() == (NEVER,) * 3
    return judges(dict.fromkeys(BLOCKS, NEVER))._replace(flops=0.71)


def test_what_the_budget_before_found_best_is_tried_first():
    favourite = (4.0, -6.0, 2.0)
    before = Reached(0.0, favourite, Measured(0.8, 0, 0))
    assert best_of(Known(favourite=favourite), 1, before=before).offsets == favourite


def test_nothing_is_better_where_nothing_can_be_judged():
    network = Known()
    found = best_of(lambda shifts: network(shifts)._replace(quality=math.nan), 3)
    assert found.offsets == (0.0,) * 3 and math.isnan(found.measured.quality)
