"""A line on the terminal for work that takes a while and has no steps to count."""

import contextlib
import sys
import time
from typing import Iterator


@contextlib.contextmanager
def doing(what: str) -> Iterator[None]:
    """Says on stderr what is going on and, once it is done, how long it took; nothing where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield
        return
    sys.stderr.write(f"{what} ... ")
    sys.stderr.flush()
    start = time.monotonic()
    try:
        yield
    except BaseException:
        sys.stderr.write("\n")
        raise
    sys.stderr.write(f"{time.monotonic() - start:.1f} s\n")
