"""What is made of weights is made once, for each of the last settings under which they are used."""

import copy

import pytest
import torch
from torch import nn

from sact_det.execution.packing import MAX_SETTINGS, WeightCache
from sact_det.network.norm import BatchNorm2d


class Counted:
    """Adds up a norm's scale and what it normalises by, and counts how often it does."""

    def __init__(self) -> None:
        self.calls = 0
        self.before: list[object] = []

    def make(self, norm: BatchNorm2d, factor: float) -> torch.Tensor:
        self.calls += 1
        mean, _ = norm.statistics
        return factor * (norm.weight.detach() + mean)

    def renewed(self, norm: BatchNorm2d, factor: float, before: object) -> torch.Tensor:
        self.before.append(before)
        return self.make(norm, factor)


def statistics(mean: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full((2,), mean), torch.ones(2)


@pytest.fixture
def norm():
    return BatchNorm2d(2).eval()


@pytest.fixture
def counted():
    return Counted()


def test_settings_that_come_again_are_known(norm, counted):
    cache, make = WeightCache(), counted.make
    kept = [statistics(float(number)) for number in range(MAX_SETTINGS - 1)]
    first = {}
    for _ in range(3):
        norm.substitute()
        assert first.setdefault(None, cache.get(norm, make, 1.0)) is cache.get(norm, make, 1.0)
        for number, each in enumerate(kept):
            norm.substitute(*each)
            found = cache.get(norm, make, 1.0)
            assert first.setdefault(number, found) is found and torch.equal(found, torch.full((2,), 1.0 + number))
    assert counted.calls == MAX_SETTINGS


def test_of_too_many_settings_the_one_that_was_used_longest_ago_leaves(norm, counted):
    cache, make = WeightCache(), counted.make
    kept = [statistics(float(number)) for number in range(MAX_SETTINGS + 1)]
    for number in (*range(MAX_SETTINGS), 0, MAX_SETTINGS, 0):
        norm.substitute(*kept[number])
        cache.get(norm, make, 1.0)
    assert counted.calls == MAX_SETTINGS + 1
    norm.substitute(*kept[1])
    cache.get(norm, make, 1.0)
    assert counted.calls == MAX_SETTINGS + 2


@pytest.mark.parametrize("mode", [False, True])
def test_equal_settings_elsewhere_are_others_and_so_are_those_written_since(norm, counted, mode):
    cache, make = WeightCache(), counted.make
    with torch.inference_mode(mode):
        norm.substitute(*statistics(1.0))
        cache.get(norm, make, 1.0)
        norm.substitute(*statistics(1.0))
        cache.get(norm, make, 1.0)
    assert counted.calls == 2
    norm.substitute(*statistics(1.0))
    cache.get(norm, make, 1.0)
    norm.substituted_mean.add_(1)
    assert cache.get(norm, make, 1.0).tolist() == [3.0, 3.0] and counted.calls == 4


def test_changed_weights_let_go_of_everything(norm, counted):
    cache, make = WeightCache(), counted.make
    kept = [statistics(0.0), statistics(1.0)]
    for each in (*kept, *kept):
        norm.substitute(*each)
        cache.get(norm, make, 1.0)
    assert counted.calls == 2
    with torch.no_grad():
        norm.weight.add_(1)
    for each in (*kept, *kept):
        norm.substitute(*each)
        assert torch.equal(cache.get(norm, make, 1.0), 2 + each[0])
    assert counted.calls == 4


def test_arguments_and_modules_do_not_meet(norm, counted):
    cache, make, other = WeightCache(), counted.make, copy.deepcopy(norm)
    found = [cache.get(one, make, factor) for one in (norm, other) for factor in (1.0, 2.0)]
    assert counted.calls == 4 and len({id(each) for each in found}) == 4
    assert all(cache.get(one, make, 2.0) is each for one, each in ((norm, found[1]), (other, found[3])))


def test_what_is_renewed_sees_what_was_used_last(norm, counted):
    cache, make = WeightCache(), counted.renewed
    kept = [statistics(0.0), statistics(1.0)]
    found = []
    for each in (*kept, kept[0]):
        norm.substitute(*each)
        found.append(cache.renew(norm, make, 1.0))
    with torch.no_grad():
        norm.weight.add_(1)
    cache.renew(norm, make, 1.0)
    assert found[2] is found[0] and counted.before[0] is None
    assert [before is each for before, each in zip(counted.before[1:], (found[0], found[0]))] == [True, True]


def test_weights_are_what_a_state_dict_has(counted):
    """Buffers of it, moving statistics, count as weights do."""
    norm, cache, make = BatchNorm2d(2).eval(), WeightCache(), counted.make
    cache.get(norm, make, 1.0)
    norm.running_mean.add_(1)
    assert cache.get(norm, make, 1.0).tolist() == [2.0, 2.0]
    nn.Module.load_state_dict(norm, {**norm.state_dict(), "running_mean": torch.full((2,), 5.0)})
    assert cache.get(norm, make, 1.0).tolist() == [6.0, 6.0] and counted.calls == 3
