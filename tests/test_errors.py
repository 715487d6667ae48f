"""One line per failure, whatever raised it."""

import errno

import pytest
from torch.utils.data import DataLoader, Dataset

from sact_det.errors import InputError, errors_to_exit_code, one_line


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


def test_a_defect_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), errors_to_exit_code():
        1 / 0  # noqa: B018


def test_input_errors_are_value_errors_to_callers_in_python():
    assert issubclass(InputError, ValueError)
