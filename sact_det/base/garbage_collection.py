"""When Python looks for rings of objects that nobody holds any more."""

import contextlib
import gc
from typing import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Python does not look for rings of objects meanwhile: among millions of new ones it would look all the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
