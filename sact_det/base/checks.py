"""Arguments of Python calls: what is refused, in words that name them."""

from typing import Sequence


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raises ValueError, naming the argument, if `value` is not one of `choices`."""
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}; got {value!r}")


def are_positive_integers(values: Sequence[object]) -> bool:
    """Whether that is all there is in `values`."""
    return all(isinstance(value, int) and value > 0 for value in values)
