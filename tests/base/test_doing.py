import io
import re
import sys

import pytest

from sact_det.base.doing import doing


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_told_what_goes_on_and_how_long_it_took(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with doing("reading a.json"):
        assert sys.stderr.getvalue() == "reading a.json ... "
    assert re.fullmatch(r"reading a\.json \.\.\. \d+\.\d s\n", sys.stderr.getvalue())


def test_the_line_of_what_failed_ends_before_the_error(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(ValueError), doing("reading a.json"):
        raise ValueError
    assert sys.stderr.getvalue() == "reading a.json ... \n"


def test_elsewhere_nothing_is_said(capsys):
    with doing("reading a.json"):
        pass
    assert capsys.readouterr().err == ""
