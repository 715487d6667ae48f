"""What a value, of a config or a file, must be: a predicate, and the words for it."""

import itertools
import math
from typing import Any, Callable, NamedTuple, Optional


class Rule(NamedTuple):
    """A condition. `expected` follows "KEY must", e.g. "be one of 'a', 'b'"."""

    holds: Callable[[Any], bool]
    expected: str

    def allows(self, value: Any) -> bool:
        """Whether `value` fulfils it; what cannot even be asked does not."""
        try:
            return bool(self.holds(value))
        except (TypeError, ValueError, OverflowError):
            return False


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


TEXT = Rule(lambda value: isinstance(value, str), "be a string")
FINITE = Rule(_is_number, "be a finite number")
POSITIVE = Rule(lambda value: _is_number(value) and value > 0, "be a finite positive number")
NOT_NEGATIVE = Rule(lambda value: _is_number(value) and value >= 0, "be a finite number, 0 or more")


def within(low: float, high: float, ends: str = "[]") -> Rule:
    """A number between two, which belong to it as the brackets `ends` say."""

    def holds(value: Any) -> bool:
        above = low <= value if ends[0] == "[" else low < value
        below = value <= high if ends[1] == "]" else value < high
        return _is_number(value) and above and below

    return Rule(holds, f"lie in {ends[0]}{low}, {high}{ends[1]}")


def whole(low: int, high: Optional[int] = None) -> Rule:
    """An integer from `low`, to `high` if there is one."""
    words = f"be an integer, {low} or more" if high is None else f"be an integer from {low} to {high}"
    return Rule(lambda value: _is_whole(value) and low <= value and (high is None or value <= high), words)


def one_of(*choices: Any) -> Rule:
    """One of some values."""
    return Rule(lambda value: value in choices, f"be one of {', '.join(map(repr, choices))}")


def optional(rule: Rule) -> Rule:
    """None, or what the rule allows."""
    return Rule(lambda value: value is None or rule.allows(value), f"be None or {rule.expected.removeprefix('be ')}")


def listing(rule: Rule, what: str, length: Optional[int] = None, least: int = 0) -> Rule:
    """A list or tuple of what the rule allows.

    Args:
        rule: for each of its values.
        what: the values are, in words.
        length: how many; None: at least `least`.
        least: how many at least.
    """
    count = f"{length} " if length is not None else f"{least} or more " if least else ""

    def holds(value: Any) -> bool:
        fits = len(value) >= least if length is None else len(value) == length
        return isinstance(value, (list, tuple)) and fits and all(map(rule.allows, value))

    return Rule(holds, f"list {count}{what}")


def rising(rule: Rule, what: str) -> Rule:
    """A list, perhaps empty, of what the rule allows, each value larger than the one before."""
    listed = listing(rule, what)

    def holds(value: Any) -> bool:
        return listed.allows(value) and all(low < high for low, high in itertools.pairwise(value))

    return Rule(holds, f"list {what}, in rising order")


def each_as_list(rule: Rule) -> Rule:
    """What the rule allows, or a list of such that is not empty."""
    several = listing(rule, "", least=1)
    return Rule(lambda value: rule.allows(value) or several.allows(value), rule.expected)
