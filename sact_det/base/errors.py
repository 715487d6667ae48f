"""Whatever is wrong ends a command with one clear line and an exit code that is not 0, not with a traceback."""

import contextlib
import logging
import os
import select
import sys
import tempfile
import traceback
from typing import Any, Iterator, Optional

# What torch puts before an exception that another process raised.
_OTHER_PROCESS = "Traceback (most recent call last)"

# In the words of PyTorch (CPU, CUDA, more than can be counted, loading processes), C++, OpenCV and numpy.
_OUT_OF_MEMORY = (
    *("can't allocate memory", "out of memory", "Storage size calculation overflowed", "out of shared memory"),
    *("is killed by signal: Killed", "std::bad_alloc", "Insufficient memory", "array is too big"),
)

_FAILED = 1
# As shells have it: 128 + SIGINT, 128 + SIGPIPE.
_INTERRUPTED, _NOBODY_READS = 130, 141


class InputError(ValueError):
    """What the user gave cannot be used; the message is one line that names the file or key and what was expected."""


def one_line(error: BaseException) -> str:
    """The message of an exception as one line; for one that another process raised, the original message."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if _OTHER_PROCESS in text:
        text = text.rstrip().rsplit("\n", 1)[-1].partition(": ")[2]
    return " ".join(text.split()) or type(error).__name__


def shown(text: str, most: int = 100) -> str:
    """As much of a text, in characters, as a message takes."""
    return text if len(text) <= most else f"{text[:most]}..."


@contextlib.contextmanager
def naming(place: object, *kinds: type[Exception]) -> Iterator[None]:
    """Turns what is raised into an InputError, whose message is `place`, a colon, and what was said, in one line.

    Args:
        place: the file, key or image at fault, and perhaps what it should have been.
        kinds: which exceptions; default: every one but InputErrors, which pass unless their kind is given.
    """
    caught = kinds or (Exception,)
    try:
        yield
    except caught as error:
        if not isinstance(error, InputError):
            raise InputError(f"{place}: {one_line(error)}") from error
        if InputError not in kinds:
            raise
        raise InputError(f"{place}: {error}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory, of the machine or of a GPU, does not suffice."""
    if isinstance(error, InputError):
        return False
    return isinstance(error, MemoryError) or any(said in str(error) for said in _OUT_OF_MEMORY)


@contextlib.contextmanager
def errors_to_exit_code() -> Iterator[None]:
    """For command lines: reports whatever is raised as one line on stderr, and exits with a code that is not 0.

    * InputError and OSError are `error: ...`, code 1.
    * Any other exception is a defect of ours, or nobody thought of it: its line has its type and names the file that
      the traceback is in: the log of the run, if there is one, else a temporary file.
    * Ctrl-C is `interrupted`, code 130; a pipe that nobody reads any more (`| head`) code 141, without a line.

    Tracebacks of all but these two go to the log of the run. The environment variable SACT_DEBUG=1 shows them, too.
    A log that cannot be written (a full disk, `| head`) stops nobody.
    """
    raised, logging.raiseExceptions = logging.raiseExceptions, False  # else logging prints tracebacks of its own
    try:
        yield
        sys.stdout.flush()  # a pipe that nobody reads is found here, not when the interpreter ends
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(_INTERRUPTED)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            sys.exit(_NOBODY_READS)
        # In one piece: other processes may have to say the same.
        sys.stderr.write(f"{_shown_traceback(error)}error: {_told(error)}\n")
        sys.exit(_FAILED)
    finally:
        logging.raiseExceptions = raised


def _told(error: Exception) -> str:
    log, message = _write_to_log(error), one_line(error)
    if isinstance(error, (InputError, OSError)):
        return message
    kind = "out of memory" if is_out_of_memory(error) else type(error).__name__
    told = kind if message == type(error).__name__ else f"{kind}: {message}"
    file = log or _write_to_temporary_file(error)
    where = f"traceback: {file}; " if file else ""
    return f"{told} ({where}SACT_DEBUG=1 shows it)"


def _shown_traceback(error: Exception) -> str:
    shown = os.environ.get("SACT_DEBUG", "") not in ("", "0")
    return "".join(traceback.format_exception(error)) if shown else ""


def _log_files() -> Iterator[Any]:
    """The streams that the loggers of a run write files with; each has the path as its `name`."""
    seen = set()
    for logger in ("sact_det", "detectron2"):
        for handler in logging.getLogger(logger).handlers:
            stream = getattr(handler, "stream", None)
            name = getattr(stream, "name", None)
            if isinstance(name, str) and name not in seen and os.path.isfile(name):
                seen.add(name)
                yield stream


def _write_to_log(error: Exception) -> Optional[str]:
    """The path of the run's log, which then has the traceback; None if there is none, or its disk is full."""
    path = None
    for stream in _log_files():
        with contextlib.suppress(OSError, ValueError):
            stream.write("".join(traceback.format_exception(error)))
            stream.flush()
            path = path or stream.name
    return path


def _write_to_temporary_file(error: Exception) -> Optional[str]:
    """The path of a new file with the traceback; None if none can be written."""
    with contextlib.suppress(OSError):
        descriptor, path = tempfile.mkstemp(prefix="sact_det_", suffix=".log")
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(traceback.format_exception(error))
        return path
    return None


def _nobody_reads() -> bool:
    """Whether stdout is a pipe without a reader. Then what it still holds goes nowhere, without a complaint."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # not a file
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    closed = any(event & select.POLLERR for _, event in poll.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    return closed
