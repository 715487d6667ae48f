"""One line per failure, whatever raised it."""

import errno
import subprocess
import sys
import tempfile
from subprocess import PIPE

import pytest
import torch
from detectron2.utils.logger import setup_logger
from torch.multiprocessing import ProcessRaisedException
from torch.utils.data import DataLoader, Dataset

from sact_det.base.errors import InputError, errors_to_exit_code, naming, one_line


class Broken(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise InputError("photo.jpg: broken: in two ways")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("a\n  b\tc"), "a b c"),
        (KeyError("no 'quotes' around"), "no 'quotes' around"),
        (KeyError(), "KeyError"),
        (AssertionError(), "AssertionError"),
        (OSError(errno.ENOSPC, "No space left on device", "out/w.pth"), "out/w.pth: No space left on device"),
        (OSError(errno.ENOSPC, "No space left on device"), "[Errno 28] No space left on device"),
        (OSError("torn file"), "torn file"),
    ],
)
def test_every_exception_becomes_one_line(error, line):
    assert one_line(error) == line


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_loading_worker_reads_like_one_in_the_main_process(workers):
    line = ""
    try:
        next(iter(DataLoader(Broken(), num_workers=workers)))
    except InputError as error:
        error.__traceback__ = None  # its frames would keep the worker alive until it times out
        line = one_line(error)
    assert line == "photo.jpg: broken: in two ways"


@pytest.mark.parametrize(
    "error", [InputError("no such key"), PermissionError(errno.EACCES, "Permission denied", "out")]
)
def test_bad_input_ends_a_command_with_one_line_and_exit_code_1(error, capsys):
    with pytest.raises(SystemExit) as end, errors_to_exit_code():
        raise error
    assert end.value.code == 1
    assert capsys.readouterr() == ("", f"error: {one_line(error)}\n")


def report(capsys, error):
    """What is written to stderr, and the exit code."""
    with pytest.raises(SystemExit) as end, errors_to_exit_code():
        raise error
    return capsys.readouterr().err, end.value.code


def test_what_nobody_thought_of_is_one_line_that_names_the_file_with_the_traceback(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(SystemExit) as end, errors_to_exit_code():
        1 / 0  # noqa: B018
    (file,) = tmp_path.iterdir()
    line = f"error: ZeroDivisionError: division by zero (traceback: {file}; SACT_DEBUG=1 shows it)\n"
    assert (capsys.readouterr().err, end.value.code) == (line, 1)
    assert "1 / 0" in file.read_text() and file.read_text().endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.usefixtures("own_loggers")
def test_the_log_of_a_run_takes_the_tracebacks(capsys, tmp_path):
    setup_logger(str(tmp_path), name="sact_det")
    assert report(capsys, InputError("no such key")) == ("error: no such key\n", 1)
    line, _ = report(capsys, AttributeError("x"))
    log = tmp_path / "log.txt"
    assert line == f"error: AttributeError: x (traceback: {log}; SACT_DEBUG=1 shows it)\n"
    assert log.read_text().count("Traceback") == 2 and "InputError: no such key\n" in log.read_text()


def test_tracebacks_are_shown_on_demand(capsys, monkeypatch):
    monkeypatch.setenv("SACT_DEBUG", "1")
    said, code = report(capsys, InputError("no such key"))
    assert code == 1 and said.startswith("Traceback (most recent call last):\n")
    assert said.endswith("InputError: no such key\nerror: no such key\n")


def test_ctrl_c_is_one_line_and_130(capsys):
    assert report(capsys, KeyboardInterrupt()) == ("interrupted\n", 130)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    ],
)
def test_memory_that_does_not_suffice_is_called_so(error, capsys):
    assert report(capsys, error)[0].startswith("error: out of memory")


def test_a_pipe_that_nobody_reads_ends_a_command_without_a_word():
    code = (
        "import logging, sys; from sact_det.base.errors import errors_to_exit_code\n"
        "logging.basicConfig(stream=sys.stdout)\n"
        "with errors_to_exit_code():\n"
        "    sys.stdin.read()\n"
        "    logging.warning('much'), print('to say')"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=PIPE, stdout=PIPE, stderr=PIPE)
    process.stdout.close()
    process.stdin.close()
    assert (process.stderr.read(), process.wait()) == (b"", 141)
    process.stderr.close()


def test_what_a_process_raised_reads_like_what_this_one_raises():
    with pytest.raises(ProcessRaisedException) as raised:
        torch.multiprocessing.spawn(divmod, args=(0,))
    assert one_line(raised.value) == "integer division or modulo by zero"


def test_input_errors_are_value_errors_to_callers_in_python():
    assert issubclass(InputError, ValueError)


@pytest.mark.parametrize(
    ("raised", "kinds", "said"),
    [
        (KeyError("a"), (), "f.json: a"),
        (OSError("two\nlines"), (OSError,), "f.json: two lines"),
        (InputError("b.json: bad"), (InputError,), "f.json: b.json: bad"),
        (InputError("b.json: bad"), (), "b.json: bad"),
        (InputError("b.json: bad"), (ValueError,), "b.json: bad"),
    ],
)
def test_what_is_raised_gets_the_name_of_a_file_and_input_errors_only_on_demand(raised, kinds, said):
    with pytest.raises(InputError) as error, naming("f.json", *kinds):
        raise raised
    assert str(error.value) == said


@pytest.mark.parametrize(("raised", "kinds"), [(KeyError("a"), (ValueError,)), (KeyboardInterrupt(), ())])
def test_exceptions_of_other_kinds_pass(raised, kinds):
    with pytest.raises(type(raised)) as error, naming("f.json", *kinds):
        raise raised
    assert error.value is raised
