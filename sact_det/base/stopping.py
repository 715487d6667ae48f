"""Work that ends where it may when it is asked to, instead of in the midst of it."""

import contextlib
import signal
import threading
from types import FrameType
from typing import Any, Iterator, Optional


class Asked:
    """Attributes: `signal`, the number of the signal by which this process was asked to end; 0: nobody has asked."""

    signal = 0


@contextlib.contextmanager
def stops_when_asked() -> Iterator[Asked]:
    """A context in which SIGINT (Ctrl-C) and SIGTERM only say that the work should end; the second does what it does
    otherwise. In other threads than the main one nothing is heard.
    """
    asked, before = Asked(), dict[int, Any]()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def hear(number: int, frame: Optional[FrameType]) -> None:
        asked.signal = number
        restore()

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        restore()
