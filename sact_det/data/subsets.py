"""Parts of data sets that stand for the whole."""

from typing import Any, Sequence


def evenly(entries: Sequence[Any], most: int) -> list[Any]:
    """At most so many of them, evenly spread."""
    if len(entries) <= most:
        return list(entries)
    return [entries[index * len(entries) // most] for index in range(most)]
