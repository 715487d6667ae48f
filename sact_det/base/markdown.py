"""Tables in Markdown."""

from typing import Iterable, Sequence


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A heading, a rule and a line for every row; a `|` in a cell is escaped."""
    escaped = [[str(cell).replace("|", r"\|") for cell in row] for row in (heads, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in escaped]
    return "\n".join([lines[0], f"|{'---|' * len(heads)}", *lines[1:]])
