"""Shifts of halting branches that are as good as infinite."""

from typing import Mapping

NEVER, AT_ONCE = -1000.0, 1000.0  # at which nothing halts early, and everything behind the first unit
FAR = 100.0  # beyond which hardly a logit lies: scores are 0 or 1, whatever a branch says; steep ones go on

Shifts = Mapping[str, float]  # block -> its shift
