"""Bad input ends a command with one clear line and exit code 1, not with a traceback."""

import contextlib
import sys
from typing import Iterator

# What torch.utils.data puts before an exception that a worker process raised.
_WORKER_TRACEBACK = "\nOriginal Traceback"


class InputError(ValueError):
    """What the user gave cannot be used; the message is one line that names the file or key and what was expected."""


def one_line(error: BaseException) -> str:
    """The message of an exception as one line; for one that comes from a data-loading worker, the original message."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if _WORKER_TRACEBACK in text:
        text = text.rstrip().rsplit("\n", 1)[-1].partition(": ")[2]
    return " ".join(text.split()) or type(error).__name__


@contextlib.contextmanager
def errors_to_exit_code() -> Iterator[None]:
    """For command lines: reports bad input and failures of the file system as `error: ...` and exits with 1.

    Any other exception is a defect of ours and keeps its traceback.
    """
    try:
        yield
    except (InputError, OSError) as error:
        sys.stderr.write(f"error: {one_line(error)}\n")  # in one piece: other processes may have to say the same
        sys.exit(1)
