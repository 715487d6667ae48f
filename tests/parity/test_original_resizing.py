"""The index rule of the original's nearest-neighbour resize."""

import re

import numpy as np
import pytest
from oracle import ORACLE

from sact_det.rule.ponder import legacy_nearest_index

with np.load(ORACLE / "preprocessing" / "expected.npz", allow_pickle=False) as _archive:
    INDICES = {name: _archive[name] for name in _archive if name.startswith("nearest/")}


@pytest.mark.parametrize("name", INDICES)
def test_nearest_neighbour_indices_are_the_originals(name: str):
    size_out, size_in = map(int, re.fullmatch(r"nearest/(\d+)_from_(\d+)", name).groups())
    np.testing.assert_array_equal(legacy_nearest_index(size_in, size_out), INDICES[name])


def test_the_float32_rounding_of_the_rule_is_among_the_cases():
    exact = np.floor(np.arange(198) * 50 / 198).astype(int)
    assert (exact != INDICES["nearest/198_from_50"]).any()
